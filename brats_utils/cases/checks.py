"""What looks wrong in a scan, found in its grey values."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

BRAIN_ML = (700, 2300)
"""Plausible volume of the foreground. Source: brains of 1246 to 1728 mL in 16 scans of BraTS, with room for crops."""

MAX_SPACING_MM = 4.0
"""Coarser voxels get a warning."""

COSTS = {
    "FLAIR": "It shows edema best, so the outline of the whole tumour is less certain.",
    "T1w": "Blood that is bright by itself may pass for enhancing tumour.",
    "T1gd": "It alone shows contrast agent, so enhancing tumour cannot be told from the rest of the core.",
    "T2w": "It shows fluid best, so edema, cysts and necrosis are less certain.",
}
"""What a missing channel costs."""


def find_tissue(image: torch.Tensor) -> torch.Tensor:
    """Tell the brain from the background, which is exactly 0 in every channel: (C, X, Y, Z) to (X, Y, Z) bool."""
    return torch.from_numpy(np.logical_or.reduce(image.numpy() != 0))  # many times faster than torch's any


def find_background(channel: np.ndarray) -> float | None:
    """Find a constant background that is not 0 in (X, Y, Z) float32: most voxels of the faces have it, and the rest varies."""
    sides = channel[0], channel[-1], channel[:, 0], channel[:, -1], channel[..., 0], channel[..., -1]
    faces = np.concatenate([side.ravel() for side in sides])
    value = float(np.median(faces))
    most = 1e-5 * (channel.max() - channel.min())
    if value == 0 or (np.abs(faces - value) <= most).mean() <= 0.5:
        return None
    return value if np.ptp(channel[np.abs(channel - value) > most]) > 0 else None


def find_warnings(values: np.ndarray, names: Sequence[str], *, spacing_mm: Sequence[float]) -> Iterator[str]:
    """Warn of what is unusual for a skull-stripped scan of a brain, with the evidence.

    Args:
        values: (C, x, y, z) float32, 0 in the background, cut to the brain.
        names: of the C channels, which are those of `labels.CHANNELS` that are there, in its order.
        spacing_mm: size of a voxel along X, Y and Z.
    """
    counts = zip(names, (int(np.count_nonzero(channel < 0)) for channel in values), strict=True)
    negative = {channel: count for channel, count in counts if count}
    if negative:
        listed = ", ".join(f"{channel} {count}" for channel, count in negative.items())
        yield f"Found negative values ({listed} voxels). They are kept; only exact zeros count as background."
    if max(spacing_mm) > MAX_SPACING_MM + 1e-3:
        yield f"Found voxels of {' x '.join(f'{s:g}' for s in spacing_mm)} mm. Small lesions are lost in slices over {MAX_SPACING_MM:g} mm."
    tissue = values != 0
    brain = int(np.count_nonzero(np.logical_or.reduce(tissue)))
    volume = brain * float(np.prod(spacing_mm)) / 1000
    least, most = BRAIN_ML
    if not least <= volume <= most:
        skull = "Is the skull still there? Strip it first, for instance with HD-BET or SynthStrip."
        part = "Either most of it was not scanned, or the voxel size in the header is wrong."
        found = f"Found {volume:.0f} mL of foreground, expected a brain of {least} to {most} mL."
        yield f"{found} {skull if volume > most else part}"
    for index, channel in enumerate(names):
        cut = 1 - int(np.count_nonzero(tissue[index])) / brain
        if cut > 0.02:
            yield f"{channel}: {100 * cut:.0f}% of the brain are 0 here but not in other channels; its view is cut."
        highest = values[index].max() or values[index][values[index] < 0].max()  # 0 is background
        share = np.count_nonzero(values[index] == highest) / np.count_nonzero(tissue[index])
        if share > 0.001:
            yield (
                f"{channel}: {100 * share:.1f}% of its voxels have the highest value, {highest:g}: cut off at the scanner "
                "or in a conversion. Bright tissue has lost its contrast."
            )
    yield from _find_swaps(values, names, np.logical_and.reduce(tissue))


def _find_swaps(values: np.ndarray, names: Sequence[str], brain: np.ndarray) -> Iterator[str]:
    """Warn where intensities contradict the order of the channels. Limits: see docs/inference.md."""
    step = max(1, round((np.count_nonzero(brain) / 300_000) ** (1 / 3)))
    sample = values[:, ::step, ::step, ::step][:, brain[::step, ::step, ::step]].astype(float)
    if sample.shape[1] < 1000 or (sample.std(axis=1) == 0).any():
        return
    z = {name: (channel - channel.mean()) / channel.std() for name, channel in zip(names, sample, strict=True)}
    for channel, usual, margin in (("T1gd", "T1w", 0.15), ("T2w", "FLAIR", 0.1)):
        others = z.keys() - {channel} if channel in z else ()
        alike = {other: float(np.corrcoef(z[channel], z[other])[0, 1]) for other in others}
        partner = max(alike, key=lambda other: alike[other], default=usual)
        if usual in alike and alike[partner] > alike[usual] + margin:
            yield (
                f"{channel} resembles {partner} (correlation {alike[partner]:.2f}) more than {usual} ({alike[usual]:.2f}), "
                "expected the reverse. Check the order of the channels."
            )
            return
    if "T1w" not in z:
        return
    dark = z["T1w"] <= np.percentile(z["T1w"], 8)
    fluid = {name: float(np.median(channel[dark])) for name, channel in z.items()}
    brightest = max(fluid, key=lambda channel: fluid[channel])
    if brightest != "T2w" and "T2w" in z:
        yield (
            f"Fluid, the darkest of T1w, is brightest in {brightest} (z {fluid[brightest]:+.1f}, T2w {fluid['T2w']:+.1f}), "
            f"expected in T2w. Are {brightest} and T2w swapped?"
        )
        return
    if "T1gd" not in z:
        return
    difference = z["T1gd"] - z["T1w"]
    skewness = float(((difference - difference.mean()) ** 3).mean()) / max(float(difference.std()), 1e-6) ** 3
    if skewness < -0.5:
        yield (
            f"T1w has bright spots that T1gd lacks (skewness of T1gd - T1w {skewness:+.1f}), expected the reverse: "
            "contrast agent only brightens. Are T1w and T1gd swapped?"
        )
