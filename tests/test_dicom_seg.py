"""The DICOM segmentation: on the source's slices, with codes of the standard, and the patient's name in it alone."""

import shutil
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, JPEGLosslessSV1, RLELossless

from brats_utils.cases.case import CaseError
from brats_utils.phantom.series import write_series
from brats_utils.raw.dicom_seg import NOTE, write_dicom_seg

Z, Y, X = SHAPE = (6, 12, 10)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """Oblique slices in files whose names are not in the order of the slices."""
    values = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.9, 0.9, 5.5))
    image.SetOrigin((-80, -70, 12))
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.1, 0.05)
    image.SetDirection(turn.GetMatrix())
    files = sorted(write_series(image, tmp_path / "t1 größe", channel="T1gd", seed=3).iterdir())
    return [file.rename(file.with_name(f"{(7 * i) % Z} slice.dcm")) for i, file in enumerate(files)]


@pytest.fixture
def regions() -> np.ndarray:
    """TC, WT, ET: boxes one in another, in slices 1 to 4."""
    found = np.zeros((3, *SHAPE), bool)
    found[1, 1:5, 2:9, 1:8] = True
    found[0, 2:4, 3:8, 2:7] = True
    found[2, 2, 4:6, 3:5] = True
    return found


def write(tmp_path, regions, series):
    return highdicom.seg.segread(write_dicom_seg(tmp_path / "out/seg.dcm", regions=regions, series=series))


def frames_of(seg, series, number):
    """What the reader of highdicom finds of a segment on each source file, 0 where there is no frame."""
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in series]
    found = seg.get_pixels_by_source_instance(uids, segment_numbers=[number], assert_missing_frames_are_empty=True)
    return found[..., 0].astype(bool)


def test_each_segment_lies_on_its_source_instances(tmp_path, regions, series) -> None:
    seg = write(tmp_path, regions, series)
    core, whole, enhancing = regions
    for number, expected in ((1, enhancing), (2, core & ~enhancing), (3, whole & ~core)):
        np.testing.assert_array_equal(frames_of(seg, series, number), expected)


def test_the_planes_are_those_of_the_source(tmp_path, regions, series) -> None:
    seg = write(tmp_path, regions, series)
    sources = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, series)}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        uid = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_allclose(
            frame.PlanePositionSequence[0].ImagePositionPatient, sources[uid].ImagePositionPatient, atol=1e-6
        )


def test_segments_have_the_codes_of_the_standard(tmp_path, regions, series) -> None:
    segments = write(tmp_path, regions, series).SegmentSequence
    codes = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [(code.CodingSchemeDesignator, code.CodeValue) for code in codes] == [
        ("NCIt", "C113842"),
        ("NCIt", "C81175"),
        ("SCT", "79654002"),
    ]
    assert {segment.SegmentAlgorithmType for segment in segments} == {"AUTOMATIC"}
    assert all(segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion for segment in segments)


def test_says_that_it_is_not_for_clinical_use(tmp_path, regions, series) -> None:
    seg = write(tmp_path, regions, series)
    assert seg.ContentDescription == NOTE
    assert NOTE in seg.SeriesDescription
    assert all(NOTE in segment.SegmentDescription for segment in seg.SegmentSequence)


def test_the_patient_is_copied_into_the_file_and_named_nowhere_else(tmp_path, regions, series, capfd) -> None:
    seg = write(tmp_path, regions, series)
    source = pydicom.dcmread(series[0])
    for word in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert getattr(seg, word) == getattr(source, word)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seg.dcm"]
    assert "Phantom^" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, RLELossless, JPEGLosslessSV1], ids=lambda uid: uid.name)
def test_any_transfer_syntax_of_the_source_will_do(tmp_path, regions, series, syntax) -> None:
    for file in series:
        source = pydicom.dcmread(file)
        source.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            source.PixelData = source.PixelData[::-1]
            pydicom.dcmwrite(file, source, implicit_vr=False, little_endian=False)
        else:
            source.PixelData = encapsulate([b"not to be decoded"])
            source["PixelData"].VR = "OB"
            source.save_as(file)
    np.testing.assert_array_equal(frames_of(write(tmp_path, regions, series), series, 1), regions[2])


def test_a_file_a_slice_may_say_that_it_has_one_frame(tmp_path, regions, series) -> None:
    for file in series:
        header = pydicom.dcmread(file)
        header.NumberOfFrames = 1
        header.save_as(file)
    assert write(tmp_path, regions, series).number_of_segments == 3


def test_nothing_found_is_written_too(tmp_path, regions, series) -> None:
    seg = write(tmp_path, np.zeros_like(regions), series)
    assert seg.number_of_segments == 3
    assert not seg.pixel_array.any()


def test_regions_of_another_shape_are_refused(tmp_path, regions, series) -> None:
    with pytest.raises(CaseError, match=r"found regions of shape \(3, 6, 12, 10\), expected \(3, 5, 12, 10\)"):
        write_dicom_seg(tmp_path / "seg.dcm", regions=regions, series=series[:-1])
    assert not list(tmp_path.glob("*seg.dcm"))


def test_files_without_a_place_are_refused_and_nothing_is_written(tmp_path, regions, series) -> None:
    source = pydicom.dcmread(series[2])
    del source.ImagePositionPatient
    source.save_as(series[2])
    with pytest.raises(CaseError, match="Export the series again"):
        write_dicom_seg(tmp_path / "seg.dcm", regions=regions, series=series)
    assert not list(tmp_path.glob("*seg.dcm"))


@pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="dciodvfy, of the Debian package dicom3tools, is not installed"
)
def test_a_validator_finds_no_fault(tmp_path, regions, series) -> None:
    path = write_dicom_seg(tmp_path / "seg.dcm", regions=regions, series=series)
    for file, kind in ((path, "Segmentation"), (series[0], "MRImage")):
        found = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=True)
        assert (found.stdout + found.stderr).split() == [kind]
