"""Weights & Biases tables: one row per slice, with overlays that can be switched on and off."""

from collections.abc import Iterable

import numpy as np
import torch
import wandb
from tqdm import tqdm

from brats_utils.labels import CHANNELS, REGIONS
from brats_utils.report.page import ReportCase
from brats_utils.report.slices import select_slices, tumour_slices, upright_slice, window_volume

DATA_TABLE = "Tumor-Segmentation-Data"
PREDICTION_TABLE = "Predictions/Tumor-Segmentation-Data"
ROW_HEADER = ["Split", "Data Index", "Slice Index"]
SLICE_DISTANCE_MM = 6.0
"""From one picture to the next, about as far as between the slices of a clinical scan: a dozen for a usual tumour."""

Masks = dict[str, wandb.data_types.ImageMask]
TableCase = tuple[str, int, ReportCase]
"""Where a case comes from (`train`, `val` or `test`), its number there, and what is shown of it."""


def choose_stride(spacing_mm: float) -> int:
    """Pick every n-th slice of a volume, so that pictures are about `SLICE_DISTANCE_MM` apart."""
    return max(1, round(SLICE_DISTANCE_MM / spacing_mm))


def build_masks(regions: np.ndarray, group: str, *, empty: Masks | None = None) -> Masks:
    """Turn the regions of a slice, (3, Y, X) bool, into mask layers: one per region, called `<group>/<Region>`.

    `group` is `ground-truth` or `prediction`. The empty layers of a volume are made once and kept in `empty`.
    """
    masks: Masks = {}
    for label, (region, mask) in enumerate(zip(REGIONS, regions, strict=True), start=1):
        name = f"{group}/{region.title}"
        data = {"mask_data": mask.astype(np.uint8) * label, "class_labels": {label: region.title}}
        shared = empty if empty is not None and not mask.any() else masks
        if name not in shared:
            shared[name] = wandb.data_types.ImageMask(data, name)
        masks[name] = shared[name]
    return masks


def build_slice_image(grey: np.ndarray, masks: Masks | None = None) -> wandb.Image:
    """Build one picture of (Y, X) uint8, with layers from `build_masks`; channels that share these write them once.

    Raises:
        ValueError: if `grey` is not 8-bit: floats would be cut off, not scaled.
    """
    if grey.dtype != np.uint8:
        raise ValueError(f"Found a slice of {grey.dtype}, expected uint8. Pass the volume through window_volume first.")
    return wandb.Image(grey, masks=masks, mode="L")


def build_data_table(cases: Iterable[TableCase], *, margin: int = 2, stride: int = 1) -> wandb.Table:
    """Build the table of data: each channel of each slice, with the true regions as layers.

    Cases are taken one at a time, so a generator keeps one volume in memory; their slices are those of `tumour_slices`.
    Gives the columns Split, Data Index, Slice Index, Image-Channel-0 to 3.
    """
    table = wandb.Table(columns=[*ROW_HEADER, *(f"Image-Channel-{channel}" for channel in range(len(CHANNELS)))])
    _say_slices(margin, stride)
    for split, index, case in tqdm(cases, desc="Data table"):
        slices = tumour_slices(case.truth, margin=margin, stride=stride)
        grey, truth = window_volume(case.image, slices), select_slices(case.truth.cpu().numpy(), slices)
        empty: Masks = {}
        for n, slice_idx in enumerate(slices):
            masks = build_masks(upright_slice(truth, n), "ground-truth", empty=empty)
            pictures = [build_slice_image(picture, masks) for picture in upright_slice(grey, n)]
            table.add_data(split, index, slice_idx, *pictures)
    return table


def build_prediction_table(cases: Iterable[TableCase], *, margin: int = 2, stride: int = 1) -> wandb.Table:
    """Build the table of predictions: for each region its four channels, with truth and prediction as layers.

    Cases and slices are taken as for the table of data; the tumour is the true and the predicted one. Gives the columns
    Split, Data Index, Slice Index, then Image-Channel-0/Tumor-Core to Image-Channel-3/Enhancing-Tumor.
    """
    places = [(region, channel) for region in range(len(REGIONS)) for channel in range(len(CHANNELS))]
    header = [f"Image-Channel-{channel}/{REGIONS[region].title}" for region, channel in places]
    table = wandb.Table(columns=[*ROW_HEADER, *header])
    _say_slices(margin, stride)
    for split, index, case in tqdm(cases, desc="Prediction table"):
        if case.prediction is None:
            raise ValueError(
                f"{split} case {index}: found no prediction, expected one for this table. Give one, or use build_data_table."
            )
        slices = tumour_slices(case.truth | case.prediction, margin=margin, stride=stride)
        grey = window_volume(case.image, slices)
        truth, predicted = (select_slices(m.cpu().numpy(), slices) for m in (case.truth, case.prediction))
        empty: Masks = {}
        for n, slice_idx in enumerate(slices):
            pictures = [build_slice_image(picture) for picture in upright_slice(grey, n)]
            layers = [build_masks(upright_slice(truth, n), "ground-truth", empty=empty)]
            layers.append(build_masks(upright_slice(predicted, n), "prediction", empty=empty))
            pairs = list(zip(*(masks.items() for masks in layers), strict=True))  # by region
            # from a picture and not from its pixels, which would be written again for each region
            cells = [wandb.Image(pictures[channel], masks=dict(pairs[region])) for region, channel in places]
            table.add_data(split, index, slice_idx, *cells)
    return table


def build_confusion_table(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> wandb.Table:
    """Count for each region the true positives, false negatives and false positives of the predictions.

    Takes prediction and truth of each case, (3, X, Y, Z) bool. Gives one row per region: voxels of all cases together,
    then sensitivity, the share of the true region that was found, and precision, the share of the prediction that is
    true; None for 0 of 0.
    """
    counts = torch.zeros(len(REGIONS), 3, dtype=torch.int64)
    for prediction, truth in pairs:
        parts = (prediction & truth, ~prediction & truth, prediction & ~truth)
        counts += torch.stack([part.flatten(1).sum(1) for part in parts], dim=1).cpu()
    table = wandb.Table(
        columns=["Region", "True positive", "False negative", "False positive", "Sensitivity", "Precision"]
    )
    for region, (hits, misses, false_alarms) in zip(REGIONS, counts.tolist(), strict=True):
        shares = [round(hits / whole, 4) if whole else None for whole in (hits + misses, hits + false_alarms)]
        table.add_data(region.title, hits, misses, false_alarms, *shares)
    return table


def _say_slices(margin: int, stride: int) -> None:
    print(f"Slices: tumour ±{margin}, {'every slice' if stride == 1 else f'one in {stride}'}.")
