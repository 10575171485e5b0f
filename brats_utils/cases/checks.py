"""What looks wrong in a scan, found in its grey values."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

BRAIN_ML = (700, 2300)
"""Plausible volume of the foreground. Source: brains of 1246 to 1728 mL in 16 scans of BraTS, with room for crops."""

MAX_SPACING_MM = 4.0
"""Coarser voxels get a warning."""

MAX_CUT = 0.02
"""Share of the brain that may be 0 in one channel alone."""

MAX_SATURATED = 0.001
"""Share of a channel's voxels that may have its highest value."""

SAMPLED_VOXELS = 300_000
"""About how many voxels of the brain are compared between channels."""

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
    foreground = values != 0
    brain = int(np.count_nonzero(np.logical_or.reduce(foreground)))
    yield from _find_negative(values, names)
    yield from _find_odd_size(brain, spacing_mm)
    for name, channel in zip(names, values, strict=True):
        yield from _find_cut_channel(name, channel, brain=brain)
    yield from _find_swaps(values, names, np.logical_and.reduce(foreground))


def _find_negative(values: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """Warn of negative values, as a z-score leaves them."""
    listed = []
    for name, channel in zip(names, values, strict=True):
        count = int(np.count_nonzero(channel < 0))
        if count:
            listed.append(f"{name} {count}")
    if listed:
        yield f"Found negative values ({', '.join(listed)} voxels). They are kept; only exact zeros count as background."


def _find_odd_size(brain: int, spacing_mm: Sequence[float]) -> Iterator[str]:
    """Warn of large voxels, and of a number of foreground voxels that is too small or too large for a brain."""
    if max(spacing_mm) > MAX_SPACING_MM + 1e-3:
        size = " x ".join(f"{side:g}" for side in spacing_mm)
        yield f"Found voxels of {size} mm. Small lesions are lost in slices over {MAX_SPACING_MM:g} mm."
    volume = brain * float(np.prod(spacing_mm)) / 1000
    least, most = BRAIN_ML
    found = f"Found {volume:.0f} mL of foreground, expected a brain of {least} to {most} mL."
    if volume > most:
        yield f"{found} Is the skull still there? Strip it first, for instance with HD-BET or SynthStrip."
    elif volume < least:
        yield f"{found} Either most of it was not scanned, or the voxel size in the header is wrong."


def _find_cut_channel(name: str, channel: np.ndarray, *, brain: int) -> Iterator[str]:
    """Warn of a channel, (x, y, z), whose field of view or range of values is cut; `brain` is the number of its voxels."""
    covered = int(np.count_nonzero(channel))
    cut = 1 - covered / brain
    if cut > MAX_CUT:
        yield f"{name}: {100 * cut:.0f}% of the brain are 0 here but not in other channels; its view is cut."
    highest = channel.max() or channel[channel < 0].max()  # 0 is background
    share = np.count_nonzero(channel == highest) / covered
    if share > MAX_SATURATED:
        yield (
            f"{name}: {100 * share:.1f}% of its voxels have the highest value, {highest:g}: cut off at the scanner "
            "or in a conversion. Bright tissue has lost its contrast."
        )


def _find_swaps(values: np.ndarray, names: Sequence[str], brain: np.ndarray) -> Iterator[str]:
    """Warn where intensities contradict the order of the channels; the first contradiction alone. See docs/inference.md."""
    step = max(1, round((np.count_nonzero(brain) / SAMPLED_VOXELS) ** (1 / 3)))
    sample = values[:, ::step, ::step, ::step][:, brain[::step, ::step, ::step]].astype(float)
    if sample.shape[1] < 1000 or (sample.std(axis=1) == 0).any():
        return
    z = {}
    for name, channel in zip(names, sample, strict=True):
        z[name] = (channel - channel.mean()) / channel.std()
    swaps = (
        _compare_partners(z, "T1gd", usual="T1w", margin=0.15),
        _compare_partners(z, "T2w", usual="FLAIR", margin=0.1),
        _compare_fluid(z),
        _compare_contrast(z),
    )
    yield from [warning for warning in swaps if warning][:1]


def _compare_partners(z: Mapping[str, np.ndarray], channel: str, *, usual: str, margin: float) -> str | None:
    """Warn where a channel correlates more with another than with its usual partner, by more than the margin."""
    if channel not in z or usual not in z:
        return None
    alike = {other: float(np.corrcoef(z[channel], z[other])[0, 1]) for other in z if other != channel}
    partner = max(alike, key=lambda other: alike[other])
    if alike[partner] <= alike[usual] + margin:
        return None
    return (
        f"{channel} resembles {partner} (correlation {alike[partner]:.2f}) more than {usual} ({alike[usual]:.2f}), "
        "expected the reverse. Check the order of the channels."
    )


def _compare_fluid(z: Mapping[str, np.ndarray]) -> str | None:
    """Warn where fluid, which is dark on T1w, is brightest in another channel than T2w."""
    if "T1w" not in z or "T2w" not in z:
        return None
    dark = z["T1w"] <= np.percentile(z["T1w"], 8)
    fluid = {name: float(np.median(channel[dark])) for name, channel in z.items()}
    brightest = max(fluid, key=lambda channel: fluid[channel])
    if brightest == "T2w":
        return None
    return (
        f"Fluid, the darkest of T1w, is brightest in {brightest} (z {fluid[brightest]:+.1f}, T2w {fluid['T2w']:+.1f}), "
        f"expected in T2w. Are {brightest} and T2w swapped?"
    )


def _compare_contrast(z: Mapping[str, np.ndarray]) -> str | None:
    """Warn where T1w has bright spots that T1gd has not."""
    if "T1w" not in z or "T1gd" not in z:
        return None
    difference = z["T1gd"] - z["T1w"]
    third_moment = float(((difference - difference.mean()) ** 3).mean())
    skewness = third_moment / max(float(difference.std()), 1e-6) ** 3
    if skewness >= -0.5:
        return None
    return (
        f"T1w has bright spots that T1gd does not have (skewness of T1gd - T1w {skewness:+.1f}), expected the reverse: "
        "contrast agent only brightens. Are T1w and T1gd swapped?"
    )
