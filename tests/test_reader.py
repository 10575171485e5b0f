"""What is wrong with a scan is noticed, and said in words that help."""

import gzip
import json
import os
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils.cases import reader
from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import check_cases, read_case
from brats_utils.labels import BRATS_2021, MSD, LabelError, labels_to_regions
from brats_utils.phantom.dataset import generate_case

SHAPE = (40, 48, 36)
LPS = np.array([[-1.0, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1, -72], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).integers(0, 4, (12, 14, 10)).astype(np.uint8)
TRUTH = labels_to_regions(torch.from_numpy(LABELS), MSD)


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


def read_files(*files, **how):
    return read_case(Case("one", files), **how)


def set_voxel(name, value):
    return lambda volumes: volumes[name].__setitem__((20, 20, 20), value)


def fill_air(volumes):
    for volume in volumes.values():
        volume[volume == 0] = np.random.default_rng(1).uniform(40, 60, np.count_nonzero(volume == 0))


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


def test_a_channel_whose_axes_run_otherwise_is_turned_onto_the_first(tmp_path):
    files = write_channels(tmp_path)
    expected = read_files(*files).image
    nib.save(turn(nib.load(files[1]), "LPS"), files[1])
    assert torch.equal(read_files(*files).image, expected)


@pytest.mark.parametrize("index", [0, 1], ids=["first", "another"])
def test_when_resampling_a_channel_without_a_position_is_taken_as_it_lies(tmp_path, index):
    files = write_channels(tmp_path)
    expected = read_files(*files).image.as_tensor()
    nib.save(nib.Nifti1Image(np.asarray(nib.load(files[index]).dataobj), None), files[index])
    assert torch.equal(read_files(*files, resample=True).image.as_tensor(), expected)


def score(volume):
    """Z-score of the whole volume, air included."""
    volume -= volume.mean()
    volume /= volume.std()


def test_constant_air_is_recognised_before_a_channel_is_resampled(tmp_path):
    files = write_channels(tmp_path, change=lambda volumes: score(volumes["t2"]))
    scan = nib.load(files[3])
    shifted = scan.affine + 1.5 * np.eye(4)[:, [0]] * np.eye(4)[3]  # half a voxel to the side
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), shifted), files[3])
    found = read_files(*files, resample=True)
    assert "air that is a constant but not 0 (T2w" in " ".join(found.warnings)
    assert found.brain == (slice(4, 37), slice(4, 44), slice(4, 32))


def warnings_of(files):
    return " ".join(read_files(*files).warnings)


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
    with pytest.raises(CaseError, match="another position"):
        read_files(*files)
    assert "gives no orientation" in " ".join(read_files(*files, resample=True).warnings)


def test_voxels_of_4_mm_are_not_over_4_mm_because_a_header_is_rounded(tmp_path):
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turned = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert "Small lesions" not in warnings_of(write_channels(tmp_path, affine=turned @ np.diag([4, 4, 4, 1])))


def test_z_scored_scans_that_were_padded_with_zeros_are_not_taken_for_a_skull(tmp_path):
    def score_and_pad(volumes):
        for name, volume in volumes.items():
            score(volume)
            volumes[name] = np.pad(volume, 3)

    text = warnings_of(write_channels(tmp_path, change=score_and_pad, affine=np.diag([3.9, 3.9, 3.9, 1])))
    assert "air that is a constant" in text
    assert "skull" not in text


@pytest.fixture
def case(tmp_path):
    """A scan, and its label on the same grid."""
    scan = np.random.default_rng(0).random((*LABELS.shape, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(scan, LPS), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(LABELS, LPS), tmp_path / "label.nii.gz")
    return Case("one", (tmp_path / "scan.nii.gz",), tmp_path / "label.nii.gz", MSD)


def turn(image, codes):
    wanted = nib.orientations.axcodes2ornt(codes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA"])
def test_a_label_whose_axes_run_otherwise_is_turned_onto_the_scan(case, codes):
    nib.save(turn(nib.load(case.label), codes), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


def test_a_fourth_axis_of_one_is_left_out(case):
    nib.save(nib.Nifti1Image(LABELS[..., None], LPS), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


@pytest.mark.parametrize("affine", [None, np.eye(4)], ids=["no code", "identity"])
def test_a_label_without_a_position_is_taken_as_it_lies(case, affine):
    nib.save(nib.Nifti1Image(LABELS, affine), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


def test_a_label_is_turned_onto_a_scan_whose_true_affine_is_the_identity(case):
    nib.save(nib.Nifti1Image(np.asarray(nib.load(case.images[0]).dataobj), np.eye(4)), case.images[0])
    nib.save(turn(nib.Nifti1Image(LABELS, np.eye(4)), "LPS"), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_a_label_whose_true_affine_is_the_identity_is_turned_onto_the_scan(case, codes):
    scan, label = np.asarray(nib.load(case.images[0]).dataobj), nib.Nifti1Image(LABELS, np.eye(4))
    nib.save(turn(nib.Nifti1Image(scan, np.eye(4)), codes), case.images[0])
    nib.save(label, case.label)
    expected = torch.from_numpy(np.array(turn(label, codes).dataobj))
    assert torch.equal(read_case(case).label, expected)


@pytest.mark.parametrize("in_air", [True, False])
def test_a_label_of_which_much_lies_in_air_is_warned_of(case, in_air):
    scan = nib.load(case.images[0]).get_fdata(dtype=np.float32)
    scan[:3] = 0
    nib.save(nib.Nifti1Image(scan, LPS), case.images[0])
    inside = np.where(np.arange(12) < 3, 0, 1)[:, None, None].astype(np.uint8)
    nib.save(nib.Nifti1Image(LABELS if in_air else LABELS * inside, LPS), case.label)
    assert ("of the label lie in air" in " ".join(read_case(case).warnings)) == in_air


def test_an_infinite_label_is_refused(case):
    values = LABELS.astype(np.float32)
    values[0, 0, 0] = np.inf
    nib.save(nib.Nifti1Image(values, LPS), case.label)
    with pytest.raises(LabelError, match=r"found label values \[inf\] that are no whole numbers"):
        read_case(case)


def test_a_scan_that_is_a_multiple_of_another_is_read(case):  # without dividing by zero: warnings are errors
    scan = nib.load(case.images[0]).get_fdata(dtype=np.float32)
    scan[..., 2] = 2 * scan[..., 1]
    nib.save(nib.Nifti1Image(scan, LPS), case.images[0])
    assert torch.equal(read_case(case).image.as_tensor()[2], torch.from_numpy(scan[..., 2]))


def test_rounding_in_a_header_is_no_other_grid(case):
    nib.save(nib.Nifti1Image(LABELS, LPS + 1e-3), case.label)
    assert torch.equal(read_case(case).regions, TRUTH)


@pytest.mark.parametrize("position", [True, False])
def test_a_label_of_another_shape_than_the_scan_names_both_files(case, position):
    nib.save(nib.Nifti1Image(LABELS[1:], LPS if position else None), case.label)
    with pytest.raises(
        LabelError, match=r"label\.nii\.gz: .* \(11, 14, 10\), expected \(12, 14, 10\) as in .*scan\.nii"
    ):
        read_case(case)


@pytest.mark.parametrize(
    "change",
    [lambda affine: affine @ np.diag([1, 1, 2, 1]), lambda affine: affine + 5 * (np.arange(4) == 3)],
    ids=["voxel size", "place"],
)
def test_a_label_on_another_grid_is_refused(case, change):
    nib.save(nib.Nifti1Image(LABELS, change(LPS)), case.label)
    with pytest.raises(LabelError, match=r"label\.nii\.gz: found a label at another position .* than .*scan\.nii\.gz"):
        read_case(case)


def test_a_damaged_label_is_named(case):
    case.label.write_bytes(case.label.read_bytes()[:400])
    with pytest.raises(CaseError, match=r"label\.nii\.gz: cannot be read"):
        read_case(case)


@pytest.fixture
def readings(monkeypatch):
    """Ids of the cases that are read from now on."""
    read = []
    monkeypatch.setattr(reader, "read_case", lambda case, **how: (read.append(case.case_id), read_case(case, **how))[1])
    return read


def test_a_checked_case_is_not_read_again_until_one_of_its_files_changes(case, tmp_path, readings):
    cases, memory = [case, replace(case, case_id="two")], tmp_path / "cache/checked.json"
    check_cases(cases, remembered=memory)
    assert sorted(readings) == ["one", "two"]
    check_cases(cases, remembered=memory)
    assert sorted(readings) == ["one", "two"]
    os.utime(case.label, (0, 0))
    check_cases(cases[:1], remembered=memory)
    assert sorted(readings) == ["one", "one", "two"]


def test_a_case_is_checked_again_in_another_numbering(case, tmp_path, readings):
    check_cases([case], remembered=tmp_path / "checked.json")
    with pytest.raises(LabelError, match=r"found label values \[3\]"):
        check_cases([replace(case, numbering=BRATS_2021)], remembered=tmp_path / "checked.json")
    assert readings == ["one", "one"]


def test_of_bad_cases_the_first_is_explained_the_others_are_named_and_the_good_are_remembered(case, tmp_path, readings):
    bad = [replace(case, case_id=name, images=(tmp_path / f"{name}.nii.gz",)) for name in ("two", "three", "four")]
    with pytest.raises(CaseError, match=r"two\.nii\.gz: not found.* Nor can these be used: three, four\.$"):
        check_cases([*bad, case], remembered=tmp_path / "checked.json")
    assert len(json.loads((tmp_path / "checked.json").read_text())) == 1
    check_cases([case], remembered=tmp_path / "checked.json")
    assert readings.count("one") == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 3}'])
def test_a_damaged_memory_of_checks_is_made_anew(case, tmp_path, readings, text):
    memory = tmp_path / "checked.json"
    memory.write_text(text)
    check_cases([case], remembered=memory)
    assert readings == ["one"]
    assert len(json.loads(memory.read_text())) == 1


def test_warnings_are_printed_of_five_cases_also_when_they_are_remembered(case, tmp_path, capsys):
    nib.save(turn(nib.load(case.label), "RAS"), case.label)
    cases = [replace(case, case_id=f"case{number}") for number in range(7)]
    for _ in range(2):
        check_cases(cases, remembered=tmp_path / "checked.json")
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("Warnings on 7 of 7 cases. They are used all the same")
        assert [line.partition(":")[0] for line in said[1:]] == [f"- case{number}" for number in range(5)] + [
            "- and 2 more"
        ]
        assert "The label's axes run RAS, those of the scan LPS: it was turned onto the scan." in said[1]
        assert said[-1].endswith(": case5, case6")


@pytest.fixture(scope="module")
def enhancing():
    """Channels of a phantom whose enhancement is plain, as a (4, X, Y, Z) array with its affine."""
    case = generate_case(0, 7, spacing_mm=4.0)
    return np.moveaxis(case.image, -1, 0).astype(np.float32), case.affine


@pytest.mark.parametrize("swapped", [None, (0, 1), (0, 3), (1, 2), (1, 3), (2, 3)], ids=str)
def test_swapped_channels_are_warned_of(tmp_path, enhancing, swapped):
    channels, affine = enhancing
    order = list(range(4))
    if swapped:
        first, second = swapped
        order[first], order[second] = second, first
    nib.save(nib.Nifti1Image(np.moveaxis(channels[order], 0, -1), affine), tmp_path / "scan.nii.gz")
    warnings = read_files(tmp_path / "scan.nii.gz").warnings
    assert len(warnings) == bool(swapped), warnings
    assert all("swapped" in text or "order of the channels" in text for text in warnings)


def test_real_scans_are_read_without_a_false_alarm_about_their_channels(real_dir):
    cases = find_cases(real_dir / "tcga", schema=BRATS_2021)
    for case in [*cases, *find_cases(real_dir / "msd/Task01_BrainTumour")]:
        assert not [text for text in read_case(case).warnings if "swapped" in text or "order" in text]
