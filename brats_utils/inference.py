"""Prediction: sliding window and ensemble, then regions and integer labels on the scan's own grid."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from scipy import ndimage
from torch import nn

from brats_utils.bias_field import CorrectBiasd
from brats_utils.cases.checks import find_tissue
from brats_utils.cases.geometry import resample_to_grid
from brats_utils.cases.reader import Scan
from brats_utils.labels import ET, REGIONS, SCHEMAS, WT, LabelSchema, regions_to_labels
from brats_utils.model import Mirrored, choose_device, choose_precision, explain_out_of_memory
from brats_utils.post_processing import threshold_probabilities
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
    for checkpoint in checkpoints:
        checkpoint.check_settings()
    needed = [
        (
            c.config["spacing_mm"],
            tuple(c.config["inference_roi_size"]),
            c.config["label_schema"],
            c.config.get("bias_correction", False),  # checkpoints from before it do without
        )
        for c in checkpoints
    ]
    if len(set(needed)) != 1:
        raise CheckpointError(
            f"Found checkpoints of different voxel size, window, label schema or bias correction: {sorted(set(needed))}. "
            "An ensemble needs networks that were trained alike in these."
        )
    (spacing_mm, roi_size, schema_name, bias_correction), device = needed[0], choose_device()
    # channels last, a CPU convolves a third faster; group norm rounds a little more, as bfloat16 does
    layout = torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format
    models = tuple(_face(c).to(device, memory_format=layout) for c in checkpoints)  # type: ignore[call-overload]
    return Predictor(
        models,
        spacing_mm,
        roi_size,
        schema or SCHEMAS[schema_name],
        choose_precision(device),
        flips,
        bias_correction=bias_correction,
    )


def _face(checkpoint: Checkpoint) -> nn.Module:
    """Rebuild a network; one of a bundle that was trained on other axes than RAS sees what it is given mirrored."""
    axes, model = checkpoint.config.get("axes", "RAS"), checkpoint.build_model()
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


def prepare_image(predictor: Predictor, image: MetaTensor) -> MetaTensor:
    """Bring an image as `Scan.tensors` has it to the form that the networks take, (4, X, Y, Z) float32, z-scored.

    Where the bias field is corrected, a single pass over the uncorrected image finds the tumour that is left out of its
    estimate.
    """
    data = build_resampling(predictor.spacing_mm)({"image": image})
    normalise = build_normalisation()
    if predictor.bias_correction:
        plain = normalise({"image": data["image"].clone()})["image"]
        passes = list(predict_members(replace(predictor, flips=False), plain.as_tensor()))
        whole = torch.stack(passes).mean(0)[REGIONS.index(WT)][None]
        data = CorrectBiasd(predictor.spacing_mm)({**data, "tumour": whole > 0.5})
    prepared: MetaTensor = normalise(data)["image"]
    return prepared


def predict_scan(predictor: Predictor, scan: Scan) -> Prediction:
    """Predict one patient, from files to labels on the files' own voxel grid.

    The affine of the preprocessed image leads back: the probabilities are resampled to the
    original grid in one step, whatever was cropped, reoriented or rescaled, and only then thresholded.
    """
    prepared = prepare_image(predictor, scan.tensors["image"])
    shape = (len(REGIONS), *prepared.shape[1:])
    total, squares, count = torch.zeros(shape), torch.zeros(shape), 0
    for probability in predict_members(predictor, prepared.as_tensor()):
        total, squares, count = total + probability, squares + probability**2, count + 1
    mean = total / count
    probabilities = resample_to_grid(mean, prepared.affine, onto=scan.image)
    uncertainty = None
    if count > 1:
        uncertainty = resample_to_grid(
            (squares / count - mean**2).clamp(min=0).sqrt(), prepared.affine, onto=scan.image
        )
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    sought = [region is not ET or scan.missing != "T1gd" or predictor.guess_enhancing for region in REGIONS]
    every, regions = threshold_probabilities(probabilities, sought, voxel_ml=voxel_ml, keep_small=predictor.keep_small)
    _, tumour, enhancing = every & ~regions
    pieces = ndimage.label(tumour.numpy(), np.ones((3, 3, 3)))[1]
    removed = {"pieces": pieces, "ml": float(tumour.sum()) * voxel_ml, "ET_ml": float(enhancing.sum()) * voxel_ml}
    volumes_ml = {
        region.name: float(mask.sum()) * voxel_ml if looked_for else math.nan
        for region, mask, looked_for in zip(REGIONS, regions, sought, strict=True)
    }
    labels = regions_to_labels(regions, predictor.schema)
    brain = find_tissue(scan.image)
    expected = expected_dice(probabilities, regions)
    return Prediction(probabilities, uncertainty, labels, regions, brain, expected, volumes_ml, removed)
