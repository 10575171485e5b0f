"""The raw phantom: heads with skull on grids of their own, whose truth is known."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from brats_utils.labels import CHANNELS
from brats_utils.phantom.raw import RawPatient, apply, generate_raw_patient

pytestmark = pytest.mark.slow

DETAIL_MM = 3.0  # coarse for testing efficiency


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> RawPatient:
    return generate_raw_patient(tmp_path_factory.mktemp("raw"), seed=1, detail_mm=DETAIL_MM)


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> RawPatient:
    return generate_raw_patient(tmp_path_factory.mktemp("dicom"), seed=1, dicom=True, detail_mm=DETAIL_MM)


def read(path):
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)) if path.is_dir() else str(path)
    return sitk.ReadImage(names, sitk.sitkFloat32)


def on_grid_of(image, mask, matrix):
    """A mask of T1gd's space where it lies in another scan."""
    back = np.linalg.inv(matrix)
    transform = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
    return sitk.GetArrayFromImage(sitk.Resample(mask, image, transform, sitk.sitkNearestNeighbor)) > 0


def test_every_scan_has_a_grid_of_its_own(patient: RawPatient) -> None:
    affines = [nib.load(path).affine for path in patient.scans.values()]
    assert all(not np.allclose(a, b) for i, a in enumerate(affines) for b in affines[:i])
    assert {nib.load(path).header.get_zooms()[2] for path in patient.scans.values()} == {5.5}


def test_the_patient_moves_by_at_most_what_was_asked(patient: RawPatient) -> None:
    brain = sitk.ReadImage(str(patient.brain))
    middle = np.array(brain.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in brain.GetSize()]))
    for name, matrix in patient.transforms.items():
        degrees = np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
        shift = np.linalg.norm(apply(matrix, middle) - middle)
        assert (degrees, shift) == (0, 0) if name == "T1gd" else (4 < degrees <= 15 and 3 < shift < 24)


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_truth_lies_on_the_brain_in_every_scan(patient: RawPatient, channel: str) -> None:
    image = read(patient.scans[channel])
    brain = on_grid_of(image, sitk.ReadImage(str(patient.brain)), patient.transforms[channel])
    values = sitk.GetArrayFromImage(image)
    rim = sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(brain.astype("uint8")), (8, 8, 0))) > brain
    assert values[brain].mean() > 1.3 * np.median(values[rim]), "dark bone surrounds it"


def test_flair_or_t2w_lacks_a_part_of_the_brain_and_the_others_do_not(patient: RawPatient) -> None:
    truth = sitk.ReadImage(str(patient.brain))
    shares = {}
    for name, path in patient.scans.items():
        image = read(path)
        seen = on_grid_of(image, truth, patient.transforms[name]).sum() * np.prod(image.GetSpacing())
        shares[name] = seen / sitk.GetArrayFromImage(truth).sum()
    assert min(shares, key=shares.__getitem__) in ("FLAIR", "T2w")
    assert sorted(share > 0.97 for share in shares.values()) == [False, True, True, True], shares


def test_the_labels_hold_all_tissues_and_lie_in_the_brain(patient: RawPatient) -> None:
    label, brain = (np.asarray(nib.load(path).dataobj) for path in (patient.label, patient.brain))
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert not (label[brain == 0] > 0).any()
    assert 1000 < brain.sum() / 1000 < 2000, "mL"


def test_the_background_holds_noise_as_a_scanner_leaves_it(patient: RawPatient) -> None:
    corner = sitk.GetArrayFromImage(read(patient.scans["T1w"]))[:, :10, :10]
    assert corner.std() > 0
    assert corner.mean() / corner.std() == pytest.approx(1.91, rel=0.1), "Rayleigh: sqrt(pi / (4 - pi))"


def test_the_same_seed_is_the_same_patient(patient: RawPatient, dicom: RawPatient) -> None:
    for name in CHANNELS:
        np.testing.assert_array_equal(patient.transforms[name], dicom.transforms[name])
        one, other = read(patient.scans[name]), read(dicom.scans[name])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
        np.testing.assert_allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(one.GetDirection(), other.GetDirection(), atol=1e-5)


def test_dicom_says_how_the_series_was_taken_and_invents_the_patient(dicom: RawPatient) -> None:
    headers = {name: pydicom.dcmread(next(path.glob("*.dcm"))) for name, path in dicom.scans.items()}
    assert {str(header.PatientName) for header in headers.values()} == {"Phantom^Seed 1"}
    assert len({header.FrameOfReferenceUID for header in headers.values()}) == 1
    assert len({header.SeriesInstanceUID for header in headers.values()}) == 4
    assert [name for name, header in headers.items() if "ContrastBolusAgent" in header] == ["T1gd"]
    assert headers["FLAIR"].InversionTime > 1500


def test_an_earlier_patient_is_replaced_and_other_files_are_left_alone(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for seed in (0, 2):
        found = generate_raw_patient(tmp_path, seed=seed, slice_mm=8, detail_mm=4)
    assert 3 not in np.unique(nib.load(found.label).dataobj), "seed 2 has no enhancing tumour"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["flair.nii.gz", "notes.txt", "t1.nii.gz", "t1gd.nii.gz", "t2.nii.gz", "truth"]
    )
