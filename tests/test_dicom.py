"""Folders of DICOM files: which belong together, and what is refused."""

import locale

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless
from raw_heads import make_grid, make_motion, sample_head, write_dicom, write_nifti

from brats_utils.cases.case import CaseError
from brats_utils.raw.channels import choose_channels, choose_series
from brats_utils.raw.series import Series, list_series, read_series

SMALL = make_grid((6.0, 6.0, 8.0))


@pytest.fixture(scope="module")
def head():
    return sample_head("T1w", grid=SMALL)


def read(folder):
    (series,) = list_series(folder)
    return read_series(series)


def tilt(image):
    """The same head on slices that run obliquely."""
    grid = sitk.Image(image)
    grid.SetDirection(make_motion((20, 0, 10)).GetMatrix())
    return sample_head("T1w", grid=grid)


def test_a_series_is_read_as_it_lies_in_the_scanner(head, tmp_path):
    oblique = tilt(head)
    scan = read(write_dicom(oblique, tmp_path / "Zürich 3T", SeriesDescription="AX T1", EchoTime=9, RepetitionTime=500))
    np.testing.assert_allclose(sitk.GetArrayFromImage(scan.image), sitk.GetArrayFromImage(oblique).astype(np.int16))
    assert scan.image.GetOrigin() == pytest.approx(oblique.GetOrigin(), abs=1e-3)
    assert scan.image.GetDirection() == pytest.approx(oblique.GetDirection(), abs=1e-4)
    assert scan.image.GetSpacing() == pytest.approx(oblique.GetSpacing(), abs=1e-3)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_other_transfer_syntaxes_give_the_same_voxels(head, tmp_path, syntax):
    scan = read(write_dicom(head, tmp_path / "other", syntax=syntax))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan.image), sitk.GetArrayFromImage(head).astype(np.int16))


@pytest.fixture
def language():
    """GDCM's JPEG code sets the locale of the process to C."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield before
    locale.setlocale(locale.LC_CTYPE, before)


def test_jpeg_is_read_and_the_locale_stays(head, tmp_path, language):
    folder = write_dicom(head, tmp_path / "plain")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    (tmp_path / "jpeg").mkdir()
    for path in folder.iterdir():
        writer.SetFileName(str(tmp_path / "jpeg" / path.name))
        writer.Execute(sitk.ReadImage(str(path)))
    locale.setlocale(locale.LC_CTYPE, language)
    first = pydicom.dcmread(next((tmp_path / "jpeg").iterdir()))
    assert "JPEG" in first.file_meta.TransferSyntaxUID.name
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(read(tmp_path / "jpeg").image), sitk.GetArrayFromImage(head).astype(np.int16)
    )
    assert locale.setlocale(locale.LC_CTYPE) == language


def test_names_and_numbers_of_the_patient_are_not_kept(head, tmp_path):
    scan = read(write_dicom(head, tmp_path / "one", SeriesDescription="AX T1"))
    assert dict(scan.series.words) == {"SeriesDescription": "AX T1"}
    assert scan.series.name == "AX T1"


def test_a_missing_slice_is_refused(head, tmp_path):
    with pytest.raises(CaseError, match=r"found 16\.0 mm between slices 10 and 11 of 24, expected 8\.0 mm"):
        read(write_dicom(head, tmp_path / "gap", leave_out=(10,)))


def test_two_slices_at_one_place_are_refused(head, tmp_path):
    folder = write_dicom(head, tmp_path / "twice")
    for path in list(folder.iterdir()):
        file = pydicom.dcmread(path)
        file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        file.save_as(folder / f"copy_{path.name}")
    with pytest.raises(CaseError, match=r"found 50 slices, 25 of them at the place of another"):
        read(folder)


def test_echoes_are_told_apart_by_their_times(head, tmp_path):
    folder = write_dicom(head, tmp_path / "echoes", SeriesDescription="AX PD T2", EchoTime=15, RepetitionTime=3000)
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    late = write_dicom(head, tmp_path / "late", SeriesDescription="AX PD T2", EchoTime=90, RepetitionTime=3000, SeriesInstanceUID=uid)  # fmt: skip
    for path in late.iterdir():
        path.rename(folder / f"late_{path.name}")
    assert choose_series(folder, "T2w").words["EchoTime"] == "90.0"


def test_a_localiser_beside_a_scan_is_passed_over(head, tmp_path):
    folder = write_dicom(head, tmp_path / "mixed", SeriesDescription="AX T1")
    write_dicom(head[:, :, 10:13], tmp_path / "mixed/loc", SeriesDescription="3-plane loc")
    assert choose_series(folder, "T1w").name == "AX T1"


def test_several_scans_that_fit_are_listed_for_a_person(head, tmp_path):
    for number in (1, 2):
        write_dicom(head, tmp_path / f"T1_{number}", SeriesDescription=f"AX T1 {number}")
    with pytest.raises(CaseError, match=r"found 2 scans, 2 of which look like T1w, expected one:\n.*AX T1 1, 25 files"):
        choose_series(tmp_path, "T1w")


def test_four_series_of_a_patient_are_found_by_their_words(head, tmp_path, capsys):
    for name, words in {"1": "AX T1 PRE", "2": "AX T1 POST", "3": "AX T2", "4": "AX FLAIR", "5": "DWI"}.items():
        write_dicom(head, tmp_path / "a" / name, SeriesDescription=words)
    found = choose_channels(tmp_path)
    assert {channel: series.name for channel, series in found.items()} == {
        "FLAIR": "AX FLAIR",
        "T1w": "AX T1 PRE",
        "T1gd": "AX T1 POST",
        "T2w": "AX T2",
    }
    assert "Not used: DWI" in capsys.readouterr().out


def test_a_series_of_another_modality_or_of_text_is_no_scan(head, tmp_path):
    write_dicom(head, tmp_path / "ct", Modality="CT")
    (tmp_path / "ct/notes.txt").write_text("DICM")
    with pytest.raises(CaseError, match=r"found no scan, expected NIfTI files .* or DICOM files of MR images"):
        list_series(tmp_path)


def test_a_single_slice_is_refused(head, tmp_path):
    with pytest.raises(CaseError, match=r"found 33 x 39 x 1 voxels .* Name the whole series"):
        read(write_dicom(head[:, :, 12:13], tmp_path / "one"))


def test_a_file_that_breaks_off_is_refused(head, tmp_path):
    folder = write_dicom(head, tmp_path / "broken", syntax=JPEG2000Lossless)
    path = folder / "097.dcm"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CaseError, match=r"097\.dcm: found a damaged DICOM file"):
        read(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(CaseError, match="found no scan"):
        list_series(tmp_path)


def test_a_4d_file_is_refused(head, tmp_path):
    path = tmp_path / "perfusion.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([head, head]), str(path))
    with pytest.raises(CaseError, match=r"found 4 axes in shape \(33, 39, 25, 2\), expected one scan with 3"):
        read_series(Series(path))


def test_nifti_and_dicom_of_one_scan_are_one(head, tmp_path):
    oblique = tilt(head)
    one = read(write_dicom(oblique, tmp_path / "dicom")).image
    other = read(write_nifti(oblique, tmp_path / "scan.nii.gz")).image
    np.testing.assert_array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))
    assert one.GetOrigin() == pytest.approx(other.GetOrigin(), abs=1e-3)
    assert one.GetDirection() == pytest.approx(other.GetDirection(), abs=1e-4)
