"""The first bytes of a file decide what it is; MetaImage and NRRD are read where NIfTI is, and lie where they say."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scans import FOUR, LABELS, LPS, SHAPE, read_files, write_channels

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.formats import open_image
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.nifti import gives_position, save_volume
from brats_utils.cases.reader import read_case
from brats_utils.labels import BRATS_2023, MSD

OBLIQUE = np.array([[0.0, -2, 0, 30], [-1.5, 0, 0, 50], [0, 0, 3, -20], [0, 0, 0, 1]])

IMPOSTORS = {
    "a pointer of Git LFS, .* Run `git lfs pull`": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n",
    "a web page, .* Log in and download it again": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "a web page": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "a zip archive, .* Unpack it": b"PK\x03\x04" + bytes(30),
    "a DICOM file, .* dcm2niix": bytes(128) + b"DICM" + bytes(30),
    "an archive, .* Unpack it": bytes(257) + b"ustar\x0000" + bytes(240),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(30),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(30),
    "an empty file, .* Copy or download it again": b"",
}  # fmt: skip


def write_with_itk(path, values, affine):
    """Write (X, Y, Z) values so that ITK's left, posterior, superior says what a NIfTI's affine would."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    to_lps = np.diag([-1.0, -1, 1]) @ affine[:3]
    spacing = np.linalg.norm(to_lps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(to_lps[:, 3].tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(("found", "content"), IMPOSTORS.items(), ids=str)
def test_a_file_that_is_something_else_is_called_what_it_is(found, content, tmp_path):
    for name in ("t1.nii.gz", "t1.nii", "t1.mha"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaseError, match=rf"{name}: found {found}"):
            open_image(tmp_path / name)


def test_what_was_packed_once_more_is_seen_through(tmp_path):
    (tmp_path / "t1.nii.gz").write_bytes(gzip.compress(b"<html>Not found</html>"))
    with pytest.raises(CaseError, match="found a web page"):
        open_image(tmp_path / "t1.nii.gz")


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.NII.GZ"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_is_read_packed_or_not_whatever_its_name(name, packed, kind, tmp_path):
    content = kind(LABELS, OBLIQUE).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    image = open_image(tmp_path / name)
    assert np.array_equal(np.asanyarray(image.dataobj), LABELS)
    assert np.array_equal(image.affine, OBLIQUE)


def test_a_patient_whose_files_are_called_gz_and_are_not_is_read(tmp_path):
    expected = read_files(*write_channels(tmp_path)).image
    for path in tmp_path.iterdir():
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert torch.equal(
        read_files(*(tmp_path / f"{name}.nii.gz" for name in ("flair", "t1", "t1gd", "t2"))).image, expected
    )


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("affine", [LPS, OBLIQUE, np.diag([1.0, 2, 3, 1])], ids=["LPS", "turned", "RAS"])
def test_metaimage_and_nrrd_lie_where_a_nifti_file_would(ending, affine, tmp_path):
    image = open_image(write_with_itk(tmp_path / f"scan.{ending}", LABELS, affine))
    assert np.array_equal(np.asanyarray(image.dataobj), LABELS)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_allclose(image.header.get_qform(), affine, atol=1e-5)
    assert gives_position(image)


def test_channels_of_a_vector_image_come_last(tmp_path):
    values = np.random.default_rng(0).random((5, 6, 7, 4)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(values.transpose(2, 1, 0, 3), isVector=True), str(tmp_path / "scan.nrrd"))
    assert np.array_equal(np.asanyarray(open_image(tmp_path / "scan.nrrd").dataobj), values)


def test_a_nrrd_that_says_nothing_of_where_it_lies_has_no_position(tmp_path):
    header = "NRRD0004\ntype: unsigned char\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n"
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + bytes(range(8)))
    assert not gives_position(open_image(tmp_path / "scan.nrrd"))


def test_a_header_whose_voxels_are_elsewhere_is_damaged(tmp_path):
    write_with_itk(tmp_path / "scan.mhd", LABELS, LPS)
    (tmp_path / "scan.raw").unlink()
    with pytest.raises(
        CaseError, match=r"scan\.mhd: cannot be read \(ITK: File cannot be read.* copy or download it again"
    ):
        open_image(tmp_path / "scan.mhd")


@pytest.fixture
def both(tmp_path):
    """One patient as NIfTI and as MetaImage, with a label, in folders as BraTS 2015 has them."""
    write_channels(tmp_path / "nifti/P", affine=LPS, names=FOUR)
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 10:20, 10:20] = 3
    nib.save(nib.Nifti1Image(label, LPS), tmp_path / "nifti/P/seg.nii.gz")
    for number, name in enumerate((*FOUR, "seg")):
        source = np.asarray(nib.load(tmp_path / f"nifti/P/{name}.nii.gz").dataobj)
        title = f"VSD.Brain.XX.O.MR_{name}.{number}" if name != "seg" else "VSD.Brain_3more.XX.O.OT.9"
        write_with_itk(tmp_path / "mha/P" / title / f"{title}.mha", source, LPS)
    return [find_cases(tmp_path / name, schema=BRATS_2023)[0] for name in ("nifti", "mha")]


def test_a_patient_of_metaimages_is_the_same_as_one_of_nifti_files(both):
    one, other = map(read_case, both)
    assert torch.equal(one.image.as_tensor(), other.image.as_tensor())
    assert torch.equal(one.regions, other.regions)
    np.testing.assert_allclose(one.image.affine, other.image.affine, atol=1e-4)
    assert one.warnings == other.warnings


def test_what_is_predicted_of_metaimages_is_nifti_that_lies_where_they_do(both, tmp_path):
    scan = read_case(both[1])
    written = nib.load(save_volume(scan.label, tmp_path / "out.nii.gz", like=scan.reference))
    np.testing.assert_allclose(written.affine, LPS, atol=1e-5)
    assert np.array_equal(np.asanyarray(written.dataobj), scan.label)
    again = read_case(Case("P", both[1].images, tmp_path / "out.nii.gz", MSD))
    assert torch.equal(again.label, scan.label)


def test_a_nifti_label_lies_on_scans_of_metaimages_and_the_other_way_round(both):
    for images, label in ((both[0].images, both[1].label), (both[1].images, both[0].label)):
        scan = read_case(Case("P", images, label, BRATS_2023))
        assert torch.equal(scan.label, read_case(both[0]).label)
        assert not any("label" in warning for warning in scan.warnings)
