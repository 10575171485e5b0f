"""Raw scans of a patient become four files on one grid, brain only."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from raw_heads import make_grid, make_motion, prepare_quickly, sample_head, sample_mask, write_nifti

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import CHANNELS, FILE_NAMES
from brats_utils.raw.preparation import WRITTEN, _take_off_rim, prepare_patient
from brats_utils.raw.registration import stay
from brats_utils.raw.several import prepare_patients

pytestmark = pytest.mark.slow

MOTIONS = {
    "FLAIR": make_motion((8, 0, 5), (10, -8, 12)),
    "T1w": make_motion((0, 3, -4), (2, 0, -3)),
    "T1gd": make_motion((2, 0, 3), (0, 4, 0)),
    "T2w": make_motion((0, -6, 0), (-9, 6, 0)),
}
GRIDS = {"FLAIR": make_grid((2.0, 2.0, 5.5)), "T2w": make_grid((2.5, 2.5, 4.0))}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        prepare_quickly(patch)
        yield


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Four raw scans of a patient, in a folder whose name is not plain ASCII."""
    folder = tmp_path_factory.mktemp("raw") / "Jörg Groß"
    folder.mkdir()
    heads = {name: sample_head(name, grid=GRIDS.get(name), motion=MOTIONS[name]) for name in CHANNELS}
    return {name: write_nifti(head, folder / f"{FILE_NAMES[name]}.nii.gz") for name, head in heads.items()}


@pytest.fixture(scope="module")
def prepared(scans, tmp_path_factory):
    return prepare_patient(scans, tmp_path_factory.mktemp("prepared") / "Jörg Groß")


def test_the_door_takes_what_was_prepared(prepared):
    (case,) = find_cases(prepared.folder, labelled=False)
    assert case.images == prepared.images
    scan = read_case(case)
    assert scan.spacing_mm == pytest.approx((2, 2, 2))
    assert not scan.warnings


def test_the_brain_is_found_and_all_else_is_0(prepared):
    truth = sitk.GetArrayFromImage(sample_mask(grid=prepared.brain, motion=MOTIONS["T1gd"])) > 0
    brain = sitk.GetArrayFromImage(prepared.brain) > 0
    assert 2 * (truth & brain).sum() / (truth.sum() + brain.sum()) > 0.9
    for path in prepared.images:
        assert not nib.load(path).get_fdata().transpose(2, 1, 0)[~brain].any()


@pytest.mark.parametrize("channel", ["FLAIR", "T2w"])
def test_the_tumour_lies_in_one_place_in_all_channels(prepared, channel):
    truth = sitk.GetArrayFromImage(sample_mask(grid=prepared.brain, motion=MOTIONS["T1gd"], part="tumour")) > 0
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(prepared.folder / f"{FILE_NAMES[channel]}.nii.gz")))
    around = np.argwhere(truth).mean(axis=0)
    low, high = (np.clip(np.round(around + step).astype(int), 0, None) for step in (-13, 13))
    box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
    bright = np.argwhere((image > {"FLAIR": 600, "T2w": 525}[channel])[box] & truth_grown(truth)[box])
    assert np.abs(bright.mean(axis=0) + low - around).max() < 0.75  # voxels of 2 mm


def truth_grown(truth):
    """Truth with room around, so that what lies beside it would be seen."""
    from scipy import ndimage

    return ndimage.binary_dilation(truth, iterations=3)


def test_transforms_are_written_for_other_programs(prepared):
    for channel, registration in prepared.registrations.items():
        read = sitk.ReadTransform(str(prepared.folder / f"transforms/{FILE_NAMES[channel]}.tfm"))
        point = (10.0, -20.0, 30.0)
        assert read.TransformPoint(point) == pytest.approx(registration.transform.TransformPoint(point), abs=1e-4)
        matrix = np.array(prepared.content["channels"][channel]["transform"])
        assert (matrix @ [*point, 1])[:3] == pytest.approx(read.TransformPoint(point), abs=1e-3)


def test_what_was_done_is_written_down(prepared):
    content = json.loads((prepared.folder / "preparation.json").read_text())
    assert content["reference"] == "T1gd"
    assert list(content["channels"]) == list(CHANNELS)
    overlap = content["channels"]["FLAIR"]["overlap"]
    assert overlap["after"] > 0.93 > overlap["before"]
    assert content["versions"]["SimpleITK"] == sitk.Version.VersionString()
    assert content["seconds"] > 0
    assert (prepared.folder / "preparation.png").read_bytes().startswith(b"\x89PNG")


def test_an_earlier_preparation_is_not_overwritten_unasked(prepared, scans):
    before = (prepared.folder / "preparation.json").read_text()
    with pytest.raises(CaseError, match="found an earlier preparation"):
        prepare_patient(scans, prepared.folder)
    assert (prepared.folder / "preparation.json").read_text() == before


def test_a_preparation_that_breaks_off_leaves_nothing(scans, tmp_path, monkeypatch):
    monkeypatch.setattr("brats_utils.raw.preparation.register", lambda fixed, _: stay(fixed))
    monkeypatch.setattr("brats_utils.raw.preparation.check_agreement", lambda *_, **__: ({}, []))
    monkeypatch.setattr("brats_utils.raw.preparation.plot_preparation", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_patient(scans, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_raw_scans_are_never_written_over(scans):
    with pytest.raises(CaseError, match=r"found a raw scan where a prepared one .* would be written"):
        prepare_patient(scans, scans["T1w"].parent, overwrite=True)


def test_without_t1gd_and_with_the_readers_brain(scans, tmp_path):
    three = {name: path for name, path in scans.items() if name != "T1gd"}
    mask = write_nifti(sample_mask(grid=None, motion=MOTIONS["T1w"]), tmp_path / "brain.nii.gz")
    found = prepare_patient(three, tmp_path / "out", brain_mask=mask)
    assert found.reference == "FLAIR"
    assert found.content["brain"] == "given"
    assert found.images[2] is None
    truth = sitk.GetArrayFromImage(sample_mask(grid=found.brain, motion=MOTIONS["FLAIR"])) > 0
    brain = sitk.GetArrayFromImage(found.brain) > 0
    assert 2 * (truth & brain).sum() / (truth.sum() + brain.sum()) > 0.97


def test_a_mask_on_the_grid_of_no_scan_is_refused(scans, tmp_path):
    mask = write_nifti(sample_mask(grid=make_grid((3.0, 3.0, 3.0))), tmp_path / "brain.nii.gz")
    with pytest.raises(CaseError, match="lies on none of the scans voxel by voxel"):
        prepare_patient(scans, tmp_path / "out", brain_mask=mask)
    assert not (tmp_path / "out").exists()


def test_stripped_scans_on_one_grid_are_left_as_they_are(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("brats_utils.raw.brain.find_brain", lambda _: pytest.fail("looked for a brain"))
    again = prepare_patient(dict(zip(CHANNELS, prepared.images, strict=True)), tmp_path / "again")
    for path, other in zip(prepared.images, again.images, strict=True):
        one, two = (nib.load(each) for each in (path, other))
        moved = np.linalg.inv(one.affine) @ two.affine
        x, y, z = np.round(moved[:3, 3]).astype(int)
        shape = two.shape
        np.testing.assert_allclose(
            two.get_fdata(), one.get_fdata()[x : x + shape[0], y : y + shape[1], z : z + shape[2]], atol=1e-3
        )
    assert any("Found no skull in" in warning for warning in again.content["warnings"])


def test_one_scan_given_twice_is_refused(scans, tmp_path):
    with pytest.raises(CaseError, match="Found the same voxels in T1w"):
        prepare_patient(scans | {"T1w": scans["T1gd"]}, tmp_path / "out")


def test_two_missing_scans_are_refused(scans, tmp_path):
    two = {name: scans[name] for name in ("FLAIR", "T2w")}
    with pytest.raises(CaseError, match="Found no T1w and no T1gd among the scans"):
        prepare_patient(two, tmp_path / "out")


def test_a_scan_of_something_else_is_refused(scans, tmp_path):
    blob = sample_mask(grid=make_grid(), part="tumour")
    leg = sitk.DiscreteGaussian(sitk.Cast(blob, sitk.sitkFloat32) * 800, 64.0) + sample_head("T1w") * 0.01
    path = write_nifti(leg, tmp_path / "leg.nii.gz")
    with pytest.raises(CaseError, match=r"T2w does not lie on T1gd|T2w: deepbet finds no brain"):
        prepare_patient(scans | {"T2w": path}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_patients_goes_on_past_a_bad_one(prepared, scans, tmp_path):
    shutil.copytree(scans["T1w"].parent, tmp_path / "in" / "bad")
    (tmp_path / "in/bad/t1.nii.gz").unlink()
    (tmp_path / "in/bad/flair.nii.gz").unlink()
    (tmp_path / "in" / "done").mkdir()
    shutil.copytree(prepared.folder, tmp_path / "out" / "done")
    table = prepare_patients(tmp_path / "in", tmp_path / "out").set_index("patient")
    assert table["status"].to_dict() == {"bad": "failed", "done": "earlier"}
    assert "none that looks like FLAIR" in table.loc["bad", "reason"]
    assert (tmp_path / "out/preparations.csv").exists()


def test_all_that_is_written_is_listed(prepared):
    made = {path.relative_to(prepared.folder).as_posix() for path in prepared.folder.rglob("*") if path.is_file()}
    assert made == set(WRITTEN)


@pytest.mark.parametrize(("spacing_mm", "left"), [(1.0, 5**3), (2.0, 7**3)])
def test_a_rim_of_a_millimetre_is_taken_off_the_brain(spacing_mm, left):
    values = np.zeros((9, 9, 9), np.uint8)
    values[1:8, 1:8, 1:8] = 1
    brain = sitk.GetImageFromArray(values)
    brain.SetSpacing([spacing_mm] * 3)
    assert sitk.GetArrayFromImage(_take_off_rim(brain)).sum() == left
