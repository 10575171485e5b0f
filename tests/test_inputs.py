"""Inputs that people really have: training, evaluation and prediction see the same in them, or refuse them by name."""

import json
from urllib.parse import unquote, urlparse

import nibabel as nib
import numpy as np
import pytest
import torch
from wandb_log import read_artifacts, read_records

from brats_utils.cases.case import CaseError
from brats_utils.cases.geometry import turn_volume
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import check_cases, read_case
from brats_utils.inference import save_volume
from brats_utils.labels import BRATS_2021, BRATS_2023, BRATS_2024, BRATS_PEDS, MSD, LabelError
from brats_utils.loading import build_dataset
from brats_utils.tracking import finish_run, log_dataset, start_run
from brats_utils.transforms import build_cached_transform, build_eval_transform

NAMES = ("PHANTOM_001", "PHANTOM_003")  # the second has no enhancing tumour
MODALITY = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
FOUR = ("flair", "t1", "t1ce", "t2")


@pytest.fixture(scope="module")
def patients(phantom_dir):
    """Scan (4D) and label of each patient, at 4 mm, RAS."""
    return [
        tuple(nib.load(phantom_dir / part / f"{name}.nii.gz") for part in ("imagesTr", "labelsTr")) for name in NAMES
    ]


@pytest.fixture(scope="module")
def originals(patients, tmp_path_factory):
    """What is seen of them where nothing is odd."""
    return list(look(write_msd(tmp_path_factory.mktemp("originals"), patients)).values())


def keep(image):
    return image


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_msd(folder, patients, *, scan=keep, label=keep, names=NAMES):
    """Write them in MSD's layout, each image and each label changed before."""
    entries = []
    for name, images in zip(names, patients, strict=True):
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
        for change, image, path in zip((scan, label), images, entries[-1].values(), strict=True):
            save(change(image), folder / path)
    return describe(folder, training=entries)


def describe(folder, **content):
    document = {"modality": MODALITY, "labels": {str(value): tissue for value, tissue in MSD.tissues.items()}}
    (folder / "dataset.json").write_text(json.dumps(document | content))
    return folder


def write_files(folder, patients, scan, label, channels=FOUR, *, change=keep):
    """Write a file a channel; `scan` and `label` are patterns of paths, `channels` their names in our order."""
    for name, grade, (image, truth) in zip(NAMES, ("HGG", "LGG"), patients, strict=True):
        filled = {"id": name, "number": name[-3:], "grade": grade}
        for index, channel in enumerate(channels):
            save(image.slicer[..., index], folder / scan.format(channel=channel, **filled))
        save(change(truth), folder / label.format(**filled))
    return folder


def prepare(cases, *, cache):
    whole = build_eval_transform(cases[0].numbering)
    dataset = build_dataset(cases, cached=build_cached_transform(4.0), on_the_fly=whole, cache=cache)
    return [dataset[index] for index in range(len(cases))]


def look(folder, *, schema=None, cache="none"):
    """What training, evaluation and prediction see of each case, with axes as training turns them."""
    cases, seen = find_cases(folder, schema=schema), {}
    alone = {case.case_id: case for case in find_cases(folder, labelled=False)}
    for case, patch in zip(cases, prepare(cases, cache=cache), strict=True):
        truth, scan = read_case(case), read_case(alone[case.case_id])
        seen[case.case_id] = {
            "training image": patch["image"],
            "training regions": patch["label"],
            "evaluation regions": turn_volume(truth.regions, truth.image.affine),
            "prediction image": turn_volume(scan.image, scan.image.affine),
        }
    return seen


def assert_same(seen, originals, *, but=()):
    assert len(seen) == len(originals)
    for one, other in zip(seen.values(), originals, strict=True):
        for key in set(one) - set(but):
            torch.testing.assert_close(
                one[key], other[key], atol=2e-3, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
            )


def warnings_of(folder, **how):
    return " ".join(text for case in find_cases(folder, **how) for text in read_case(case).warnings)


def refuse(folder, **how):
    """The message with which all that takes labels refuses a folder's first case; that it is one is checked here."""
    case = find_cases(folder, **how)[0]
    with pytest.raises((CaseError, LabelError)) as refused:
        check_cases([case])
    for cache in ("ram", "none"):
        with pytest.raises(RuntimeError) as wrapped:  # by MONAI; the command line shows the cause
            prepare([case], cache=cache)
        cause = wrapped.value.__cause__
        assert (type(cause), str(cause)) == (refused.type, str(refused.value))
    return str(refused.value)


def turn(image, axes):
    wanted = nib.orientations.axcodes2ornt(axes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


def store(image, change=keep, *, affine=None, dtype=None):
    """The image with other voxels, or with a header of which no more than an affine is kept."""
    values = change(np.asanyarray(image.dataobj))
    return nib.Nifti1Image(values.astype(dtype or values.dtype), image.affine if affine is None else affine)


@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("axes", ["LPS", "PIR", "SLA"])
def test_a_label_whose_axes_run_otherwise_is_turned_onto_the_scan_and_said_so(
    patients, originals, tmp_path, axes, cache
):
    write_msd(tmp_path, patients, scan=lambda image: turn(image, axes))
    assert_same(look(tmp_path, cache=cache), originals)
    assert f"The label's axes run RAS, those of the scan {axes}: it was turned onto the scan." in warnings_of(tmp_path)


def test_scan_and_label_whose_axes_run_alike_are_no_reason_to_warn(patients, originals, tmp_path):
    write_msd(tmp_path, patients, scan=lambda image: turn(image, "LPS"), label=lambda image: turn(image, "LPS"))
    assert_same(look(tmp_path), originals)
    assert "axes run" not in warnings_of(tmp_path)


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SLA"])
def test_a_label_with_the_header_of_another_place_is_refused_with_the_names_of_both_files(patients, tmp_path, axes):
    def move_away(image):
        turned = turn(image, axes)
        return store(turned, affine=turned.affine + np.array([[0, 0, 0, -90]] * 3 + [[0] * 4]))

    def misplace(image):
        return store(turn(image, axes), affine=np.diag([4.0, 4, 4, 1]))

    write_msd(tmp_path, patients, scan=move_away, label=misplace)
    message = refuse(tmp_path)
    scan, label = (tmp_path / f"{part}/{NAMES[0]}.nii.gz" for part in ("imagesTr", "labelsTr"))
    assert message.startswith(f"{label}: found a label ")
    assert str(scan) in message
    assert read_case(find_cases(tmp_path, labelled=False)[0]).warnings == ()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("header", ["no code", "identity"])
def test_a_label_without_a_position_is_taken_as_it_lies_and_said_so(patients, originals, tmp_path, axes, header):
    def unplace(image):
        stored = store(turn(image, axes), affine=np.eye(4))
        if header == "no code":
            stored.set_sform(None, 0)
            stored.set_qform(None, 0)
        return stored

    write_msd(tmp_path, patients, scan=lambda image: turn(image, axes), label=unplace)
    assert_same(look(tmp_path, cache="ram"), originals)
    assert "gives no position: the label is taken voxel by voxel as it lies" in warnings_of(tmp_path)


def with_slope(image):
    stored = store(image, lambda values: values * 85)
    stored.header.set_slope_inter(3 / 255, 0)
    return stored


@pytest.mark.parametrize(
    "change",
    [
        with_slope,
        lambda image: store(image, dtype=np.int16),
        lambda image: store(image, lambda values: values * 1.0000001, dtype=np.float32),
        lambda image: store(image, lambda values: values * (1 + 3e-4), dtype=np.float64),
    ],
    ids=["slope", "int16", "float32", "float64"],
)
def test_a_label_that_is_nearly_whole_numbers_is_those_numbers(patients, originals, tmp_path, change):
    assert_same(look(write_msd(tmp_path, patients, label=change)), originals)
    assert warnings_of(tmp_path) == ""


@pytest.mark.parametrize(("value", "shown"), [(1.002, "1.002"), (2.0011, "2.0011"), (0.5, "0.5"), (np.nan, "nan")])
def test_a_label_further_off_is_refused_with_its_digits(patients, tmp_path, value, shown):
    def put(values):
        values = values.astype(np.float64)
        values[30, 30, 20] = value
        return values

    message = refuse(write_msd(tmp_path, patients, label=lambda image: store(image, put)))
    assert f"labelsTr/{NAMES[0]}.nii.gz: found label values [{shown}] that are no whole numbers" in message


BRATS = ("{id}/{id}-{channel}.nii.gz", "{id}/{id}-seg.nii.gz", ("t2f", "t1n", "t1c", "t2w"))


def renumber(new):
    """From MSD's numbering to another, given the new values of 0 to 3."""
    return lambda image: store(image, lambda values: np.array(new, np.uint8)[values])


def cut_out(new):
    """Renumber, and give every other slice of the core that does not enhance, as left by a surgeon, the last value."""

    def change(values):
        cavity = (values == MSD.necrotic) & (np.indices(values.shape)[2] % 2 == 0)
        return np.where(cavity, new[-1], np.array(new)[values]).astype(np.uint8)

    return lambda image: store(image, change)


def test_a_cavity_is_no_tumour(patients, tmp_path):
    write_files(tmp_path / "cavity", patients, *BRATS, change=cut_out([0, 2, 1, 3, 4]))
    write_msd(tmp_path / "healthy", patients, label=cut_out([0, 1, 2, 3, 0]))
    assert_same(look(tmp_path / "cavity", schema=BRATS_2024), look(tmp_path / "healthy").values())


@pytest.mark.parametrize("schema", [MSD, BRATS_2023], ids=lambda schema: schema.name)
def test_a_cavity_in_another_numbering_is_refused_with_all_that_4_may_mean(patients, tmp_path, schema):
    message = refuse(write_files(tmp_path, patients, *BRATS, change=cut_out([0, 2, 1, 3, 4])), schema=schema)
    assert f"{NAMES[0]}-seg.nii.gz: found label values [4]" in message
    assert "4 is enhancing tumour in brats2021, resection cavity in brats2024, edema in brats_peds." in message
    assert len(find_cases(tmp_path, labelled=False)) == 2


@pytest.mark.parametrize(
    ("schema", "new"),
    [(BRATS_2021, [0, 2, 1, 4]), (BRATS_2023, [0, 2, 1, 3]), (BRATS_PEDS, [0, 4, 2, 1]), (BRATS_PEDS, [0, 4, 3, 1])],
    ids=["brats2021", "brats2023", "brats_peds", "all core cystic"],
)
def test_labels_of_any_numbering_are_the_same_regions(patients, originals, tmp_path, schema, new):
    write_files(tmp_path, patients, *BRATS, change=renumber(new))
    assert_same(look(tmp_path, schema=schema), originals)


FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
FIELDS = (*FIELDS, "srow_x", "srow_y", "srow_z", "xyzt_units")


def give_long_quaternion(*, sform_code, by=3e-7):
    """Half a turn around the third axis, as a quaternion longer than 1, in a header that is stored as it is."""

    def change(image):
        turned = turn(image, "LPS")
        turned.set_qform(turned.affine, 1)
        turned.set_sform(turned.affine, sform_code)
        header = turned.header.copy()
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = 0, 0, 1 + by
        return nib.Nifti1Image(np.asanyarray(turned.dataobj), None, header)

    return change


@pytest.mark.parametrize("sform_code", [1, 0], ids=["good sform", "no sform"])
@pytest.mark.parametrize("by", [3e-7, 2e-6])
def test_a_quaternion_that_is_a_hair_too_long_changes_nothing(patients, originals, tmp_path, sform_code, by):
    change = give_long_quaternion(sform_code=sform_code, by=by)
    assert_same(look(write_msd(tmp_path, patients, scan=change, label=change), cache="ram"), originals)
    assert warnings_of(tmp_path) == ""


@pytest.mark.parametrize("change", [keep, *(give_long_quaternion(sform_code=code) for code in (0, 1, 2))])
def test_what_is_written_carries_the_geometry_that_was_read_bit_by_bit(patients, tmp_path, change):
    case = find_cases(write_msd(tmp_path, patients, scan=change), labelled=False)[0]
    scan = read_case(case)
    written = save_volume((scan.image[0] > 0).byte(), tmp_path / "out.nii.gz", like=scan.reference)
    read, found = nib.load(case.images[0]).header, nib.load(written).header
    assert {name: found[name].tobytes() for name in FIELDS} == {name: read[name].tobytes() for name in FIELDS}
    assert found["pixdim"][:4].tobytes() == read["pixdim"][:4].tobytes()


def score(values):
    values = values.astype(np.float32)
    return (values - values.mean((0, 1, 2))) / values.std((0, 1, 2))


def shift(image):
    stored = store(image, dtype=np.int16)
    stored.header.set_slope_inter(1, -1000)
    return stored


def score_one(values):
    return np.concatenate([values[..., :2], score(values)[..., 2:3], values[..., 3:]], axis=-1)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: store(image, score),
        lambda image: store(image, score_one),
        lambda image: store(image, lambda values: 2 * values / values.max((0, 1, 2)) - 1, dtype=np.float32),
        lambda image: store(image, lambda values: values + 7),
        shift,
    ],
    ids=["z-score", "z-score of one channel", "from -1 to 1", "7", "-1000 by the header"],
)
def test_air_that_is_a_constant_but_not_0_is_taken_as_air(patients, originals, tmp_path, change):
    write_msd(tmp_path, patients, scan=change)
    assert_same(look(tmp_path), originals, but=["prediction image"])
    text = warnings_of(tmp_path)
    assert "Found air that is a constant but not 0 (" in text
    assert "skull" not in text
    case, plain = find_cases(tmp_path, labelled=False)[0], originals[0]["prediction image"]
    assert torch.equal(read_case(case).image.as_tensor().any(0), plain.any(0))


def put(value, channel):
    def change(values):
        values = values.astype(np.float32)
        values[30, 30, 20, channel] = value
        return values

    return lambda image: store(image, change)


@pytest.mark.parametrize(("value", "channel"), [(np.nan, 1), (np.inf, 0), (-np.inf, 3)])
def test_one_voxel_that_is_no_number_is_refused_with_the_name_of_the_file(patients, tmp_path, value, channel):
    folder = write_msd(tmp_path, patients, scan=put(value, channel))
    expected = f"imagesTr/{NAMES[0]}.nii.gz: {('FLAIR', 'T1w', 'T1gd', 'T2w')[channel]}: found NaN or infinite voxels"
    assert expected in refuse(folder)
    with pytest.raises(CaseError, match="found NaN or infinite voxels"):
        read_case(find_cases(folder, labelled=False)[0])


def test_of_four_files_the_one_that_has_a_nan_is_named(patients, tmp_path):
    folder = write_files(tmp_path, [(put(np.nan, 2)(scan), label) for scan, label in patients], *BRATS)
    assert f"{NAMES[0]}-t1c.nii.gz: T1gd: found NaN" in refuse(folder, schema=MSD)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_the_type_of_voxels_does_not_matter(patients, originals, tmp_path, dtype):
    write_msd(tmp_path, patients, scan=lambda image: store(image, dtype=dtype))
    assert_same(look(tmp_path, cache="ram"), originals)


ODD = "path #1 100% é"


@pytest.mark.parametrize("layout", ["MSD", "four files"])
def test_a_path_with_characters_of_a_url_works(patients, originals, tmp_path, layout):
    folder = write_msd(tmp_path / ODD, patients) if layout == "MSD" else write_files(tmp_path / ODD, patients, *BRATS)
    assert_same(look(folder, schema=MSD, cache="ram"), originals)
    (tmp_path / "split.json").write_text("{}")
    run = start_run(job_type="dataset", mode="offline", output_dir=tmp_path / "out", config={})
    log_dataset(run, folder, split_path=tmp_path / "split.json")
    finish_run(run)
    (artifact,) = read_artifacts(read_records(next((tmp_path / "out/wandb").glob("offline-run-*"))))
    recorded = [unquote(urlparse(entry.ref).path) for entry in artifact.manifest.contents if entry.ref]
    assert sorted(recorded) == sorted(str(path) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("depth", ["", "raw/site_1/"])
def test_cases_of_the_same_file_names_are_called_by_what_differs(patients, originals, tmp_path, depth):
    entries = []
    for name, (scan, label) in zip(("p1", "p2"), patients, strict=True):
        entries.append({"image": f"{depth}{name}/image.nii.gz", "label": f"{depth}{name}/label.nii.gz"})
        save(scan, tmp_path / entries[-1]["image"])
        save(label, tmp_path / entries[-1]["label"])
    seen = look(describe(tmp_path, training=entries))
    assert_same(seen, originals)
    assert list(seen) == ["p1", "p2"]


def test_a_dataset_json_may_list_four_files_a_case(patients, originals, tmp_path):
    write_files(tmp_path, patients, "{number}/{channel}.nii.gz", "{number}/truth.nii.gz")
    entries = [
        {"image": [f"{name[-3:]}/{channel}.nii.gz" for channel in FOUR], "label": f"{name[-3:]}/truth.nii.gz"}
        for name in NAMES
    ]
    seen = look(describe(tmp_path, training=entries))
    assert_same(seen, originals)
    assert list(seen) == ["001", "003"]


NUMBERS = ("0003", "0000", "0001", "0002")  # of our channels in the order of nnU-Net's BraTS: T1, T1ce, T2, FLAIR
TISSUES = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}
REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}


@pytest.mark.parametrize("names", [("T1", "T1ce", "T2", "FLAIR"), ("t1n", "t1c", "t2w", "t2f")], ids=str)
@pytest.mark.parametrize("labels", [TISSUES, REGIONS], ids=["tissues", "regions"])
def test_files_of_nnunet_v2_are_put_in_order_by_the_names_of_their_channels(
    patients, originals, tmp_path, names, labels
):
    write_files(tmp_path, patients, "imagesTr/{id}_{channel}.nii.gz", "labelsTr/{id}.nii.gz", NUMBERS)
    document = {"channel_names": dict(zip("0123", names, strict=True)), "labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(document | {"numTraining": 2}))
    seen = look(tmp_path)
    assert_same(seen, originals)
    assert tuple(seen) == NAMES


def test_files_of_nnunet_v1_are_put_in_order_by_the_names_of_their_channels(patients, originals, tmp_path):
    write_files(tmp_path, patients, "imagesTr/{id}_{channel}.nii.gz", "labelsTr/{id}.nii.gz", NUMBERS)
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in NAMES]
    describe(tmp_path, modality=dict(zip("0123", ("T1", "T1ce", "T2", "FLAIR"), strict=True)), training=entries)
    seen = look(tmp_path, cache="ram")
    assert_same(seen, originals)
    assert tuple(seen) == NAMES


def test_images_of_nnunet_are_predicted_from_their_own_folder(patients, originals, tmp_path):
    write_files(tmp_path, patients, "imagesTs/{id}_{channel}.nii.gz", "labelsTr/{id}.nii.gz", NUMBERS)
    describe(tmp_path, modality=dict(zip("0123", ("T1", "T1ce", "T2", "FLAIR"), strict=True)), training=[])
    cases = find_cases(tmp_path / "imagesTs", labelled=False)
    for case, original in zip(cases, originals, strict=True):
        torch.testing.assert_close(read_case(case).image, original["prediction image"])


ANAT = ("FLAIR", "T1w", "ce-gadolinium_T1w", "T2w")
SESSION = "sub-{number}/ses-pre/anat/sub-{number}_ses-pre"


@pytest.mark.parametrize(
    ("scan", "label", "ids"),
    [
        ("sub-{number}/anat/sub-{number}_{channel}.nii.gz", "sub-{number}/anat/sub-{number}_dseg.nii.gz", "sub-{}"),
        (SESSION + "_{channel}.nii.gz", SESSION + "_dseg.nii.gz", "sub-{}_ses-pre"),
        (SESSION + "_{channel}.nii.gz", f"derivatives/manual/{SESSION}_dseg.nii.gz", "sub-{}_ses-pre"),
        (SESSION + "_acq-3d_{channel}.nii", f"derivatives/me/{SESSION}_desc-tumor_dseg.nii", "sub-{}_ses-pre"),
    ],
    ids=["subjects", "sessions", "labels in derivatives", "more entities"],
)
def test_bids_is_read_with_sessions_and_derivatives(patients, originals, tmp_path, scan, label, ids):
    write_files(tmp_path, patients, scan, label, ANAT)
    (tmp_path / "dataset_description.json").write_text("{}")
    seen = look(tmp_path, schema=MSD)
    assert_same(seen, originals)
    assert list(seen) == [ids.format(name[-3:]) for name in NAMES]


@pytest.mark.parametrize(
    ("scan", "label", "channels"),
    [
        ("{grade}/{id}/{id}_{channel}.nii.gz", "{grade}/{id}/{id}_seg.nii.gz", FOUR),
        ("Data/{grade}/{id}/{id}_{channel}.nii.gz", "Data/{grade}/{id}/{id}_seg.nii.gz", FOUR),
        ("{id}/{id}_{channel}.nii", "{id}/W39_1998.09.19_Segm.nii", FOUR),
        ("{id}/{id}_{channel}.nii.gz", "{id}/{id}_seg.nii.gz", FOUR),
        ("{id}/{id}-{channel}.nii.gz", "{id}/{id}-seg.nii.gz", ("t2f", "t1n", "t1c", "t2w")),
        ("{id}/{channel}.nii.gz", "{id}/Segmentation.nii.gz", ("FLAIR", "T1", "T1-Gd", "T2")),
        ("{id}_{channel}.nii.gz", "{id}_seg.nii.gz", FOUR),
        ("{id}-{channel}.nii.gz", "{id}-seg.nii.gz", ("t2f", "t1n", "t1c", "t2w")),
    ],
    ids=["2018", "2018, one folder up", "2020", "2021", "2023 and 2024", "a hospital", "side by side", "those of 2024"],
)
def test_four_files_a_patient_are_read_in_every_form_of_brats(patients, originals, tmp_path, scan, label, channels):
    write_files(tmp_path, patients, scan, label, channels)
    seen = look(tmp_path, schema=MSD)
    assert_same(seen, originals)
    assert tuple(seen) == NAMES


@pytest.mark.parametrize(("name", "schema", "count"), [("brats2021", BRATS_2021, 6), ("brats_africa", BRATS_2023, 12)])
def test_real_folders_are_found_and_read(real_dir, name, schema, count):
    cases = find_cases(real_dir / name, schema=schema)
    assert len(cases) == count == len(find_cases(real_dir / name, labelled=False))
    scan = read_case(cases[0])
    assert scan.image.shape == (4, 240, 240, 155)
    assert scan.regions.flatten(1).any(1).all()
    assert not [text for text in scan.warnings if "axes run" in text or "taken" in text or "skull" in text]
