"""Images of the phantom: what four MR sequences make of tissues and tumour."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brats_utils.labels import CHANNELS
from brats_utils.phantom.anatomy import Grid, Noise, Tissues

Range = tuple[float, float, float]


@dataclass(frozen=True)
class Sequence:
    """How one channel looks; every range is least, median, largest over patients.

    Contrasts are in standard deviations of normal brain; tissues relative to white matter.
    Source: statistics of 16 BraTS/TCGA cases, docs/phantom.md.
    """

    csf: Range  # brightness of CSF, white matter being 1
    sulci: tuple[float, float]  # least and largest share of water in what the atlas calls CSF outside the ventricles
    gm: Range  # brightness of grey matter, white matter being 1
    edema: Range  # contrast of edema
    necrotic: Range  # contrast of necrotic core that does not enhance
    low_grade: Range  # contrast of the core of a tumour that does not enhance at all
    enhancing: Range  # contrast of enhancing tumour
    texture: tuple[float, float, float]  # SD inside edema, core and enhancement
    noise: float  # SD of the scanner's noise
    noise_mm: tuple[float, float]  # its correlation, in plane and across planes, as sigma of a Gaussian
    bias: float  # SD of the bias field, relative


SEQUENCES = {
    "FLAIR": Sequence((0.1, 0.3, 0.5), (0.3, 0.9), (1.05, 1.18, 1.35), (1.3, 3.1, 4.9), (0.3, 2.8, 4.3), (1.5, 3.0, 4.5),
                      (1.2, 2.8, 5.6), (1.0, 0.9, 0.9), 0.12, (0.85, 2.4), 0.048),
    "T1w": Sequence((0.2, 0.4, 0.6), (0.35, 0.9), (0.72, 0.83, 0.94), (-0.4, -0.08, 1.0), (-1.7, -0.8, 0.8), (-1.7, -0.8, 0.3),
                    (-0.9, 0.12, 1.7), (0.55, 0.55, 0.55), 0.09, (1.0, 2.4), 0.032),
    "T1gd": Sequence((0.2, 0.4, 0.6), (0.0, 0.7), (0.78, 0.89, 1.0), (-0.9, -0.1, 1.2), (-2.0, -0.6, 1.2), (-1.7, -0.6, 0.5),
                     (1.4, 3.0, 5.5), (0.6, 0.5, 0.9), 0.11, (0.9, 1.4), 0.040),
    "T2w": Sequence((2.2, 3.1, 4.2), (0.2, 0.9), (1.1, 1.28, 1.5), (0.4, 1.4, 2.3), (0.4, 1.6, 4.5), (1.0, 1.9, 3.2),
                    (0.2, 1.42, 2.6), (0.8, 0.7, 0.6), 0.07, (0.95, 2.4), 0.044),
}  # fmt: skip
"""Keys are `labels.CHANNELS`."""

VESSELS = {  # course in MNI mm, right side; radius in mm
    "choroid plexus": (((4, 0, 14), (12, -20, 18), (20, -36, 14), (25, -40, 6), (30, -28, -10)), 2.0),
    "glomus": (((21, -38, 12), (25, -41, 6)), 3.5),
    "deep veins": (((4, -2, 14), (2, -20, 13), (0, -38, 7), (0, -46, 8)), 1.5),
    "straight sinus": (((0, -44, 8), (0, -62, 6), (0, -80, 0)), 2.0),
    "middle cerebral artery": (((6, 2, -14), (22, 4, -12), (38, 2, -6), (42, -14, 8)), 1.2),
    "anterior cerebral artery": (((4, 4, -14), (2, 26, -8), (2, 38, 8), (2, 28, 24)), 1.2),
    "basilar artery": (((0, -26, -34), (0, -18, -14), (12, -24, -8)), 1.5),
}
"""What takes up contrast agent without being tumour, where it runs in most people; left like right."""


def render(
    rng: np.random.Generator, grid: Grid, tissues: Tissues, depths: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """Draw all four channels: (X, Y, Z, 4) float32, white matter about 1 and the background not yet masked.

    `depths` are those of whole tumour, core and enhancement in mm, positive inside, as `Tumour.depths` gives them.
    """
    channels = []
    for sequence, noise_free, spread in draw_channels(rng, grid, tissues, depths):
        channels.append(_scan(rng, sequence, grid, noise_free, spread))  # draws on before the next channel does
    return np.stack(channels, axis=-1)


def draw_channels(
    rng: np.random.Generator, grid: Grid, tissues: Tissues, depths: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> Iterator[tuple[Sequence, np.ndarray, float]]:
    """Draw the channels as a perfect scanner would, one after the other, in the order of `CHANNELS`.

    Arguments as in `render`. Gives for each how it looks, its values, and the SD of normal brain in them.
    """
    whole, core, enhancing = depths
    edge = rng.uniform(0.8, 1.8)  # mm; edema fades over about four times this
    # annotators outline where a change begins, so that the label's edge lies outside the middle of the ramp
    parts = _ramp(whole - 1.2, edge), _ramp(core, 0.8), _ramp(enhancing - 0.5, 0.45)
    contrasts = draw_contrasts(rng, enhances=bool((enhancing > 0).any()))
    textures = [Noise(rng, mm).on(grid) for mm in (9, 14, 5)]  # edema, core, enhancement
    extras = _extras(rng, grid, tissues)
    fluid = _draw_fluid(rng, grid, core, enhancing)
    calm = rng.uniform(0.5, 1.3)  # some tumours are smooth, others hold old blood, cysts and strands of living tissue
    for name in CHANNELS:
        sequence = SEQUENCES[name]
        csf = np.float32(_draw(rng.normal(), sequence.csf))
        noise_free = _healthy(rng, sequence, grid, tissues, textures[2], csf=csf)
        normal = (tissues.brain > 0.55) & (whole < -4)
        mean, spread = float(noise_free[normal].mean()), float(noise_free[normal].std())
        noise_free += spread * extras[name]
        for mm, most in ((7, 0.35), (22, 0.6)):  # no two regions of a tissue are alike, nor alike in all sequences
            noise_free += spread * rng.uniform(0.1, 1) * most * Noise(rng, mm).on(grid)
        for part, contrast, sd, texture in zip(parts, contrasts[name], sequence.texture, textures, strict=True):
            rough = sd * calm * rng.uniform(0.6, 1.2)
            target = mean + spread * (contrast + rough * (0.8 * texture + 0.5 * textures[2]))
            noise_free += part * (target - noise_free)
        thick = rng.uniform(0, 0.35 if name == "FLAIR" else 0.15)  # protein in the fluid
        noise_free += fluid * (csf + thick * (mean - csf) - noise_free)
        yield sequence, noise_free, spread


def _draw_fluid(rng: np.random.Generator, grid: Grid, core: np.ndarray, enhancing: np.ndarray) -> np.ndarray:
    """Share of fluid in each voxel: in a third of the cores, part of what does not enhance is a cyst or liquid necrosis."""
    noise, wet, share = Noise(rng, rng.uniform(12, 25)), rng.random() < 0.35, rng.uniform(0.2, 1)
    inside = (core > 1) & (enhancing < 0)
    if not (wet and inside.any()):
        return np.zeros(grid.shape, dtype=np.float32)
    depth = noise.on(grid) + 0.08 * np.minimum(core, 12)
    limit = np.quantile(depth[inside], 1 - share)
    return _ramp((depth - limit) * 8, 0.8) * _ramp(core - 1, 0.6) * (1 - _ramp(enhancing - 0.5, 0.45))


def _ramp(depth: np.ndarray, width_mm: float) -> np.ndarray:
    """1 inside, 0 outside, logistic in between."""
    return 1 / (1 + np.exp(np.clip(-depth / np.float32(width_mm), -30, 30)))


def _draw(rng_z: float, low_median_high: Range) -> float:
    """The value that lies `rng_z` standard deviations from the median.

    Least and largest of 16 cases lie 1.77 of them away on average, so that other patients go beyond.
    """
    low, median, high = low_median_high
    z = float(np.clip(rng_z, -2.5, 2.5))
    return median + z / 1.77 * ((high - median) if z > 0 else (median - low))


def draw_contrasts(rng: np.random.Generator, *, enhances: bool) -> dict[str, tuple[float, float, float]]:
    """Contrast of edema, non-enhancing core and enhancement in every channel.

    The core of a tumour that does not enhance at all, a low-grade one, is tissue rather than necrosis.
    """
    contrasts = {}
    cyst = rng.normal()  # watery cores are bright on T2w and dark on everything else
    for name, sequence in SEQUENCES.items():
        shared, own = rng.normal(), rng.normal(size=3)  # what is bright in one part of a tumour is so in the others
        z = 0.6 * shared + 0.8 * own
        z[1] = 0.5 * z[1] + 0.85 * (cyst if name == "T2w" else -cyst)
        parts = (sequence.edema, sequence.necrotic if enhances else sequence.low_grade, sequence.enhancing)
        edema, core, enhancing = (_draw(zi, part) for zi, part in zip(z, parts, strict=True))
        if name == "T1gd":  # the definition of enhancement, whatever the draws
            core = min(core, edema + 0.8)
            enhancing = max(enhancing, edema + 1, core + 1)
        contrasts[name] = (edema, core, enhancing)
    return contrasts


def _healthy(
    rng: np.random.Generator, sequence: Sequence, grid: Grid, tissues: Tissues, texture: np.ndarray, *, csf: np.float32
) -> np.ndarray:
    """A brain without tumour, white matter at 1."""
    gm = _draw(rng.normal(), sequence.gm)
    grain = 1 + rng.uniform(0.005, 0.03) * texture
    # sulci hold vessels, membranes and cortex beside water; no two sequences agree on how much
    sulci = tissues.csf * np.clip(rng.uniform(*sequence.sulci) + 0.35 * Noise(rng, 8).on(grid), 0, 1)
    water = np.clip(sulci, tissues.ventricle, 1)
    grey = (tissues.gm + 1e-3) / (tissues.gm + tissues.wm + 1e-3)  # where the atlas has nothing but CSF: cortex
    return (water * csf + (1 - water) * (1 + grey * np.float32(gm - 1))) * grain


def _extras(rng: np.random.Generator, grid: Grid, tissues: Tissues) -> dict[str, np.ndarray]:
    """What is bright without being tumour, in SD of normal brain: vessels and choroid plexus, white-matter lesions."""
    near = np.clip(ndimage.gaussian_filter(tissues.ventricle, 4 / _spacing(grid)) * 4, 0, 1)
    spots = np.clip(Noise(rng, 6).on(grid) - rng.uniform(1.8, 2.6), 0, 1)
    lesions = tissues.wm * (rng.uniform(0.2, 1.6) * near + rng.uniform(0.5, 2) * spots)
    a, b = Noise(rng, 14).on(grid), Noise(rng, 14).on(grid)
    tubes = np.exp(-(a**2 + b**2) / 0.02)  # where two random surfaces cross runs a curve
    named = _vessels(rng, grid, tissues)
    outer = np.clip((0.8 - tissues.brain) * 4, 0, 1) + tissues.csf
    midline = np.exp(-((tissues.x / 2.5) ** 2)) * np.clip((0.75 - tissues.brain) * 5, 0, 1)
    choroid = tissues.ventricle * np.clip(Noise(rng, 7).on(grid) - 1.1, 0, 1)
    vessels = rng.uniform(2, 6) * np.clip(outer, 0.3, 1) * tubes + rng.uniform(2, 7) * midline
    # in some scanners the cerebellum shines
    cerebellum = _ramp(-14 - tissues.z, 3) * (tissues.y < -30) * (1 - tissues.csf)
    shine = rng.uniform(0.5, 3) if rng.random() < 0.35 else 0.0
    shell, patches = np.clip(3.5 - 5 * tissues.brain, 0, 1), np.clip(Noise(rng, 20).on(grid) - 0.8, 0, 1)
    remnants = rng.uniform(1, 5) * shell * patches  # skull that the stripping left
    return {
        "FLAIR": lesions + 0.6 * remnants + shine * cerebellum,
        "T1w": remnants,
        "T1gd": np.maximum(vessels + rng.uniform(2, 5) * choroid, named) + remnants,
        "T2w": 0.4 * lesions + 0.8 * remnants,
    }


def _vessels(rng: np.random.Generator, grid: Grid, tissues: Tissues) -> np.ndarray:
    """Brightness of the named vessels, in SD of normal brain; some patients show them well and others hardly."""
    bright = np.zeros(grid.shape, dtype=np.float32)
    bend = [1.5 * Noise(rng, 15).on(grid) for _ in range(3)]
    for side in (-1, 1):
        place = np.stack([side * tissues.x + bend[0], tissues.y + bend[1], tissues.z + bend[2]]).astype(np.float32)
        for course, radius in VESSELS.values():
            width, height = radius * rng.uniform(0.6, 1.3), rng.uniform(0, 6)
            low, high = np.min(course, axis=0) - 3 * width, np.max(course, axis=0) + 3 * width
            near = np.all((place > low[:, None, None, None]) & (place < high[:, None, None, None]), axis=0)
            points = place[:, near].T
            square = np.full(len(points), np.inf, dtype=np.float32)
            for start, end in zip(np.array(course[:-1], np.float32), np.array(course[1:], np.float32), strict=True):
                along = np.clip((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
                square = np.minimum(square, ((points - start - along[:, None] * (end - start)) ** 2).sum(axis=1))
            bright[near] = np.maximum(bright[near], height * np.exp(-square / (2 * width**2)))
    return bright


def _scan(
    rng: np.random.Generator, sequence: Sequence, grid: Grid, noise_free: np.ndarray, spread: float
) -> np.ndarray:
    """Blur by the scanner's resolution, shade by the coil, add noise that the co-registration has smoothed."""
    mm = _spacing(grid)
    plane, across = rng.uniform(0.4, 0.8), rng.uniform(0.6, 1.2) * sequence.noise_mm[1]
    blurred = ndimage.gaussian_filter(noise_free, (plane / mm, plane / mm, across / mm), truncate=3)
    misplaced = np.clip(rng.normal(0, 0.5, 3), -1, 1) / mm  # what co-registration leaves
    blurred = ndimage.shift(blurred, misplaced, order=1, mode="nearest")
    bias = 1 + sequence.bias * rng.uniform(0.6, 2.2) * Noise(rng, 75).on(grid)
    sigma = (sequence.noise_mm[0] / mm, sequence.noise_mm[0] / mm, sequence.noise_mm[1] / mm)
    noise = ndimage.gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), sigma, truncate=3)
    return blurred * bias + np.float32(sequence.noise * rng.uniform(0.5, 1.5) * spread / noise.std()) * noise


def _spacing(grid: Grid) -> float:
    """Voxel size in mm."""
    return float(grid.axes[0][1] - grid.axes[0][0])
