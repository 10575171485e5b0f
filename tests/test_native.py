"""Labels go back to the raw scans, through the inverse of what brought those to one grid."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from raw_heads import make_grid, make_motion, prepare_quickly, sample_head, sample_mask, write_dicom, write_nifti

from brats_utils.commands.cli import main
from brats_utils.inference import Prediction
from brats_utils.labels import FILE_NAMES, MSD
from brats_utils.raw.grid import array_of
from brats_utils.raw.native import carry_back, predict_raw_patient, write_native
from brats_utils.raw.preparation import prepare_patient
from brats_utils.raw.registration import stay

pytestmark = pytest.mark.slow

NAMES = ("FLAIR", "T1w", "T1gd")  # one may be missing
MOTIONS = dict.fromkeys(NAMES, make_motion((2, 0, 3), (0, 4, 0))) | {"FLAIR": make_motion((8, 0, 5), (10, -8, 12))}
GRIDS = {"FLAIR": make_grid((2.0, 2.0, 5.5)), "T1gd": make_grid((3.0, 3.0, 4.0))}


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        prepare_quickly(patch)
        yield


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """FLAIR as NIfTI, T1gd as DICOM."""
    folder = tmp_path_factory.mktemp("raw")
    heads = {name: sample_head(name, grid=GRIDS.get(name), motion=MOTIONS[name]) for name in NAMES}
    paths = {name: write_nifti(heads[name], folder / f"{FILE_NAMES[name]}.nii.gz") for name in NAMES}
    return paths | {"T1gd": write_dicom(heads["T1gd"], folder / "t1gd", SeriesDescription="AX T1 POST")}


@pytest.fixture(scope="module")
def preparation(scans, tmp_path_factory):
    return prepare_patient(scans, tmp_path_factory.mktemp("prepared") / "out")


@pytest.fixture
def prediction(preparation):
    """The true tumour on the prepared grid, as sure as can be; none of it enhances."""
    tumour = array_of(sample_mask(grid=preparation.brain, motion=MOTIONS["T1gd"], part="tumour")).astype(np.float32)
    regions = torch.from_numpy(np.stack([0 * tumour, tumour, 0 * tumour]))
    volumes = {"TC": 0.0, "WT": float(tumour.sum()) * 8 / 1000, "ET": float("nan")}
    rest = dict(uncertainty=None, labels=regions[1].byte(), brain=regions[1] > 0, expected_dice={}, removed={})
    return Prediction(regions, regions=regions > 0.5, volumes_ml=volumes, **rest)


@pytest.mark.parametrize("channel", ["FLAIR", "T1gd"])
def test_the_tumour_is_where_it_was_in_the_raw_scan(preparation, prediction, channel):
    found = carry_back(prediction.probabilities, preparation, channel)[1].numpy() > 0.5
    truth = array_of(sample_mask(grid=GRIDS[channel], motion=MOTIONS[channel], part="tumour")) > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_native_labels_share_the_header_of_the_raw_scan(preparation, prediction, scans, tmp_path):
    write_native(preparation, prediction, tmp_path, schema=MSD)
    raw, labels = nib.load(scans["FLAIR"]), nib.load(tmp_path / "native/flair.nii.gz")
    assert labels.shape == raw.shape
    assert np.array_equal(labels.affine, raw.affine)
    assert set(np.unique(labels.get_fdata())) == {0, MSD.edema}
    t1gd = sitk.ReadImage(str(tmp_path / "native/t1gd.nii.gz"))
    assert t1gd.GetOrigin() == pytest.approx(preparation.scans["T1gd"].image.GetOrigin(), abs=1e-3)


def test_volumes_are_those_of_the_raw_reference(preparation, prediction, tmp_path):
    content = write_native(preparation, prediction, tmp_path, schema=MSD)
    assert content["volumes_grid"] == "native/t1gd.nii.gz"
    labels = nib.load(tmp_path / "native/t1gd.nii.gz")
    counted = np.count_nonzero(labels.get_fdata()) * np.prod(labels.header.get_zooms()) / 1000
    assert content["volumes_ml"]["WT"] == pytest.approx(counted, abs=0.01)
    assert content["volumes_ml"]["WT"] == pytest.approx(content["volumes_prepared_ml"]["WT"], rel=0.1)
    assert content["volumes_ml"]["ET"] is None


def test_one_command_goes_from_raw_scans_to_labels_on_them(scans, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("brats_utils.raw.preparation.register", lambda fixed, _: stay(fixed))
    monkeypatch.setattr("brats_utils.raw.preparation.check_agreement", lambda *_, **__: ({}, ["FLAIR: look at it."]))
    named = [part for name, path in scans.items() for part in (f"--{FILE_NAMES[name]}", str(path))]
    main(["predict", "--raw", *named, "--out", str(tmp_path / "out"), "--checkpoint", str(checkpoint), "--no-flips"])
    content = json.loads((tmp_path / "out/prediction.json").read_text())
    assert content["volumes_grid"] == "native/t1gd.nii.gz"
    told = " ".join(content["warnings"])
    assert told.count("FLAIR: look at it.") == 1  # of the preparation
    assert told.count("T2w is missing. It shows fluid best") == 1  # of the prediction
    assert len(set(content["warnings"])) == len(content["warnings"])
    assert (tmp_path / "out/prepared/preparation.json").is_file()
    assert (tmp_path / "out/native/segmentation.dcm").is_file()
    assert nib.load(tmp_path / "out/native/flair.nii.gz").shape == nib.load(scans["FLAIR"]).shape
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json")) + "".join(capsys.readouterr())
    assert "Doe" not in written
    assert "SECRET" not in written


def test_an_earlier_prediction_is_refused_before_anything_is_prepared(scans, tmp_path, monkeypatch):
    monkeypatch.setattr("brats_utils.raw.native.prepare_patient", lambda *_, **__: pytest.fail("prepared"))
    (tmp_path / "prediction.json").write_text("{}")
    with pytest.raises(ValueError, match="found an earlier prediction"):
        predict_raw_patient(None, scans, tmp_path)
