"""Prediction: sliding window and ensemble, then regions and integer labels on the scan's own grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from torch import nn

from brats_utils.bias_field import CorrectBiasd
from brats_utils.cases.checks import find_tissue
from brats_utils.cases.geometry import resample_to_grid
from brats_utils.cases.reader import Scan
from brats_utils.labels import ET, REGIONS, SCHEMAS, WT, LabelSchema, regions_to_labels
from brats_utils.model import Mirrored, choose_device, choose_precision, explain_out_of_memory
from brats_utils.post_processing import measure_removed, measure_volumes, threshold_probabilities
from brats_utils.saving.checkpoints import Checkpoint, CheckpointError
from brats_utils.transforms import build_normalisation, build_resampling
from brats_utils.uncertainty import expected_dice

OUT_OF_MEMORY_REMEDY = (
    "Close other programs, or use a machine with more memory. If that does not help, train with a smaller "
    "inference_roi_size, through `overrides`: a checkpoint keeps the window that it was trained with."
)

WINDOWS_AT_ONCE = 2
"""PyTorch computes a float32 convolution of a single small image on the CPU several times slower than of two.

Source: `use_mkldnn` in aten/src/ATen/native/Convolution.cpp of torch 2.13: batch 1 needs 20,480 numbers per slice stack."""

FLIPS = tuple(axes for count in range(4) for axes in combinations((2, 3, 4), count))
"""Axes of all eight flips of a (B, C, X, Y, Z) image, for test-time augmentation; the first flips none."""


COMMON_SETTINGS = ("spacing_mm", "inference_roi_size", "label_schema", "bias_correction")
"""Of a training, what all networks of an ensemble must share."""


@dataclass(frozen=True)
class Prediction:
    """A prediction on the voxel grid of the scan it was made from; channels and regions in the order of `REGIONS`."""

    probabilities: torch.Tensor  # (3, X, Y, Z) float32; 0 outside the brain's box
    uncertainty: torch.Tensor | None  # likewise, their standard deviation over TTA and ensemble; None for a single pass
    labels: torch.Tensor  # (X, Y, Z) uint8, nested by construction
    regions: torch.Tensor  # (3, X, Y, Z) bool, nested: ET lies in TC and TC in WT
    brain: torch.Tensor  # (X, Y, Z) bool, where any channel is not background
    expected_dice: dict[str, float]  # by region, how far it trusts itself: see `uncertainty.expected_dice`
    volumes_ml: dict[str, float]  # by region, in mL; NaN where it was not segmented, as ET without T1gd
    removed: dict[str, float]  # by post-processing: connected components as `pieces`, `ml`; ET as `ET_ml`


@dataclass(frozen=True)
class Predictor:
    """One network or several, and the settings that turn scans into labels with them."""

    models: tuple[nn.Module, ...]  # networks in evaluation mode, on one device; their probabilities are averaged
    spacing_mm: float  # voxel size they were trained at
    roi_size: tuple[int, int, int]  # sliding window in voxels
    schema: LabelSchema  # label convention of the output
    precision: torch.dtype = torch.float32  # dtype for autocast; float32 means none
    flips: bool = False  # test-time augmentation (TTA): average over all eight flips of the image. Eight times slower
    guess_enhancing: bool = False  # call enhancing tumour also without T1gd, which alone shows it
    keep_small: bool = False  # keep what `post_processing` takes for noise
    bias_correction: bool = False  # correct the bias field first, without what a first prediction calls tumour


def build_predictor(
    checkpoints: Sequence[Checkpoint], *, flips: bool = False, schema: LabelSchema | None = None
) -> Predictor:
    """Rebuild the networks of one checkpoint or several, on the best device and precision of the machine.

    For `flips` see `Predictor`; `schema` is the label convention of the output, by default that of the training.

    Raises:
        CheckpointError: if they were trained for different voxel sizes, windows, label conventions or with and without bias
            correction, miss a setting, or do not load.
    """
    config = _read_common_settings(checkpoints)
    device = choose_device()
    # channels last, a CPU convolves a third faster; group norm rounds a little more, as bfloat16 does
    layout = torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format
    networks = [_build_network(checkpoint) for checkpoint in checkpoints]
    models = tuple(network.to(device, memory_format=layout) for network in networks)  # type: ignore[call-overload]
    return Predictor(
        models=models,
        spacing_mm=config["spacing_mm"],
        roi_size=config["inference_roi_size"],
        schema=schema or SCHEMAS[config["label_schema"]],
        precision=choose_precision(device),
        flips=flips,
        bias_correction=config["bias_correction"],
    )


def _read_common_settings(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """Read what a prediction needs to know of a training; a `CheckpointError` where the checkpoints differ in it."""
    needed = []
    for checkpoint in checkpoints:
        checkpoint.check_settings()
        config = {"bias_correction": False, **checkpoint.config}  # checkpoints from before it do without
        settings = {name: config[name] for name in COMMON_SETTINGS}
        settings["inference_roi_size"] = tuple(settings["inference_roi_size"])
        needed.append(settings)
    first = needed[0]
    if any(settings != first for settings in needed):
        found = "; ".join(str(settings) for settings in needed)
        raise CheckpointError(
            f"Found checkpoints of different voxel size, window, label schema or bias correction: {found}. "
            "An ensemble needs networks that were trained alike in these."
        )
    return first


def _build_network(checkpoint: Checkpoint) -> nn.Module:
    """Rebuild a network; one of a bundle that was trained on other axes than RAS sees what it is given mirrored."""
    axes = checkpoint.config.get("axes", "RAS")
    model = checkpoint.build_model()
    return model if axes == "RAS" else Mirrored(model, axes=axes)


def predict_logits(
    model: nn.Module, image: torch.Tensor, *, roi_size: tuple[int, int, int], precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Run the network over whole volumes, in overlapping windows weighted towards their centres.

    A GPU has time to spare, so its windows overlap by half; on a CPU by a quarter.

    Args:
        model: network in evaluation mode.
        image: (B, 4, X, Y, Z) float32, z-scored, on the model's device.
        roi_size: window in voxels; one that is larger than the volume means a single, padded pass.
        precision: dtype for autocast; float32 means none.

    Returns:
        (B, 3, X, Y, Z) float32 logits; above 0 means a probability above .5.
    """
    overlap = 0.25 if image.device.type == "cpu" else 0.5
    mixed = torch.autocast(image.device.type, precision, enabled=precision != torch.float32)
    with explain_out_of_memory(OUT_OF_MEMORY_REMEDY), torch.inference_mode(), mixed:
        logits: torch.Tensor = sliding_window_inference(  # type: ignore[assignment]  # one output, so no tuple
            image, roi_size, sw_batch_size=WINDOWS_AT_ONCE, predictor=model, overlap=overlap, mode="gaussian"
        )
    return logits.float()


def predict_members(predictor: Predictor, image: torch.Tensor) -> Iterator[torch.Tensor]:
    """Predict an image, (4, X, Y, Z) float32 and z-scored, once for each network and flip.

    Yields:
        (3, X, Y, Z) float32 probabilities on the CPU, mirrored back.
    """
    for model in predictor.models:
        batch = image[None].to(next(model.parameters()).device)
        for axes in FLIPS if predictor.flips else FLIPS[:1]:
            logits = predict_logits(model, batch.flip(axes), roi_size=predictor.roi_size, precision=predictor.precision)
            yield logits.sigmoid().flip(axes)[0].cpu()


def predict_mean(predictor: Predictor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Average what `predict_members` gives for an image.

    Returns:
        (3, X, Y, Z) float32 mean of the probabilities, and their standard deviation; None for a single pass.
    """
    shape = (len(REGIONS), *image.shape[1:])
    total = torch.zeros(shape)
    squares = torch.zeros(shape)
    count = 0
    for probability in predict_members(predictor, image):
        total = total + probability
        squares = squares + probability**2
        count += 1
    mean = total / count
    if count == 1:
        return mean, None
    variance = squares / count - mean**2
    return mean, variance.clamp(min=0).sqrt()


def prepare_image(predictor: Predictor, image: MetaTensor) -> MetaTensor:
    """Bring an image as `Scan.tensors` has it to the form that the networks take, (4, X, Y, Z) float32, z-scored.

    Where the bias field is corrected, a single pass over the uncorrected image finds the tumour that is left out of its
    estimate.
    """
    data = build_resampling(predictor.spacing_mm)({"image": image})
    normalise = build_normalisation()
    if predictor.bias_correction:
        uncorrected = normalise({"image": data["image"].clone()})["image"]
        mean, _ = predict_mean(replace(predictor, flips=False), uncorrected.as_tensor())
        tumour = mean[REGIONS.index(WT)][None] > 0.5
        data = CorrectBiasd(predictor.spacing_mm)({**data, "tumour": tumour})
    prepared: MetaTensor = normalise(data)["image"]
    return prepared


def predict_scan(predictor: Predictor, scan: Scan) -> Prediction:
    """Predict one patient, from files to labels on the files' own voxel grid.

    The affine of the preprocessed image leads back: the probabilities are resampled to the
    original grid in one step, whatever was cropped, reoriented or rescaled, and only then thresholded.
    """
    prepared = prepare_image(predictor, scan.tensors["image"])
    mean, deviation = predict_mean(predictor, prepared.as_tensor())
    probabilities = resample_to_grid(mean, prepared.affine, onto=scan.image)
    uncertainty = None if deviation is None else resample_to_grid(deviation, prepared.affine, onto=scan.image)
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    et_is_visible = scan.missing != "T1gd" or predictor.guess_enhancing
    segmented = [region is not ET or et_is_visible for region in REGIONS]
    thresholded, regions = threshold_probabilities(
        probabilities, segmented, voxel_ml=voxel_ml, keep_small=predictor.keep_small
    )
    return Prediction(
        probabilities=probabilities,
        uncertainty=uncertainty,
        labels=regions_to_labels(regions, predictor.schema),
        regions=regions,
        brain=find_tissue(scan.image),
        expected_dice=expected_dice(probabilities, regions),
        volumes_ml=measure_volumes(regions, segmented, voxel_ml=voxel_ml),
        removed=measure_removed(thresholded & ~regions, voxel_ml=voxel_ml),
    )
