"""A dataset.json is believed where it names four channels and a known numbering, in whatever words."""

import json
import shutil

import pytest

from brats_utils.cases.case import CaseError
from brats_utils.cases.dataset_json import channel_of, read_channels, read_label_schema
from brats_utils.cases.layouts import find_cases
from brats_utils.labels import BRATS_2021, BRATS_2023, BRATS_2024, BRATS_PEDS, CHANNELS, MSD, LabelError

DATASET_JSON = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}


def channels_of(names, key="modality"):
    return read_channels({key: dict(zip("0123", names, strict=False))}, source="dataset.json")


def schema_of(labels, schema=None):
    return read_label_schema({"labels": labels}, schema, source="dataset.json")


def test_dataset_json_of_msd_is_accepted():
    assert read_channels(DATASET_JSON, source="dataset.json") == list(CHANNELS)
    assert read_label_schema(DATASET_JSON, None, source="dataset.json") == MSD
    assert read_label_schema(DATASET_JSON, MSD, source="dataset.json") == MSD


@pytest.mark.parametrize("schema", [BRATS_2021, BRATS_2023], ids=lambda schema: schema.name)
def test_dataset_json_of_another_schema_is_refused(schema):
    with pytest.raises(LabelError, match="describes msd: set label_schema to it, or --schema"):
        read_label_schema(DATASET_JSON, schema, source="dataset.json")


def test_swapped_labels_in_dataset_json_are_refused():
    swapped = DATASET_JSON["labels"] | {"2": "enhancing tumour", "3": "non-enhancing tumor"}
    with pytest.raises(LabelError, match="no known schema"):
        schema_of(swapped, MSD)


def test_wrong_channel_order_is_refused(phantom_dir, tmp_path):
    folder = shutil.copytree(phantom_dir, tmp_path / "data")
    document = json.loads((folder / "dataset.json").read_text())
    swapped = {"0": "FLAIR", "1": "t1gd", "2": "T1w", "3": "T2w"}
    (folder / "dataset.json").write_text(json.dumps(document | {"modality": swapped}))
    with pytest.raises(LabelError, match=r"found channels \['FLAIR', 'T1gd'.* in 4D files, expected .* in this order"):
        find_cases(folder)


def test_dataset_json_without_labels_is_refused():
    with pytest.raises(LabelError, match="under 'labels'"):
        read_label_schema({"modality": DATASET_JSON["modality"]}, MSD, source="dataset.json")


def test_the_released_dataset_json_is_accepted(real_dir):
    document = json.loads((real_dir / "msd/Task01_BrainTumour/dataset.json").read_text())
    assert read_channels(document, source="dataset.json") == list(CHANNELS)
    assert read_label_schema(document, None, source="dataset.json") == MSD


MODALITY = json.dumps(DATASET_JSON["modality"])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        f'{{"modality": {MODALITY}, "training": 3}}',
        f'{{"modality": {MODALITY}, "training": [{{"image": "a"}}]}}',
    ],
)
def test_damaged_dataset_json_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(CaseError, match=r"dataset\.json: cannot be read"):
        find_cases(tmp_path)


def test_a_byte_order_mark_before_dataset_json_is_no_damage(tmp_path):
    for name in ("scan", "label"):
        (tmp_path / f"{name}.nii.gz").touch()
    document = DATASET_JSON | {"training": [{"image": "scan.nii.gz", "label": "label.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(document), encoding="utf-8-sig")
    assert [case.case_id for case in find_cases(tmp_path)] == ["scan"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("T1", "T1ce", "T2", "FLAIR"), ["T1w", "T1gd", "T2w", "FLAIR"]),
        (("t1n", "t1c", "t2w", "t2f"), ["T1w", "T1gd", "T2w", "FLAIR"]),
        (("T1", "T1-Gd", "T2", "T2-FLAIR"), ["T1w", "T1gd", "T2w", "FLAIR"]),
        (("MRI_T1", "MRI_T1CE", "MRI_T2", "MRI_FLAIR"), ["T1w", "T1gd", "T2w", "FLAIR"]),
        (("T1w", "T1w post-contrast", "T2w", "FLAIR"), ["T1w", "T1gd", "T2w", "FLAIR"]),
    ],
    ids=str,
)
def test_channels_are_known_by_any_of_their_names_in_any_order(names, expected):
    assert channels_of(names) == expected
    assert channels_of(names, key="channel_names") == expected


@pytest.mark.parametrize("names", [("T1", "T1", "T2", "FLAIR"), ("T1", "T2"), ("CT", "T1ce", "T2", "FLAIR")])
def test_other_channels_than_the_four_are_refused(names):
    with pytest.raises(
        LabelError, match=r"dataset\.json: found channels \[.*\], expected \['FLAIR', .* Correct 'modality'"
    ):
        channels_of(names)


def test_a_contrast_agent_before_or_after_t1w_makes_t1gd():
    assert {channel_of(name) for name in ("sub-1_ce-gd_T1w", "T1 Gd", "x_t1_post", "A_T1wCE")} == {"T1gd"}
    assert {channel_of(name) for name in ("mask", "A_adc", "sub-1_dwi", "")} == {None}


@pytest.mark.parametrize(
    ("labels", "schema"),
    [
        ({"background": 0, "NCR/NET": 1, "ED": 2, "ET": 4}, BRATS_2021),
        ({"background": 0, "NCR": 1, "SNFH": 2, "ET": 3}, BRATS_2023),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, BRATS_2024),
        ({"background": 0, "ET": 1, "NET": 2, "CC": 3, "ED": 4}, BRATS_PEDS),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}, MSD),
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]}, BRATS_2023),
        ({"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}, MSD),
        (
            {"whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3], "resection cavity": [4]},
            BRATS_2024,
        ),
    ],
    ids=["2021", "2023", "2024", "peds", "regions of msd", "regions of 2023", "short regions", "regions and a cavity"],
)
def test_labels_are_known_by_any_of_their_names_and_as_regions(labels, schema):
    assert schema_of(labels) == schema
