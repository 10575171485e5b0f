"""A network that was handed over runs without this package and gives the labels of `predict --no-flips`."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils.cases.case import Case
from brats_utils.cases.reader import read_case
from brats_utils.commands.export import export_bundle
from brats_utils.commands.model_card import write_model_card
from brats_utils.inference import Predictor, predict_scan
from brats_utils.labels import MSD
from brats_utils.saving.checkpoints import CheckpointError, load_checkpoint

SCORES = {"dice": 0.5, "low": 0.25, "high": 0.75, "cases": 3}
METRICS = {
    "preset": "smoke",
    "checkpoint_epoch": 1,
    "validation_mean_dice": 0.1,
    "test": {name: SCORES for name in ("TC", "WT", "ET", "mean")},
}
"""As notebook 04 writes them for the checkpoint of these tests."""

RUN = """
import sys, monai.bundle
sys.modules["brats_utils"] = None  # importing it would fail
config_file, bundle_root, image, output_dir = sys.argv[1:]
monai.bundle.run(config_file=config_file, bundle_root=bundle_root, image=image, output_dir=output_dir)
"""


@pytest.fixture(scope="module")
def bundle_dir(checkpoint, tmp_path_factory):
    return export_bundle(load_checkpoint(checkpoint), tmp_path_factory.mktemp("bundle") / "model")


@pytest.mark.slow
def test_bundle_gives_the_labels_of_our_own_prediction(bundle_dir, checkpoint, phantom_dir, tmp_path):
    scan = phantom_dir / "imagesTr/PHANTOM_002.nii.gz"
    oblique = nib.load(scan).as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    nib.save(oblique, tmp_path / "scan.nii.gz")
    arguments = [bundle_dir / "configs/inference.json", bundle_dir, tmp_path / "scan.nii.gz", tmp_path / "out"]
    subprocess.run([sys.executable, "-c", RUN, *map(str, arguments)], check=True, capture_output=True)
    theirs = nib.load(tmp_path / "out/scan_seg.nii.gz")
    content = load_checkpoint(checkpoint)
    predictor = Predictor((content.build_model(),), 4.0, (32, 32, 32), MSD)
    ours = predict_scan(predictor, read_case(Case("scan", (tmp_path / "scan.nii.gz",)))).labels.numpy()
    assert np.allclose(theirs.affine, oblique.affine)
    assert len(np.unique(ours)) > 1, "nothing predicted, so nothing compared"
    assert np.array_equal(np.asanyarray(theirs.dataobj).squeeze(), ours)


def test_bundle_has_what_the_specification_asks_for(bundle_dir):
    assert torch.load(bundle_dir / "models/model.pt", weights_only=True)
    metadata = json.loads((bundle_dir / "configs/metadata.json").read_text())
    required = {
        "version",
        "changelog",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
    }
    assert required | {"task", "description", "authors", "copyright", "network_data_format"} <= set(metadata)
    assert (bundle_dir / "LICENSE").is_file()


def test_every_package_that_the_bundle_imports_is_named(bundle_dir):
    inference, metadata = (
        json.loads((bundle_dir / f"configs/{n}.json").read_text()) for n in ("inference", "metadata")
    )
    statements = ast.parse("\n".join(line.removeprefix("$") for line in inference["imports"])).body
    imported = {node.module for node in statements if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    required = set(metadata["required_packages_version"])
    assert imported <= {"torch", "numpy"} | required  # these two have fields of their own
    assert "nibabel" in required, "MONAI reads NIfTI with it"
    (installed,) = re.findall("pip install (.*)", (bundle_dir / "docs/README.md").read_text())
    assert {"monai"} | required <= set(installed.split())  # MONAI brings the two


def test_model_card_says_what_must_not_be_done_and_where_scores_come_from(bundle_dir, checkpoint):
    assert "Not for clinical use" in (bundle_dir / "docs/README.md").read_text()
    card = write_model_card(load_checkpoint(checkpoint), metrics=METRICS)
    assert "| WT | 0.500 | 0.250 to 0.750 | 3 |" in card
    few = {"WT": SCORES | {"low": None, "high": None, "cases": 2}}
    card = write_model_card(load_checkpoint(checkpoint), metrics=METRICS | {"test": few})
    assert "| WT | 0.500 | too few cases | 2 |" in card
    assert "Test scores were not given" in write_model_card(load_checkpoint(checkpoint))


def test_a_checkpoint_from_before_the_first_validation_takes_its_metrics_and_gives_valid_json(checkpoint, tmp_path):
    unscored = replace(load_checkpoint(checkpoint), mean_dice=float("nan"))
    metrics = json.loads(json.dumps(METRICS | {"validation_mean_dice": None}))  # there and back, as on disk
    export_bundle(unscored, tmp_path / "bundle", metrics=metrics)
    assert "NaN" not in (tmp_path / "bundle/configs/metadata.json").read_text()
    assert "saved before the first validation" in (tmp_path / "bundle/docs/README.md").read_text()


@pytest.mark.parametrize("changed", [{"checkpoint_epoch": 2}, {"validation_mean_dice": 0.2}], ids=str)
def test_scores_of_another_checkpoint_are_refused_before_anything_is_written(checkpoint, tmp_path, changed):
    with pytest.raises(CheckpointError, match="scores of another checkpoint"):
        export_bundle(load_checkpoint(checkpoint), tmp_path / "bundle", metrics=METRICS | changed)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("metrics", [{}, {"WT": {"dice": 0.5}}, [1]], ids=str)
def test_a_file_without_test_scores_is_refused(checkpoint, tmp_path, metrics):
    with pytest.raises(CheckpointError, match=r"expected the test scores of notebook 04 .* Give its metrics\.json"):
        export_bundle(load_checkpoint(checkpoint), tmp_path / "bundle", metrics=metrics)


@pytest.mark.parametrize("test", [[1], {"WT": 1}, {"WT": {"dice": 0.5}}, {"WT": dict.fromkeys(("dice", "low", "high", "cases"))}], ids=str)  # fmt: skip
def test_test_scores_in_part_are_refused(checkpoint, tmp_path, test):
    with pytest.raises(CheckpointError, match=r"found no complete scores of (WT|test), expected numbers for dice, low"):
        export_bundle(load_checkpoint(checkpoint), tmp_path / "bundle", metrics=METRICS | {"test": test})


def test_a_folder_with_files_is_not_overwritten(bundle_dir, checkpoint):
    with pytest.raises(CheckpointError, match="found files there"):
        export_bundle(load_checkpoint(checkpoint), bundle_dir)
