"""Labels that outline the whole tumour alone, as the Erasmus Glioma Database has them, are scored for WT and nothing else."""

import json
import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils.cases.dataset_json import read_label_schema
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.split import split_cases
from brats_utils.config import ConfigError, load_config
from brats_utils.evaluation import evaluate_cases, format_summary, read_evaluation, write_evaluation
from brats_utils.inference import build_predictor
from brats_utils.labels import MSD, SCHEMAS, WHOLE_TUMOUR, LabelError, labels_to_regions, regions_to_labels
from brats_utils.metrics import score_row, summarise_scores
from brats_utils.saving.checkpoints import load_checkpoint

FOLDERS = ("4_FLAIR/NIFTI/FLAIR", "1_T1/NIFTI/T1", "2_T1GD/NIFTI/T1GD", "3_T2/NIFTI/T2")


@pytest.fixture(scope="module")
def egd(patients, tmp_path_factory):
    """Two phantoms in the layout of the Erasmus Glioma Database."""
    root = tmp_path_factory.mktemp("egd")
    for number, (image, label) in enumerate(patients, 1):
        for name, channel in zip(FOLDERS, nib.four_to_three(image), strict=True):
            (root / f"EGD-000{number}/{name}").parent.mkdir(parents=True)
            nib.save(channel, root / f"EGD-000{number}/{name}.nii.gz")
        (root / f"EGD-000{number}/5_MASK/NIFTI").mkdir(parents=True)
        mask = (np.asarray(label.dataobj) > 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, label.affine), root / f"EGD-000{number}/5_MASK/NIFTI/MASK.nii.gz")
    return root


@pytest.fixture(scope="module")
def evaluated(egd, checkpoint, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("scores")
    predictor = replace(build_predictor([load_checkpoint(checkpoint)]), keep_small=True)
    cases = find_cases(egd, schema=WHOLE_TUMOUR)
    evaluate_cases(predictor, cases, out_dir)
    return cases, out_dir


def test_only_the_whole_tumour_is_known():
    labels = torch.tensor([0, 1]).reshape(2, 1, 1)
    assert labels_to_regions(labels, WHOLE_TUMOUR).flatten(1).tolist() == [
        [False, False],
        [False, True],
        [False, False],
    ]
    assert WHOLE_TUMOUR.known == (False, True, False)
    assert all(all(schema.known) for schema in SCHEMAS.values())


def test_all_regions_are_written_as_the_whole_tumour():
    regions = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1]], dtype=torch.bool).reshape(3, 3, 1, 1)
    assert regions_to_labels(regions, WHOLE_TUMOUR).flatten().tolist() == [1, 1, 1]


def test_scores_of_unknown_regions_are_no_numbers_and_count_nowhere():
    mask = torch.zeros(3, 4, 4, 4, dtype=torch.bool)
    mask[1, 1:3, 1:3, 1:3] = True
    known = score_row("a", mask, mask, spacing_mm=(1, 1, 1))
    row = score_row("b", mask, mask, spacing_mm=(1, 1, 1), known=WHOLE_TUMOUR.known)
    assert math.isnan(row["dice_TC"])
    assert math.isnan(row["lesions_missed_ET"])
    assert row["dice_WT"] == 1
    both, alone = summarise_scores([known, row]), summarise_scores([row])
    assert [both[name]["cases"] for name in ("TC", "WT", "ET", "mean")] == [1, 2, 1, 1]
    assert (alone["TC"]["dice"], alone["mean"]["dice"], alone["WT"]["dice"]) == (None, None, 1)


@pytest.mark.slow
def test_an_evaluation_scores_the_whole_tumour(evaluated):
    cases, out_dir = evaluated
    table, summary, calibration = read_evaluation(out_dir)
    assert len(table) == len(cases) == 2
    assert table[["dice_TC", "dice_ET"]].isna().all(axis=None)
    assert table["dice_WT"].between(0, 1).all()
    assert summary["WT"]["cases"] == 2
    assert calibration[[0, 2]].sum() == 0 < calibration[1].sum()
    assert "NaN" not in (out_dir / "summary.json").read_text()
    assert "TC          -   not in these labels" in format_summary(summary)


@pytest.mark.slow
def test_the_report_of_such_an_evaluation_is_whole(evaluated):
    cases, out_dir = evaluated
    page = write_evaluation(out_dir, cases, title="EGD", schema=MSD).read_text()
    data = page.partition('id="data">')[2].partition("</script>")[0]
    content = json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {row["TC"] for row in content["scores"]} == {None}
    assert [tile["dice"] is None for tile in content["tiles"]] == [True, False, True, True]
    assert all(case["about"].startswith("Dice WT") for case in content["cases"])


def test_training_refuses_them_in_plain_words(egd, tmp_path):
    with pytest.raises(
        LabelError, match=r"outline the whole tumour alone, .* Training needs all three regions; `evaluate"
    ):
        split_cases(find_cases(egd, schema=WHOLE_TUMOUR), tmp_path / "split.json", seed=0)
    with pytest.raises(ConfigError, match=r"It outlines the whole tumour alone: .* training cannot"):
        load_config("smoke", {"label_schema": "whole_tumour"})


def test_the_command_line_refuses_them_for_training_and_for_the_official_scorer(egd, checkpoint, tmp_path, refused):
    assert "training cannot learn from it" in refused("train", "--data", egd, "--schema", "whole_tumour", "--out", tmp_path / "run")  # fmt: skip
    told = refused("evaluate", "--checkpoint", checkpoint, "--data", egd, "--schema", "whole_tumour", "--out", tmp_path / "a", "--official", tmp_path / "b")  # fmt: skip
    assert "--official needs all three regions" in told


def test_a_dataset_json_may_name_the_whole_tumour_alone(tmp_path):
    document = {"labels": {"background": 0, "whole tumor": 1}}
    assert read_label_schema(document, None, source="dataset.json") == WHOLE_TUMOUR
