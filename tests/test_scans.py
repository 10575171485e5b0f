"""What is wrong with a scan is noticed, and said in words that help."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils.cases.layouts import find_labelled_patients, find_patients
from brats_utils.cases.reader import ScanError, read_scan

SHAPE = (40, 48, 36)


def write_channels(folder, *, affine=None, names=("flair", "t1", "t1gd", "t2"), change=None, dtype=np.float32):
    """Write four brains of noise that resemble no channel in particular; `change` edits {name: volume} first."""
    brain = np.zeros(SHAPE, dtype=bool)
    brain[4:-4, 4:-4, 4:-4] = True
    rng = np.random.default_rng(0)
    volumes = {name: np.where(brain, 100 + 20 * rng.random(SHAPE), 0).astype(dtype) for name in names}
    if change:
        change(volumes)
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{name}.nii.gz")
    return [folder / f"{name}.nii.gz" for name in volumes]


def set_voxel(name, value):
    return lambda volumes: volumes[name].__setitem__((20, 20, 20), value)


def fill_air(volumes):
    for volume in volumes.values():
        volume[volume == 0] = 50


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
    with pytest.raises(ScanError, match=rf"t1gd\.nii\.gz: {message}"):
        read_scan(files)


@pytest.mark.parametrize("value", [0, np.nan], ids=["singular", "not finite"])
def test_a_header_that_gives_voxels_no_place_is_refused(tmp_path, value):
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[0, 0] = value
    files = write_channels(tmp_path)
    scan = nib.Nifti1Image(np.asarray(nib.load(files[1]).dataobj), np.eye(4))
    scan.header.set_sform(affine, code=1)
    nib.save(nib.Nifti1Image(scan.dataobj, None, scan.header), files[1])
    with pytest.raises(ScanError, match=r"t1\.nii\.gz: found a header that gives the voxels no size or direction"):
        read_scan(files)


def test_a_format_that_is_no_nifti_is_refused(tmp_path):
    files = write_channels(tmp_path)
    scan = nib.load(files[1])
    nib.save(nib.MGHImage(np.asarray(scan.dataobj), scan.affine), tmp_path / "t1.mgz")
    with pytest.raises(ScanError, match=r"t1\.mgz: found a MGHImage, expected a NIfTI file\. Convert it"):
        read_scan([files[0], tmp_path / "t1.mgz", *files[2:]])


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, np.float32), (np.inf, np.float32), (1e300, np.float64)])
def test_nan_and_infinity_are_refused(tmp_path, value, dtype):
    with pytest.raises(ScanError, match=r"t1\.nii\.gz: T1w: found NaN or infinite voxels \(in single precision\)"):
        read_scan(write_channels(tmp_path, change=set_voxel("t1", value), dtype=dtype))


def test_a_constant_channel_is_refused(tmp_path):
    files = write_channels(tmp_path, change=lambda volumes: volumes["t2"].fill(7))
    with pytest.raises(ScanError, match=r"T2w holds one value everywhere \(7\)"):
        read_scan(files)


def test_the_same_scan_twice_is_refused(tmp_path):
    files = write_channels(tmp_path)
    with pytest.raises(ScanError, match="same voxels in FLAIR and T2w"):
        read_scan([*files[:3], files[0]])


@pytest.mark.parametrize("count", [0, 2, 3, 5])
def test_missing_and_extra_files_are_refused(tmp_path, count):
    files = write_channels(tmp_path, names=("a", "b", "c", "d", "e"))[:count]
    with pytest.raises(ScanError, match=f"Found {count} files, expected one 4D file or 4"):
        read_scan(files)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_wrong_number_of_channels_in_a_4d_file_is_refused(tmp_path, channels):
    volume = np.random.default_rng(0).random((*SHAPE, channels)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ScanError, match=f"found {channels} channels .*, expected 4"):
        read_scan(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    ("shape", "found"),
    [((16, 16), "2 axes"), ((16, 16, 8, 4, 2), "5 axes"), ((16, 16, 0), r"\d axes in shape \(.*0,?\)")],
    ids=str,  # nibabel reads an empty volume back with one axis, or with three
)
def test_wrong_number_of_axes_is_refused(tmp_path, shape, found):
    nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ScanError, match=rf"scan\.nii\.gz: found {found}.*, expected 3, or 4"):
        read_scan(tmp_path / "scan.nii.gz")


def test_trailing_axes_of_one_are_left_out(tmp_path):
    files = write_channels(tmp_path)
    first = nib.load(files[0])
    nib.save(nib.Nifti1Image(np.asarray(first.dataobj)[..., None, None], first.affine), files[0])
    assert read_scan(files).image.shape == (4, *SHAPE)


def test_colour_pictures_are_refused(tmp_path):
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(ScanError, match=r"expected numbers\. Export it as greyscale"):
        read_scan(tmp_path / "scan.nii.gz")


def test_different_grids_are_refused_and_resampling_is_offered(tmp_path):
    files = write_channels(tmp_path)
    other = nib.load(files[3])
    shifted = other.affine.copy()
    shifted[0, 3] = 3  # one voxel to the side
    nib.save(nib.Nifti1Image(np.asarray(other.dataobj), shifted), files[3])
    with pytest.raises(ScanError, match=r"t2\.nii\.gz: found a grid .*`predict --resample`"):
        read_scan(files)
    image = read_scan(files, resample=True).image
    assert image.shape == (4, *SHAPE)
    expected = torch.from_numpy(np.asarray(other.dataobj)[9:29, 10:30, 10:30])
    torch.testing.assert_close(image.as_tensor()[3, 10:30, 10:30, 10:30], expected, atol=1e-3, rtol=0)


def test_scans_whose_headers_differ_by_rounding_lie_on_one_grid(tmp_path):
    files = write_channels(tmp_path)
    other = nib.load(files[3])
    nib.save(nib.Nifti1Image(np.asarray(other.dataobj), other.affine + 0.002), files[3])
    assert read_scan(files).image.shape == (4, *SHAPE)


def test_scans_that_do_not_overlap_are_refused(tmp_path):
    files = write_channels(tmp_path)
    for path in files[2:]:
        elsewhere = nib.load(path)
        affine = elsewhere.affine.copy()
        affine[0, 3] = 1000  # a metre to the side
        nib.save(nib.Nifti1Image(np.asarray(elsewhere.dataobj), affine), path)
    with pytest.raises(ScanError, match=r"t1gd\.nii\.gz: found nothing but zeros .* expected scans that overlap"):
        read_scan(files, resample=True)


def warnings_of(files):
    return " ".join(read_scan(files).warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"change": set_voxel("t1", -5)}, r"negative values \(T1w 1 voxels\)"),
        ({"affine": np.diag([1, 1, 5.0, 1])}, "voxels of 1 x 1 x 5 mm"),
        ({"affine": np.diag([3.5, 3.5, 3.5, 1]), "change": fill_air}, "Is the skull still there"),
        ({"affine": np.diag([1.0, 1, 1, 1])}, "voxel size in the header is wrong"),
        ({"change": lambda v: v["flair"].__setitem__(slice(0, 12), 0)}, "FLAIR: 25% of the brain are 0"),
        ({"change": lambda v: np.minimum(v["t2"], 110, out=v["t2"])}, "T2w: .*have the highest value, 110"),
    ],
    ids=["negative", "thick slices", "skull", "small", "field of view", "saturated"],
)
def test_odd_scans_are_used_with_a_warning(tmp_path, settings, message):
    assert re.search(message, warnings_of(write_channels(tmp_path, **settings)))


def test_a_channel_of_negative_values_is_not_taken_for_saturated(tmp_path):
    text = warnings_of(write_channels(tmp_path, change=lambda volumes: np.negative(volumes["t2"], out=volumes["t2"])))
    assert "negative values (T2w" in text
    assert "highest value" not in text


def test_a_header_without_orientation_is_warned_of(tmp_path):
    files = write_channels(tmp_path)
    image = nib.load(files[0])
    image = nib.Nifti1Image(np.asarray(image.dataobj), None)
    nib.save(image, files[0])
    with pytest.raises(ScanError, match="another position"):
        read_scan(files)
    assert "gives no orientation" in " ".join(read_scan([files[0], *files[1:]], resample=True).warnings)


@pytest.fixture(scope="module")
def enhancing(phantom_dir):
    """Channels of a phantom with enhancing tumour, as a (4, X, Y, Z) array with its affine."""
    for label in sorted((phantom_dir / "labelsTr").iterdir()):
        if (np.asanyarray(nib.load(label).dataobj) == 3).sum() > 50:
            scan = nib.load(phantom_dir / "imagesTr" / label.name)
            return np.moveaxis(scan.get_fdata(dtype=np.float32), -1, 0), scan.affine
    raise AssertionError("no phantom has enhancing tumour")


@pytest.mark.parametrize("swapped", [None, (0, 1), (0, 3), (1, 2), (1, 3), (2, 3)], ids=str)
def test_swapped_channels_are_warned_of(tmp_path, enhancing, swapped):
    channels, affine = enhancing
    order = list(range(4))
    if swapped:
        first, second = swapped
        order[first], order[second] = second, first
    nib.save(nib.Nifti1Image(np.moveaxis(channels[order], 0, -1), affine), tmp_path / "scan.nii.gz")
    warnings = read_scan(tmp_path / "scan.nii.gz").warnings
    assert len(warnings) == bool(swapped), warnings
    assert all("swapped" in text or "order of the channels" in text for text in warnings)


def test_patients_are_found_by_the_names_of_their_files(tmp_path):
    write_channels(tmp_path / "a")
    write_channels(tmp_path / "b", names=("B_0-t2f", "B_0-t1n", "B_0-t1c", "B_0-t2w"))
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 4)), np.eye(4)), tmp_path / "c.nii.gz")
    (tmp_path / "d").mkdir()
    patients = find_patients(tmp_path)
    assert list(patients) == ["a", "b", "c", "d"]
    assert [path.name for path in patients["b"]] == [f"B_0-{n}.nii.gz" for n in ("t2f", "t1n", "t1c", "t2w")]
    assert patients["c"] == tmp_path / "c.nii.gz"
    assert list(find_patients(tmp_path / "a")) == ["a"]


@pytest.mark.parametrize("names", [("A", "A.nii.gz"), ("B.nii", "B.nii.gz")], ids=str)
def test_two_patients_of_one_name_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    with pytest.raises(ScanError, match=f"{names[0]} and .*{names[1]}: found two patients of the name {names[0][0]}"):
        find_patients(tmp_path)


def test_a_missing_channel_is_named_when_the_patient_is_read(tmp_path):
    write_channels(tmp_path / "a", names=("flair", "t1", "t2"))
    with pytest.raises(ScanError, match=r"t1gd\.nii\.gz: not found"):
        read_scan(find_patients(tmp_path)["a"])


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(ScanError, match="found no patient, expected sub-folders"):
        find_patients(tmp_path)
    with pytest.raises(ScanError, match="not found, or no folder"):
        find_patients(tmp_path / "no")


def test_labelled_patients_are_those_with_a_seg_file(tmp_path):
    write_channels(tmp_path / "a", names=("flair", "t1", "t1gd", "t2", "seg_consensus"))
    write_channels(tmp_path / "b")
    (found,) = find_labelled_patients(tmp_path)
    assert (found.case_id, found.label.name) == ("a", "seg_consensus.nii.gz")
    with pytest.raises(ScanError, match="found no labelled patient"):
        find_labelled_patients(tmp_path / "b")


def write_4d_patient(folder, *labels):
    folder.mkdir()
    for name in ("scan_4d", *labels):
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 4)), np.eye(4)), folder / f"{name}.nii.gz")
    return folder


def test_a_label_beside_a_4d_file_is_no_second_scan(tmp_path):
    patient = write_4d_patient(tmp_path / "a", "seg")
    assert find_patients(tmp_path) == {"a": patient / "scan_4d.nii.gz"}
    assert find_patients(patient) == {"scan_4d": patient / "scan_4d.nii.gz"}
    for folder in (tmp_path, patient):
        (found,) = find_labelled_patients(folder)
        assert (found.image, found.label) == (patient / "scan_4d.nii.gz", patient / "seg.nii.gz")


@pytest.mark.parametrize("name", ["segmentation", "tumor_segmentation", "A-Seg2"])
def test_any_word_that_starts_with_seg_tells_a_label(tmp_path, name):
    patient = write_4d_patient(tmp_path / "a", name)
    (found,) = find_labelled_patients(tmp_path)
    assert (found.image, found.label) == (patient / "scan_4d.nii.gz", patient / f"{name}.nii.gz")


def test_folders_without_a_nifti_are_no_labelled_patients(tmp_path):
    write_4d_patient(tmp_path / "a", "seg")
    (tmp_path / "notes").mkdir()
    assert [patient.case_id for patient in find_labelled_patients(tmp_path)] == ["a"]


def test_patients_whose_label_is_unclear_are_named(tmp_path):
    write_4d_patient(tmp_path / "a", "seg")
    write_4d_patient(tmp_path / "b", "seg_1", "seg_2")
    (write_4d_patient(tmp_path / "c", "c-seg") / "scan_4d.nii.gz").unlink()
    with pytest.raises(ScanError, match=r"b has 2 labels \(seg_1.nii.gz, seg_2.nii.gz\); c has a label and no scan"):
        find_labelled_patients(tmp_path)


def test_what_macos_leaves_beside_files_is_no_scan(tmp_path):
    for path in write_channels(tmp_path / "a", names=("flair", "t1", "t1gd", "t2", "seg")):
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    write_4d_patient(tmp_path / "b").joinpath("._scan_4d.nii.gz").write_bytes(b"Mac OS X")
    assert [path.name for path in find_patients(tmp_path)["a"]] == [
        f"{n}.nii.gz" for n in ("flair", "t1", "t1gd", "t2")
    ]
    assert find_patients(tmp_path)["b"] == tmp_path / "b/scan_4d.nii.gz"
    assert [patient.label.name for patient in find_labelled_patients(tmp_path)] == ["seg.nii.gz"]


def test_real_scans_are_read_without_a_false_alarm_about_their_channels(real_dir):
    patients = find_labelled_patients(real_dir / "tcga")
    scans = [patient.image for patient in patients] + [real_dir / "msd/Task01_BrainTumour/imagesTr/BRATS_009.nii.gz"]
    for files in scans:
        assert not [text for text in read_scan(files).warnings if "swapped" in text or "order" in text]
