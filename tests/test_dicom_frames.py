"""Enhanced MR: one file that is a whole scan, and stacks of slices that are no straight stack."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid
from raw_heads import make_grid, make_motion, sample_head, write_dicom, write_enhanced

from brats_utils.cases.case import CaseError
from brats_utils.raw.dicom import NOBODY, PatientKey
from brats_utils.raw.dicom_seg import write_dicom_seg
from brats_utils.raw.inputs import doubt_body_parts, read_scans
from brats_utils.raw.series import list_series, read_series


@pytest.fixture(scope="module")
def head():
    """Slices that run obliquely."""
    grid = make_grid((12.0, 14.0, 8.0))
    grid.SetDirection(make_motion((20, 0, 10)).GetMatrix())
    return sample_head("T1w", grid=grid)


def read(folder):
    (series,) = list_series(folder)
    return read_series(series).image


@pytest.mark.parametrize(
    "order", [None, [*range(0, 25, 2), *range(1, 25, 2)], [*range(24, -1, -1)]], ids=["up", "mixed", "down"]
)
def test_an_enhanced_file_is_read_as_a_series_of_its_slices(head, tmp_path, order):
    image = read(write_enhanced(head, tmp_path / "enhanced/IM1.dcm", order=order))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(head).astype(np.int16))
    assert image.GetOrigin() == pytest.approx(head.GetOrigin(), abs=1e-3)
    assert image.GetSpacing() == pytest.approx(head.GetSpacing(), abs=1e-3)
    assert image.GetDirection() == pytest.approx(head.GetDirection(), abs=1e-4)


def test_no_dicom_segmentation_is_made_of_an_enhanced_file(head, tmp_path):
    folder = write_enhanced(head, tmp_path / "enhanced/IM1.dcm")
    with pytest.raises(CaseError, match="found an enhanced file of many frames, expected one file a slice"):
        write_dicom_seg(tmp_path / "out.dcm", regions=np.zeros((3, 25, 4, 4), bool), series=sorted(folder.iterdir()))
    assert not (tmp_path / "out.dcm").exists()


def test_two_enhanced_files_of_a_series_are_two_scans(head, tmp_path):
    uid = generate_uid()
    for name in ("one", "two"):
        write_enhanced(head, tmp_path / f"both/{name}.dcm", SeriesInstanceUID=uid)
    assert [series.words["NumberOfFrames"] for series in list_series(tmp_path)] == ["25", "25"]


def test_an_enhanced_file_that_lacks_a_frame_is_refused(head, tmp_path):
    folder = write_enhanced(head, tmp_path / "gap/IM1.dcm", order=[*range(10), *range(11, 25)])
    with pytest.raises(CaseError, match=r"found 16\.0 mm between slices 10 and 11 of 24, expected 8\.0 mm"):
        read(folder)


def test_an_enhanced_file_whose_frames_are_rescaled_in_several_ways_is_refused(head, tmp_path):
    folder = write_enhanced(head, tmp_path / "scaled/IM1.dcm")
    header = pydicom.dcmread(folder / "IM1.dcm")
    for slope, group in enumerate(header.PerFrameFunctionalGroupsSequence, start=1):
        item = pydicom.Dataset()
        item.RescaleSlope, item.RescaleIntercept = slope, 0
        group.PixelValueTransformationSequence = [item]
    header.save_as(folder / "IM1.dcm")
    with pytest.raises(CaseError, match="found frames rescaled in 25 ways, expected one for all"):
        read(folder)


def test_a_4d_enhanced_file_is_refused(head, tmp_path):
    folder = write_enhanced(head, tmp_path / "perfusion/IM1.dcm", order=[*range(25), *range(25)])
    with pytest.raises(CaseError, match=r"found 50 slices, 25 of them at the place of another"):
        read(folder)


def test_frames_without_a_place_are_refused(head, tmp_path):
    folder = write_enhanced(head, tmp_path / "cine/IM1.dcm")
    file = pydicom.dcmread(folder / "IM1.dcm")
    del file.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence
    file.save_as(folder / "IM1.dcm")
    with pytest.raises(CaseError, match="found 25 frames that do not say where they lie"):
        read(folder)


def test_frames_in_several_directions_are_refused(head, tmp_path):
    folder = write_enhanced(head, tmp_path / "localiser/IM1.dcm")
    file = pydicom.dcmread(folder / "IM1.dcm")
    file.PerFrameFunctionalGroupsSequence[3].PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    file.save_as(folder / "IM1.dcm")
    with pytest.raises(CaseError, match="found 25 frames in several directions, as of a localiser"):
        read(folder)


def test_a_tilted_gantry_is_refused(head, tmp_path):
    folder = write_dicom(head, tmp_path / "tilted")
    for index, path in enumerate(sorted(folder.iterdir())):
        file = pydicom.dcmread(path)
        row = np.array(file.ImageOrientationPatient[:3], dtype=float)
        file.ImagePositionPatient = [round(x, 6) for x in np.array(file.ImagePositionPatient, float) + 2 * index * row]
        file.save_as(path)
    with pytest.raises(CaseError, match=r"found slices shifted sideways by 2\.0 mm each, as with a tilted gantry"):
        read(folder)


def test_a_series_of_three_slices_in_three_directions_is_refused(head, tmp_path):
    folder = write_dicom(head[:, :, 10:13], tmp_path / "localiser")
    for path, direction in zip(
        sorted(folder.iterdir()), ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]), strict=True
    ):
        file = pydicom.dcmread(path)
        file.ImageOrientationPatient = direction
        file.save_as(path)
    found = list_series(folder)
    assert not any(series.is_whole for series in found)
    with pytest.raises(CaseError, match="Is it a localiser, or one slice of a series"):
        read_series(found[0])


def test_patients_are_told_apart_and_not_told(head, tmp_path):
    folders = [write_dicom(head, tmp_path / str(n), PatientID=number, PatientName=name) for n, (number, name) in enumerate((
        ("17", "Doe^Jane"), ("17", "DOE^JANE^^^"), ("18", "Doe^Jane"), ("", ""), ("", "Roe^Jim")
    ))]  # fmt: skip
    jane, same, other, nobody, jim = (list_series(folder)[0] for folder in folders)
    differs = jane.patient.differs_from
    assert [differs(one.patient) for one in (same, other, nobody, jim)] == [False, True, False, True]
    assert nobody.patient == NOBODY
    assert "Doe" not in repr(jane)
    assert isinstance(jane.patient, PatientKey)


def test_scans_of_two_patients_are_refused_without_their_names(head, tmp_path):
    scans = {
        channel: write_dicom(head * factor, tmp_path / channel, SeriesDescription=f"AX {channel}", PatientID=number)
        for channel, factor, number in (("FLAIR", 1, "17"), ("T1w", 2, "17"), ("T2w", 3, "18"))
    }
    with pytest.raises(CaseError, match=r"DICOM headers of two patients in FLAIR \(AX FLAIR\) and T2w") as refusal:
        read_scans(scans)
    assert not any(secret in str(refusal.value) for secret in ("17", "18", "Doe"))


def test_another_body_part_in_the_header_is_warned_of(head, tmp_path):
    folder = write_dicom(head, tmp_path / "knee", SeriesDescription="AX T1", BodyPartExamined="KNEE")
    (series,) = list_series(folder)
    (doubt,) = doubt_body_parts({"T1w": read_series(series)})
    assert doubt.startswith("T1w: the DICOM header calls it a scan of KNEE, expected a head.")
