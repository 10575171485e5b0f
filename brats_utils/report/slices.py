"""How a volume becomes a picture: one grey window a volume, upright slices, and which slices to show."""

from collections.abc import Sequence

import numpy as np
import torch

from brats_utils.labels import ET, REGIONS, TC, WT

ORIENTATION = "axial, radiological: patient's right on the left, anterior up"
"""Caption of every axial picture made from `upright_slice`."""

NESTING = [REGIONS.index(region) for region in (WT, TC, ET)]
"""From the outside in: the inner region is painted over the outer one."""


def window_volume(image: torch.Tensor, slices: Sequence[int] | None = None) -> np.ndarray:
    """Scale every channel to 8-bit grey with one window for the whole volume, so that slices do not flicker.

    The window runs from percentile .5 to 99.5 of the non-zero voxels, estimated on every fourth
    voxel of each axis. The background stays black.

    `image` is (C, X, Y, Z) float of any scale, 0 is background; `slices` are the N indices along Z to scale, None for all.
    Gives (C, X, Y, N) uint8.
    """
    volume = image.detach().cpu().float().numpy()
    values = select_slices(volume, range(volume.shape[-1]) if slices is None else slices)
    grey = np.zeros_like(values, dtype=np.uint8)
    for channel in range(len(volume)):
        sample = volume[channel, ::4, ::4, ::4]
        sample = sample[sample != 0]
        if sample.size == 0:
            continue
        low, high = np.percentile(sample, [0.5, 99.5]).tolist()  # plain floats keep the volume in float32
        scaled = (values[channel] - low) * (255 / max(high - low, 1e-6))
        grey[channel] = np.clip(scaled, 0, 255, out=scaled) * (values[channel] != 0)
    return grey


def select_slices(volume: np.ndarray, slices: Sequence[int]) -> np.ndarray:
    """Copy N slices of (..., X, Y, Z) to (..., X, Y, N), each in one piece in memory: cutting them is then quick."""
    return np.moveaxis(np.stack([volume[..., index] for index in slices]), 0, -1)


def upright_slice(volume: np.ndarray, slice_idx: int) -> np.ndarray:
    """Cut an axial slice out of (..., X, Y, Z) in RAS orientation and turn it the way radiologists look at it.

    Gives (..., Y, X): rows from anterior to posterior, columns from the patient's right to left. Slice 0 is at the neck.
    """
    axial = volume[..., slice_idx]
    return np.ascontiguousarray(np.swapaxes(axial[..., ::-1, ::-1], -1, -2))


def tumour_slices(regions: torch.Tensor, *, margin: int = 2, stride: int = 1) -> list[int]:
    """List the axial slices worth showing: those with tumour, and `margin` more on either side; of these every n-th.

    `regions` is (R, X, Y, Z) bool; of several masks, any counts. Gives indices along Z; the middle slice alone where
    there is no tumour.
    """
    depth = regions.shape[-1]
    with_tumour = np.flatnonzero(regions.cpu().numpy().any((0, 1, 2))).tolist()
    if not with_tumour:
        return [depth // 2]
    first, last = max(with_tumour[0] - margin, 0), min(with_tumour[-1] + margin, depth - 1)
    return list(range(first, last + 1, stride))


def largest_slice(regions: torch.Tensor) -> int:
    """Find the axial slice of (R, X, Y, Z) bool with the most tumour; the middle one where there is none."""
    area = regions.any(0).sum(dim=(0, 1))
    return int(area.argmax()) if int(area.max()) > 0 else regions.shape[-1] // 2
