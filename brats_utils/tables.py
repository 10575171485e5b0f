"""Weights & Biases tables: one row a slice, with overlays that the reader can switch on and off."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import wandb
from tqdm import tqdm

from brats_utils.labels import CHANNELS, REGIONS
from brats_utils.views import tumour_slices, upright_slice, window_volume

DATA_TABLE = "Tumor-Segmentation-Data"
PREDICTION_TABLE = "Predictions/Tumor-Segmentation-Data"
ROW_HEADER = ["Split", "Data Index", "Slice Index"]

Masks = dict[str, wandb.data_types.ImageMask]


@dataclass(frozen=True)
class TableCase:
    """A case to be shown.

    Attributes:
        split: `train`, `val` or `test`.
        index: number of the case within its split.
        image: (4, X, Y, Z) float in RAS orientation.
        truth: (3, X, Y, Z) bool.
        prediction: (3, X, Y, Z) bool, for prediction tables.
    """

    split: str
    index: int
    image: torch.Tensor
    truth: torch.Tensor
    prediction: torch.Tensor | None = None


def build_masks(regions: np.ndarray, group: str) -> Masks:
    """Turn the regions of a slice into mask layers, one a region.

    Args:
        regions: (3, Y, X) bool.
        group: `ground-truth` or `prediction`; the layers are called `<group>/<Region>`.
    """
    masks = {}
    for label, (region, mask) in enumerate(zip(REGIONS, regions, strict=True), start=1):
        name = f"{group}/{region.title}"
        data = {"mask_data": mask.astype(np.uint8) * label, "class_labels": {label: region.title}}
        masks[name] = wandb.data_types.ImageMask(data, name)
    return masks


def build_slice_image(grey: np.ndarray, masks: Mapping[str, wandb.data_types.ImageMask]) -> wandb.Image:
    """Build one picture with its layers.

    Args:
        grey: (Y, X) uint8; floats would be cut off, not scaled.
        masks: layers from `build_masks`; sharing them between the channels of a slice writes them once.

    Raises:
        ValueError: if `grey` is not 8-bit.
    """
    if grey.dtype != np.uint8:
        raise ValueError(f"Found a slice of {grey.dtype}, expected uint8. Pass the volume through window_volume first.")
    return wandb.Image(grey, masks=dict(masks), mode="L")


def build_data_table(cases: Iterable[TableCase], *, margin: int = 2, stride: int = 1) -> wandb.Table:
    """Build the table of data: each channel of each slice, with the true regions as layers.

    Args:
        cases: what to show; taken one at a time, so a generator keeps one volume in memory.
        margin: slices to add below and above the tumour.
        stride: take every n-th slice.

    Returns:
        Columns Split, Data Index, Slice Index, Image-Channel-0 to 3.
    """
    table = wandb.Table(columns=[*ROW_HEADER, *(f"Image-Channel-{channel}" for channel in range(len(CHANNELS)))])
    for case in tqdm(cases, desc="Data table"):
        grey = window_volume(case.image)
        for slice_idx in tumour_slices(case.truth, margin=margin, stride=stride):
            masks = build_masks(upright_slice(case.truth.cpu().numpy(), slice_idx), "ground-truth")
            pictures = [build_slice_image(picture, masks) for picture in upright_slice(grey, slice_idx)]
            table.add_data(case.split, case.index, slice_idx, *pictures)
    return table


def build_prediction_table(cases: Iterable[TableCase], *, margin: int = 2, stride: int = 1) -> wandb.Table:
    """Build the table of predictions: for each region its four channels, with truth and prediction as layers.

    Args:
        cases: what to show, with their predictions; taken one at a time.
        margin: slices to add below and above the tumour, true or predicted.
        stride: take every n-th slice.

    Returns:
        Columns Split, Data Index, Slice Index, then Image-Channel-0/Tumor-Core to
        Image-Channel-3/Enhancing-Tumor. Header and cells come from the same loop over regions and channels.
    """
    places = [(region, channel) for region in range(len(REGIONS)) for channel in range(len(CHANNELS))]
    header = [f"Image-Channel-{channel}/{REGIONS[region].title}" for region, channel in places]
    table = wandb.Table(columns=[*ROW_HEADER, *header])
    for case in tqdm(cases, desc="Prediction table"):
        if case.prediction is None:
            raise ValueError(
                f"{case.split} case {case.index}: found no prediction, expected one for this table. "
                "Give TableCase a prediction, or use build_data_table."
            )
        grey = window_volume(case.image)
        for slice_idx in tumour_slices(case.truth | case.prediction, margin=margin, stride=stride):
            pictures = upright_slice(grey, slice_idx)
            truth = build_masks(upright_slice(case.truth.cpu().numpy(), slice_idx), "ground-truth")
            predicted = build_masks(upright_slice(case.prediction.cpu().numpy(), slice_idx), "prediction")
            pairs = list(zip(truth.items(), predicted.items(), strict=True))  # by region
            cells = [build_slice_image(pictures[channel], dict(pairs[region])) for region, channel in places]
            table.add_data(case.split, case.index, slice_idx, *cells)
    return table
