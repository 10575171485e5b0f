"""Pictures of raw scans, in axial slices of their own voxels."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure

from brats_utils.labels import WT
from brats_utils.raw.picture import mix_tiles

SIDES = "the patient's right on the left of the picture, anterior up"


def plot_raw(images: Mapping[str, sitk.Image], labels: Mapping[str, sitk.Image] | None = None) -> Figure:
    """Show one slice of each scan: the one with most of its label, outlined, or without labels the middle one.

    Args:
        images: scans by channel, with axes in any order and direction.
        labels: by channel, on the grids of the images; above 0 is outlined.
    """
    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3.9), layout="constrained", squeeze=False)
    figure.suptitle(f"axial: {SIDES}", size=10)
    for axis, (channel, scan) in zip(axes[0], images.items(), strict=True):
        image = sitk.DICOMOrient(scan, "LPS")
        values = sitk.GetArrayFromImage(image)
        inside = np.zeros(values.shape, bool)
        if labels:
            inside = sitk.GetArrayFromImage(sitk.DICOMOrient(labels[channel], "LPS")) > 0
        slice_idx = int(inside.sum(axis=(1, 2)).argmax()) if inside.any() else len(values) // 2
        axis.imshow(_window(values)[slice_idx], cmap="gray", aspect=_aspect(image))
        if inside.any():
            axis.contour(inside[slice_idx], levels=[0.5], colors=[WT.color], linewidths=1.2)
        axis.set_title(f"{channel}, slice {slice_idx} of {len(values)}", fontsize=10)
        axis.set_axis_off()
    return figure


def plot_tiles(moved: Mapping[str, sitk.Image], fixed: sitk.Image) -> Figure:
    """Show checkerboards of a scan with others on its grid, the middle slice: where both fit, edges run on.

    `moved` are those others, by what to call them.
    """
    figure, axes = plt.subplots(1, len(moved), figsize=(3.6 * len(moved), 4.6), layout="constrained", squeeze=False)
    figure.suptitle(f"axial: {SIDES}", size=10)
    upright = sitk.DICOMOrient(fixed, "LPS")
    slice_idx = upright.GetSize()[2] // 2
    below = _window(sitk.GetArrayFromImage(upright))[slice_idx]
    for axis, (title, image) in zip(axes[0], moved.items(), strict=True):
        above = _window(sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")))[slice_idx]
        axis.imshow(mix_tiles(above, below), cmap="gray", aspect=_aspect(upright))
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    return figure


def _window(values: np.ndarray) -> np.ndarray:
    """From 0 to 1, without the few brightest, which would leave all else in the dark."""
    return np.clip(values / max(float(np.percentile(values, 99.5)), 1e-6), 0, 1)


def _aspect(image: sitk.Image) -> float:
    """Of a voxel in a slice, height to width."""
    return float(image.GetSpacing()[1] / image.GetSpacing()[0])
