"""The head around a phantom's brain: fluid, skull, scalp, eyes, face and neck, as four perfect sequences show them.

Shapes are signed distances in mm to a surface, negative inside, painted one over the other. It looks like a head in a
picture and is none: only the layers next to the brain have the measures of real ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from brats_utils.phantom.anatomy import Grid, Head, interpolate, load_atlas
from brats_utils.phantom.image import draw_channels
from brats_utils.phantom.tumour import Tumour

ROOM_MM = ((30, 30), (32, 52), (78, 26))
"""Around the brain, below and above it along each axis: scalp, face and nose, neck."""

FLUID_MM, SKULL_MM, SCALP_MM = 1.6, 7.0, 6.0
"""Median thickness of the layers around the brain. Source: Lillie 2016 (J Biomech Eng 138:061006) for skulls, 6 to 8 mm."""

TABLE_MM = 1.8
"""Of compact bone, on either side of the marrow."""

HULL_MM = 8.0
"""Clefts of the brain narrower than twice this are filled with fluid before the skull is put around."""

BRIGHTNESS = {  # in FLAIR, T1w, T1gd, T2w; white matter is 1
    "muscle": (0.55, 0.60, 0.75, 0.35),
    "fat": (1.15, 1.55, 1.50, 1.25),
    "skin": (0.80, 0.80, 1.00, 0.70),
    "bone": (0.06, 0.08, 0.08, 0.05),
    "marrow": (0.45, 0.80, 0.90, 0.60),
    "air": (0.0, 0.0, 0.0, 0.0),
    "mucosa": (1.20, 0.60, 1.60, 2.00),
    "fluid": (0.20, 0.32, 0.34, 2.70),
    "vitreous": (0.15, 0.28, 0.28, 3.10),
    "lens": (0.50, 0.60, 0.60, 0.40),
    "nerve": (0.90, 0.90, 0.90, 0.95),
    "sinus": (0.25, 0.45, 2.20, 0.20),
}
"""Source: T1 and T2 of tissues at 1.5 T, as in Bottomley 1984 (Med Phys 11:425), and a raw patient of TCGA-LGG."""


@dataclass(frozen=True)
class WholeHead:
    """A head with all that a scanner would see of it."""

    grid: Grid  # in mm, RAS+
    channels: np.ndarray  # (4, X, Y, Z) float32, white matter about 1, background 0, in the order of `labels.CHANNELS`
    brain: np.ndarray  # (X, Y, Z) float32, above 0 inside the brain
    depths: tuple[np.ndarray, np.ndarray, np.ndarray]  # (X, Y, Z) each: mm inside whole tumour, core, enhancement


def build_head(rng: np.random.Generator, head: Head, tumour: Tumour, *, brain_grid: Grid) -> WholeHead:
    """Paint a head around a brain.

    Args:
        rng: for what differs between heads.
        head: as `tumour.grow_tumour` has deformed it.
        tumour: in it.
        brain_grid: voxels around the brain; the head is made on a larger grid of the same spacing.
    """
    tissues = head.tissues(brain_grid)
    depths = tumour.depths(brain_grid, tissues)
    grid, padding = _make_room(brain_grid)
    brain = np.pad(tissues.brain, padding) - np.float32(0.5)
    image = _paint_around(rng, head, grid, brain)
    inside = tuple(slice(low, low + n) for (low, _), n in zip(padding, brain_grid.shape, strict=True))
    share = _soft(-16 * (tissues.brain - np.float32(0.5)), 1.5)  # of 16 mm is the ramp at the surface
    for values, (_, clean, _) in zip(image, draw_channels(rng, brain_grid, tissues, depths), strict=True):
        values[inside] += share * (clean - values[inside])
    outside = [np.pad(depth, padding, constant_values=-99) for depth in depths]
    return WholeHead(grid, np.clip(image, 0, None), brain, (outside[0], outside[1], outside[2]))


def _make_room(grid: Grid) -> tuple[Grid, list[tuple[int, int]]]:
    """A larger grid, and how many voxels were added before and after along each axis."""
    axes, padding = [], []
    for axis, room in zip(grid.axes, ROOM_MM, strict=True):
        spacing = axis[1] - axis[0]
        before, after = (round(mm / spacing) for mm in room)
        axes.append(axis[0] + spacing * np.arange(-before, len(axis) + after))
        padding.append((before, after))
    return Grid((axes[0], axes[1], axes[2])), padding


def _paint_around(rng: np.random.Generator, head: Head, grid: Grid, brain: np.ndarray) -> np.ndarray:
    """All but the brain: (4, X, Y, Z) float32."""
    image = np.zeros((4, *grid.shape), dtype=np.float32)
    place = _locate(head, grid)
    outside = _distance_to_hull(brain > 0, grid)
    texture = 1 + np.float32(0.06) * _noise(rng, 8, grid)
    wavy = _noise(rng, 25, grid)
    for distance, tissue, width_mm in _layers(rng, place, outside, wavy):
        boxes = ndimage.find_objects((distance < width_mm / 2).astype(np.uint8))  # an eye is small
        if not boxes:
            continue
        share, grain = _soft(distance[boxes[0]], width_mm), texture[boxes[0]]
        for values, bright in zip(image, BRIGHTNESS[tissue], strict=True):
            values[boxes[0]] += share * (np.float32(bright) * grain - values[boxes[0]])
    return image


def _layers(
    rng: np.random.Generator, place: list[np.ndarray], outside: np.ndarray, wavy: np.ndarray
) -> Iterator[tuple[np.ndarray, str, float]]:
    """Signed distances, tissues and widths of their edges in mm, in the order of painting.

    `outside` is the distance to the hull of the brain, `place` are MNI mm, `wavy` is noise of SD 1.
    """
    x, y, z = np.abs(place[0]), place[1], place[2]
    fluid = FLUID_MM + rng.uniform(-0.5, 1) + 0.3 * wavy
    skull = fluid + SKULL_MM + rng.uniform(-1, 1) + 0.5 * wavy + np.clip((-y - 60) / 15, 0, 2)
    temporal = 9 * np.exp(-(((y - 5) / 32) ** 2) - ((z + 12) / 26) ** 2) * (x > 40)  # the muscle that closes the jaw
    scalp = skull + SCALP_MM + rng.uniform(-1.5, 2) + temporal
    skin = _join(outside - scalp, _face_and_neck(x, y, z))
    yield skin, "skin", 1
    yield skin + 2, "fat", 1.5
    yield skin + 7 + wavy, "muscle", 2
    yield np.maximum(_tube(x, y + 24, 12), z + 78), "bone", 1.5  # bodies of the vertebrae
    yield np.maximum(_tube(x, y + 24, 10), np.maximum(z + 80, 8 - np.abs((z + 200) % 20 - 10) - 6)), "marrow", 1.5
    yield np.maximum(np.abs(_ellipsoid(x, y - 42, z + 96, (30, 38, 24))) - 4, 30 - y), "bone", 2  # jaws
    yield outside - skull, "bone", 1.2
    yield np.maximum(fluid + TABLE_MM - outside, outside - skull + TABLE_MM), "marrow", 1.2
    for shape in _cavities(x, y, z):
        yield shape - 2, "bone", 1.5
        yield shape - 0.8, "mucosa", 1
        yield shape + 0.5, "air", 1
    yield np.maximum(_ellipsoid(x - 32, y - 46, z + 40, (19, 30, 17)), 4 - (outside - fluid)), "fat", 1.5  # orbit
    yield _ellipsoid(x - 24 - 0.2 * (y - 30), y - 38, z + 40, (3, 22, 3)), "nerve", 1.5
    eye = _ellipsoid(x - 32, y - 60, z + 40, (12.5, 12.5, 12.5))
    yield eye - 1, "muscle", 1
    yield eye, "vitreous", 1
    yield _ellipsoid(x - 32, y - 69, z + 40, (4.5, 2.2, 4.5)), "lens", 1
    yield outside - fluid, "fluid", 1
    yield np.maximum(_tube(x, outside - fluid + 1, 3.5), np.maximum(y - 45, 5 - z)), "sinus", 1.5
    canal = np.maximum(z + 52, -z - 150)
    yield np.maximum(_tube(x, y + 46, 10), canal), "fluid", 1
    yield np.maximum(_tube(x, y + 46, 6), canal), "nerve", 1


def _face_and_neck(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance to the skin of all that hangs below the brain, about."""
    face = _ellipsoid(x, y - 34, z + 64, (60, 54, 64))
    nose = _ellipsoid(x, y - 86, z + 60, (12, 20, 17))
    neck = np.maximum((np.hypot(x / 56, (y + 22) / 60) - 1) * 56, z + 45)
    return _join(_join(face, nose), neck)


def _cavities(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Iterator[np.ndarray]:
    """Signed distances to what holds air: nose, sinuses, throat."""
    yield np.maximum(np.abs(x - 5) - 4, _tube((y - 62) / np.float32(1.6), z + 62, 16))
    yield _ellipsoid(x - 27, y - 50, z + 66, (13, 15, 13))
    yield _ellipsoid(x - 5, y - 20, z + 46, (9, 11, 8))
    yield _ellipsoid(x, y - 4, z + 100, (8, 7, 45))


def _ellipsoid(x: np.ndarray, y: np.ndarray, z: np.ndarray, radii: tuple[float, float, float]) -> np.ndarray:
    """Signed distance to its surface, about, of points seen from its middle."""
    squared = sum((part / np.float32(radius)) ** 2 for part, radius in zip((x, y, z), radii, strict=True))
    return np.asarray((np.sqrt(squared) - 1) * np.float32(min(radii)))


def _tube(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(np.hypot(x, y) - np.float32(radius))


def _join(a: np.ndarray, b: np.ndarray, *, round_mm: float = 8.0) -> np.ndarray:
    """Signed distance to the union of two shapes, rounded where they meet.

    Source: Quilez, smooth minimum, iquilezles.org/articles/smin.
    """
    overlap = np.clip(round_mm - np.abs(a - b), 0, None) / np.float32(round_mm)
    return np.minimum(a, b) - overlap**2 * np.float32(round_mm / 4)


def _soft(distance: np.ndarray, width_mm: float) -> np.ndarray:
    """Share of a voxel that is inside a shape, whose edge is this wide."""
    return np.clip(0.5 - distance / np.float32(width_mm), 0, 1)


def _locate(head: Head, grid: Grid) -> list[np.ndarray]:
    """MNI mm of every voxel, without the finer deformation of the brain."""
    _, _, middle_mm = load_atlas()
    offset = [axis - np.float32(c) for axis, c in zip(grid.coordinates(), head.centre_mm, strict=True)]
    matrix = head.matrix.astype(np.float32)
    return [
        np.asarray(sum(matrix[k, j] * offset[j] for j in range(3)) + np.float32(middle_mm[k]), dtype=np.float32)
        for k in range(3)
    ]


def _distance_to_hull(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Mm outside the brain with its clefts filled, negative inside; on every second voxel, and smooth in between."""
    spacing = float(grid.axes[0][1] - grid.axes[0][0])
    every = max(1, round(2 / spacing))
    coarse_mm = every * spacing
    coarse = mask[::every, ::every, ::every]
    wide = coarse_mm * ndimage.distance_transform_edt(~coarse) < HULL_MM
    hull = coarse_mm * ndimage.distance_transform_edt(wide) > HULL_MM
    distance = coarse_mm * (ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull))
    return interpolate(distance, coarse_mm, _from_zero(grid))


def _noise(rng: np.random.Generator, scale_mm: float, grid: Grid) -> np.ndarray:
    """As `anatomy.Noise`, over a grid that is larger than the field of view."""
    grid = _from_zero(grid)
    lattice = rng.standard_normal([int(axis[-1] / scale_mm) + 3 for axis in grid.axes], dtype=np.float32)
    return interpolate(lattice / np.float32(0.479**1.5), scale_mm, grid)


def _from_zero(grid: Grid) -> Grid:
    """The grid with its first voxel at 0 mm."""
    x, y, z = (axis - axis[0] for axis in grid.axes)
    return Grid((x, y, z))
