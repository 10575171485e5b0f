"""Hand a trained network over: a MONAI bundle that runs without this package.

Source: the MONAI Bundle Specification, docs.monai.io/en/stable/mb_specification.html. MONAI Label and MONAI Deploy
take the keys `network_def`, `preprocessing`, `inferer` and `postprocessing` of `inference.json` from there.
"""

import json
import math
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from brats_utils.commands.model_card import write_model_card
from brats_utils.labels import CHANNELS, REGIONS, SCHEMAS, LabelSchema
from brats_utils.paths import REPOSITORY, display_path, replacing, write_text
from brats_utils.post_processing import MIN_ENHANCING_ML, MIN_TUMOUR_ML
from brats_utils.saving.checkpoints import Checkpoint, CheckpointError


def export_bundle(checkpoint: Checkpoint, bundle_dir: Path, *, metrics: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint, of notebook 03, as a MONAI bundle, and give its folder.

    It needs MONAI, nibabel and SciPy alone: `monai.bundle.run(config_file=…, bundle_root=…, image=…, output_dir=…)`, or, with
    the package `fire`, `python -m monai.bundle run` with the same names. One 4D scan, or a list of four files, gives
    `<name>_seg.nii.gz` in the scan's own geometry.

    The model card takes its scores from `metrics`, the content of notebook 04's `metrics.json`.

    Raises:
        CheckpointError: the folder holds something already, the metrics are no test scores of this checkpoint, or a
            setting is missing.
    """
    if bundle_dir.exists() and any(bundle_dir.iterdir()):
        raise CheckpointError(f"{display_path(bundle_dir)}: found files there, expected a new or empty folder.")
    card = write_model_card(checkpoint, metrics=metrics)
    schema = SCHEMAS[checkpoint.config["label_schema"]]
    with replacing(bundle_dir / "models" / "model.pt") as temporary:
        torch.save(dict(checkpoint.model), temporary)
    write_text(bundle_dir / "configs" / "inference.json", json.dumps(_describe_inference(checkpoint, schema), indent=2))
    write_text(bundle_dir / "configs" / "metadata.json", json.dumps(_describe_model(checkpoint, schema), indent=2))
    write_text(bundle_dir / "docs" / "README.md", card)
    if (REPOSITORY / "LICENSE").is_file():
        shutil.copyfile(REPOSITORY / "LICENSE", bundle_dir / "LICENSE")
    return bundle_dir


def _describe_inference(checkpoint: Checkpoint, schema: LabelSchema) -> dict[str, Any]:
    """The content of `inference.json`: the steps of `inference.predict_scan` without flips, in MONAI's own words."""
    config = checkpoint.config
    voxel_ml = "abs(float(torch.linalg.det(p.affine[:3, :3]))) / 1000"
    remove_small = (
        "$lambda p: (lambda found: p * torch.as_tensor((found > 0) & (np.bincount(found.ravel()) * "
        f"{voxel_ml} >= {MIN_TUMOUR_ML})[found]))(ndimage.label((p > 0.5).any(0).numpy(), np.ones((3, 3, 3)))[0])"
    )
    to_labels = (
        f"$lambda p: torch.where((p[2:] > 0.5) & ((p[2:] > 0.5).sum() * {voxel_ml} >= {MIN_ENHANCING_ML}), "
        f"{schema.enhancing}, torch.where((p[:1] > 0.5) | (p[2:] > 0.5), {schema.necrotic}, "
        f"torch.where(p[1:2] > 0.5, {schema.edema}, 0)))"
    )
    predict = "$@postprocessing({**@sample, 'pred': @inferer(@sample['image'][None].to(@device), @network)[0].cpu()})"
    return {
        "imports": ["$import numpy as np", "$import torch", "$from scipy import ndimage"],
        "bundle_root": ".",
        "image": "scan.nii.gz",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "SegResNet", "spatial_dims": 3, "in_channels": len(CHANNELS), "out_channels": len(REGIONS),
            "init_filters": config["init_filters"], "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1],
            "dropout_prob": config["dropout_prob"],
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "image_only": True},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "CopyItemsd", "keys": "image", "names": "original"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "select_fn": "$lambda x: x != 0"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [config["spacing_mm"]] * 3, "mode": "bilinear"},
                {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer", "roi_size": list(config["inference_roi_size"]), "sw_batch_size": 2,
            "overlap": 0.25, "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {"_target_": "ResampleToMatchd", "keys": "pred", "key_dst": "original", "mode": "bilinear", "padding_mode": "zeros"},
                {"_target_": "Lambdad", "keys": "pred", "func": remove_small},
                {"_target_": "Lambdad", "keys": "pred", "func": to_labels},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg",
                 "output_dtype": "$torch.uint8", "separate_folder": False, "resample": False},
            ],
        },
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device, weights_only=True)",
        "sample": "$@preprocessing({'image': @image})",
        "predict": predict,
        "run": ["$@network.load_state_dict(@weights)", "$@network.eval()", "$torch.set_grad_enabled(False)", "$@predict"],
    }  # fmt: skip


def _describe_model(checkpoint: Checkpoint, schema: LabelSchema) -> dict[str, Any]:
    """The content of `metadata.json`."""
    names = [region.name for region in REGIONS]
    image = {"type": "image", "format": "magnitude", "modality": "MR", "num_channels": len(CHANNELS)}
    masks = {"type": "image", "format": "segmentation", "num_channels": len(REGIONS)}
    patch = {"spatial_shape": ["8*n"] * 3, "dtype": "float32", "is_patch_data": True}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": version("brats-utils"),
        "changelog": {version("brats-utils"): "exported from the tutorial"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in ("nibabel", "scipy")},
        "name": "Brain tumour segmentation",
        "task": "Multi-label 3D segmentation of brain tumours in MRI",
        "description": "SegResNet of a tutorial. Not for clinical use.",
        "authors": "the authors of the tutorial",
        "copyright": "Apache-2.0",
        "data_source": Path(checkpoint.config["dataset_dir"]).name,
        "data_type": "nifti",
        "image_classes": "4 channels: " + ", ".join(CHANNELS),
        "label_classes": "1 channel, integers: " + ", ".join(f"{v} {t}" for v, t in schema.tissues.items()),
        "pred_classes": "3 channels: " + ", ".join(names),
        "eval_metrics": {} if math.isnan(checkpoint.mean_dice) else {"validation_mean_dice": checkpoint.mean_dice},
        "intended_use": "Teaching. Not for clinical use.",
        "network_data_format": {
            "inputs": {"image": {**image, **patch, "value_range": [], "channel_def": dict(enumerate(CHANNELS))}},
            "outputs": {"pred": {**masks, **patch, "value_range": [0, 1], "channel_def": dict(enumerate(names))}},
        },
    }
