"""Folders that people really have: the same is seen of the cases in whatever layout they come."""

import json

import pytest
import torch
from scans import BRATS, FOUR, NAMES, assert_same, describe, look, save, write_files, write_msd

from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import BRATS_2021, BRATS_2023, MSD

ODD = "path #1 100% é"


@pytest.mark.parametrize("layout", ["MSD", "four files"])
def test_a_path_with_characters_of_a_url_works(patients, originals, tmp_path, layout):
    folder = write_msd(tmp_path / ODD, patients) if layout == "MSD" else write_files(tmp_path / ODD, patients, *BRATS)
    assert_same(look(folder, schema=MSD, cache="ram"), originals)


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
