"""The scans of a case become one image on one grid, or the file that does not fit is named."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from scans import SHAPE, read_files, set_voxel, turn, write_channels

from brats_utils.cases.case import CaseError


def change_header(path, offset, number):
    """Overwrite two bytes of the header: 42 on is the shape, 70 the type of the voxels."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + 2] = number.to_bytes(2, "little")
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "not found"),
        (lambda path: path.write_bytes(b"no NIfTI"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000] + b"\xff" * 3000), "cannot be read"),
        (lambda path: change_header(path, 70, 999), "cannot be read"),
        (lambda path: [change_header(path, 42 + 2 * axis, 32767) for axis in range(3)], "cannot be read"),
    ],
    ids=["missing", "foreign", "truncated gzip", "damaged gzip", "unknown type of voxel", "larger than memory"],
)
def test_unreadable_file_is_named(tmp_path, damage, message):
    files = write_channels(tmp_path)
    damage(files[2])
    with pytest.raises(CaseError, match=rf"t1gd\.nii\.gz: {message}"):
        read_files(*files)


@pytest.mark.parametrize("value", [0, np.nan], ids=["singular", "not finite"])
def test_a_header_that_gives_voxels_no_place_is_refused(tmp_path, value):
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[0, 0] = value
    files = write_channels(tmp_path)
    scan = nib.Nifti1Image(np.asarray(nib.load(files[1]).dataobj), np.eye(4))
    scan.header.set_sform(affine, code=1)
    nib.save(nib.Nifti1Image(scan.dataobj, None, scan.header), files[1])
    with pytest.raises(CaseError, match=r"t1\.nii\.gz: found a header that gives the voxels no size or direction"):
        read_files(*files)


def test_a_format_that_is_no_nifti_is_refused(tmp_path):
    files = write_channels(tmp_path)
    scan = nib.load(files[1])
    nib.save(nib.MGHImage(np.asarray(scan.dataobj), scan.affine), tmp_path / "t1.mgz")
    with pytest.raises(CaseError, match=r"t1\.mgz: found a MGHImage, expected a NIfTI file\. Convert it"):
        read_files(files[0], tmp_path / "t1.mgz", *files[2:])


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (np.inf, np.float32), (1e300, np.float64)])
def test_nan_and_infinity_are_refused(tmp_path, value, dtype):
    with pytest.raises(CaseError, match=r"t1\.nii\.gz: T1w: found NaN or infinite voxels \(in single precision\)"):
        read_files(*write_channels(tmp_path, change=set_voxel("t1", value), dtype=dtype))


def test_a_constant_channel_is_refused(tmp_path):
    files = write_channels(tmp_path, change=lambda volumes: volumes["t2"].fill(7))
    with pytest.raises(CaseError, match=r"T2w holds one value everywhere \(7\)"):
        read_files(*files)


def test_the_same_scan_twice_is_refused(tmp_path):
    files = write_channels(tmp_path)
    with pytest.raises(CaseError, match="same voxels in FLAIR and T2w"):
        read_files(*files[:3], files[0])


@pytest.mark.parametrize("count", [0, 2, 3, 5])
def test_missing_and_extra_files_are_refused(tmp_path, count):
    files = write_channels(tmp_path, names=("a", "b", "c", "d", "e"))[:count]
    with pytest.raises(CaseError, match=rf"^one: found {count} files.*, expected one 4D file or 4: FLAIR, T1w"):
        read_files(*files)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_wrong_number_of_channels_in_a_4d_file_is_refused(tmp_path, channels):
    volume = np.random.default_rng(0).random((*SHAPE, channels)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(CaseError, match=f"found {channels} channels .*, expected 4"):
        read_files(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("shape", "found"),
    [((16, 16), "2 axes"), ((16, 16, 8, 4, 2), "5 axes"), ((16, 16, 0), r"\d axes in shape \(.*0,?\)")],
    ids=str,  # nibabel reads an empty volume back with one axis, or with three
)
def test_wrong_number_of_axes_is_refused(tmp_path, shape, found):
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(CaseError, match=rf"scan\.nii\.gz: found {found}.*, expected 3, or 4"):
        read_files(tmp_path / "scan.nii.gz")


def test_trailing_axes_of_one_are_left_out(tmp_path):
    files = write_channels(tmp_path)
    first = nib.load(files[0])
    nib.save(nib.Nifti1Image(np.asarray(first.dataobj)[..., None, None], first.affine), files[0])
    assert read_files(*files).image.shape == (4, *SHAPE)


def test_colour_pictures_are_refused(tmp_path):
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(CaseError, match=r"expected numbers\. Export it as greyscale"):
        read_files(tmp_path / "scan.nii.gz")


def test_different_grids_are_refused_and_resampling_is_offered(tmp_path):
    files = write_channels(tmp_path)
    other = nib.load(files[3])
    shifted = other.affine.copy()
    shifted[0, 3] = 3  # one voxel to the side
    nib.save(nib.Nifti1Image(np.asarray(other.dataobj), shifted), files[3])
    with pytest.raises(CaseError, match=r"t2\.nii\.gz: found a grid .*`predict --resample`"):
        read_files(*files)
    image = read_files(*files, resample=True).image
    assert image.shape == (4, *SHAPE)
    expected = torch.from_numpy(np.asarray(other.dataobj)[9:29, 10:30, 10:30])
    torch.testing.assert_close(image.as_tensor()[3, 10:30, 10:30, 10:30], expected, atol=1e-3, rtol=0)


def test_scans_whose_headers_differ_by_rounding_lie_on_one_grid(tmp_path):
    files = write_channels(tmp_path)
    other = nib.load(files[3])
    nib.save(nib.Nifti1Image(np.asarray(other.dataobj), other.affine + 0.002), files[3])
    assert read_files(*files).image.shape == (4, *SHAPE)


def test_scans_that_do_not_overlap_are_refused(tmp_path):
    files = write_channels(tmp_path)
    for path in files[2:]:
        elsewhere = nib.load(path)
        affine = elsewhere.affine.copy()
        affine[0, 3] = 1000  # a metre to the side
        nib.save(nib.Nifti1Image(np.asarray(elsewhere.dataobj), affine), path)
    with pytest.raises(CaseError, match=r"t1gd\.nii\.gz: found nothing but zeros .* expected scans that overlap"):
        read_files(*files, resample=True)


def test_a_channel_with_other_axes_is_reoriented_to_the_first(tmp_path):
    files = write_channels(tmp_path)
    expected = read_files(*files).image
    nib.save(turn(nib.load(files[1]), "LPS"), files[1])
    assert torch.equal(read_files(*files).image, expected)


@pytest.mark.parametrize("index", [0, 1], ids=["first", "another"])
def test_when_resampling_a_channel_without_a_position_is_taken_voxel_by_voxel(tmp_path, index):
    files = write_channels(tmp_path)
    expected = read_files(*files).image.as_tensor()
    nib.save(nib.Nifti1Image(np.asarray(nib.load(files[index]).dataobj), None), files[index])
    assert torch.equal(read_files(*files, resample=True).image.as_tensor(), expected)
