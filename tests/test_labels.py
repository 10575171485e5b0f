import json

import pytest
import torch

from brats_utils.labels import (
    BRATS_2021,
    BRATS_2023,
    MSD,
    SCHEMAS,
    LabelError,
    check_dataset_json,
    check_label_values,
    labels_to_regions,
    regions_to_labels,
)

DATASET_JSON = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
}


def test_msd_regions_are_those_of_dataset_json():
    labels = torch.tensor([0, 1, 2, 3]).reshape(4, 1, 1)
    core, whole, enhancing = labels_to_regions(labels, MSD).flatten(1).tolist()
    assert core == [False, False, True, True]
    assert whole == [False, True, True, True]
    assert enhancing == [False, False, False, True]


def test_the_same_tissue_gives_the_same_regions_in_every_schema():
    regions = [
        labels_to_regions(torch.tensor([0, s.edema, s.necrotic, s.enhancing]).reshape(4, 1, 1), s)
        for s in SCHEMAS.values()
    ]
    assert all(torch.equal(other, regions[0]) for other in regions)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_labels_survive_the_way_to_regions_and_back(schema):
    values = torch.tensor(sorted(schema.tissues))
    labels = values[torch.randint(4, (5, 5, 5), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(regions_to_labels(labels_to_regions(labels, schema), schema).long(), labels)


def test_regions_from_any_masks_are_nested():
    masks = torch.rand(3, 6, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    core, whole, enhancing = labels_to_regions(regions_to_labels(masks, MSD), MSD)
    assert not (enhancing & ~core).any()
    assert not (core & ~whole).any()
    assert torch.equal(whole, masks.any(0))


def test_unlisted_label_is_refused_and_the_fitting_schema_named():
    with pytest.raises(LabelError, match=r"case\.nii.*\[4\].*brats2021: set label_schema to it, or --schema"):
        check_label_values([0, 1, 2, 4], MSD, source="case.nii")


def test_many_values_are_listed_in_part():
    with pytest.raises(LabelError, match=r"found label values \[0\.1, 0\.2, 0\.3, 0\.4, 0\.5, \.\.\.\], expected"):
        check_label_values([0, *(index / 10 for index in range(1, 10))], MSD, source="case.nii")


def test_dataset_json_of_msd_is_accepted():
    check_dataset_json(DATASET_JSON, MSD, source="dataset.json")


@pytest.mark.parametrize("schema", [BRATS_2021, BRATS_2023], ids=lambda schema: schema.name)
def test_dataset_json_of_another_schema_is_refused(schema):
    with pytest.raises(LabelError, match="describes msd: set label_schema to it, or --schema"):
        check_dataset_json(DATASET_JSON, schema, source="dataset.json")


def test_swapped_labels_in_dataset_json_are_refused():
    swapped = DATASET_JSON["labels"] | {"2": "enhancing tumour", "3": "non-enhancing tumor"}
    with pytest.raises(LabelError, match="no known schema"):
        check_dataset_json(DATASET_JSON | {"labels": swapped}, MSD, source="dataset.json")


def test_wrong_channel_order_is_refused():
    swapped = {"0": "FLAIR", "1": "t1gd", "2": "T1w", "3": "T2w"}
    with pytest.raises(LabelError, match=r"found channels \['FLAIR', 't1gd'"):
        check_dataset_json(DATASET_JSON | {"modality": swapped}, MSD, source="dataset.json")


def test_dataset_json_without_labels_is_refused():
    with pytest.raises(LabelError, match="under 'labels'"):
        check_dataset_json({"modality": DATASET_JSON["modality"]}, MSD, source="dataset.json")


def test_the_released_dataset_json_is_accepted(real_dir):
    document = json.loads((real_dir / "msd/Task01_BrainTumour/dataset.json").read_text())
    check_dataset_json(document, MSD, source="dataset.json")
