import pytest
import torch

from brats_utils.labels import (
    BRATS_2024,
    BRATS_PEDS,
    MSD,
    SCHEMAS,
    LabelError,
    check_label_values,
    labels_to_regions,
    regions_to_labels,
)


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
    values = torch.tensor([0, schema.edema, schema.necrotic, schema.enhancing])
    labels = values[torch.randint(4, (5, 5, 5), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(regions_to_labels(labels_to_regions(labels, schema), schema).long(), labels)


def test_regions_from_any_masks_are_nested():
    masks = torch.rand(3, 6, 6, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    core, whole, enhancing = labels_to_regions(regions_to_labels(masks, MSD), MSD)
    assert not (enhancing & ~core).any()
    assert not (core & ~whole).any()
    assert torch.equal(whole, masks.any(0))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [(BRATS_2024, [[1, 3], [1, 2, 3], [3]]), (BRATS_PEDS, [[1, 2, 3], [1, 2, 3, 4], [1]])],
    ids=["a cavity is no tumour", "a cyst is core"],
)
def test_regions_of_the_conventions_with_a_fifth_tissue(schema, expected):
    labels = torch.arange(5).reshape(5, 1, 1)
    assert [mask.flatten().nonzero().flatten().tolist() for mask in labels_to_regions(labels, schema)] == expected


def test_unlisted_label_is_refused_and_all_that_it_may_mean_is_named():
    meanings = "4 is enhancing tumour in brats2021, resection cavity in brats2024, edema in brats_peds"
    with pytest.raises(LabelError, match=rf"case\.nii.*\[4\].*{meanings}\. .* set label_schema to it, or --schema"):
        check_label_values([0, 1, 2, 4], MSD, source="case.nii")


def test_a_label_of_no_schema_gets_no_advice_to_choose_another():
    with pytest.raises(LabelError, match=r"case\.nii.*\[7\].* No known schema has 7\.$"):
        check_label_values([0, 7], MSD, source="case.nii")


def test_many_values_are_listed_in_part():
    with pytest.raises(LabelError, match=r"found label values \[0\.1, 0\.2, 0\.3, 0\.4, 0\.5, \.\.\.\], expected"):
        check_label_values([0, *(index / 10 for index in range(1, 10))], MSD, source="case.nii")
