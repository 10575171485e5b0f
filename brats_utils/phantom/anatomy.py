"""Anatomy of the phantom: the MNI152 brain, deformed at random and pushed aside by what grows in it.

Everything is a function of position in millimetres, so that a case is the same patient at every spacing.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.nn.functional import grid_sample

FIELD_MM = (240.0, 240.0, 155.0)
"""Field of view. Source: every image of Task01_BrainTumour is 240 x 240 x 155 voxels of 1 mm."""

COARSE_MM = 4.0
"""Spacing on which shapes are grown; finer detail comes from noise that is evaluated where needed."""

MEAN_SCALE = 0.945
"""Size of the median patient's brain relative to MNI152 (an average that came out large): 1430 mL."""


@dataclass(frozen=True)
class Grid:
    """A box of voxel centres: for each axis an increasing array of positions in mm, RAS+."""

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return len(self.axes[0]), len(self.axes[1]), len(self.axes[2])

    def coordinates(self) -> list[np.ndarray]:
        """Three float32 arrays of mm that broadcast to `shape`."""
        return list(np.ix_(*(axis.astype(np.float32) for axis in self.axes)))

    def crop(self, box: tuple[slice, slice, slice]) -> "Grid":
        """The part of the grid inside `box`, in voxels."""
        x, y, z = (axis[part] for axis, part in zip(self.axes, box, strict=True))
        return Grid((x, y, z))


def field_grid(spacing_mm: float) -> Grid:
    """The whole field of view: (240, 240, 155) voxels at 1 mm, (120, 120, 78) at 2 mm."""
    x, y, z = (np.arange(np.ceil(size / spacing_mm)) * spacing_mm for size in FIELD_MM)
    return Grid((x, y, z))


def interpolate(lattice: np.ndarray, lattice_mm: float, grid: Grid) -> np.ndarray:
    """Evaluate a cubic B-spline with the given coefficients on a grid: smooth, never outside their range.

    `lattice` is (..., X, Y, Z), over the whole field, the first at 0 mm and the next `lattice_mm` on. Gives
    (..., *grid.shape) float32.
    """
    values = lattice.astype(np.float32)
    for dim, axis in enumerate(grid.axes, start=lattice.ndim - 3):
        distance = np.abs(axis[:, None] / lattice_mm - np.arange(lattice.shape[dim]))
        near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
        weights = np.where(distance < 1, near, far)
        weights /= weights.sum(axis=1, keepdims=True)  # no dimming where the lattice ends
        values = np.moveaxis(np.moveaxis(values, dim, -1) @ weights.T.astype(np.float32), -1, dim)
    return values


class Noise:
    """A smooth random field, about zero mean and unit variance, with blobs of `scale_mm`.

    It is drawn over the whole field of view: the same draws whatever the grid.
    """

    def __init__(self, rng: np.random.Generator, scale_mm: float) -> None:
        self.scale_mm = scale_mm
        shape = [int(size / scale_mm) + 3 for size in FIELD_MM]
        self.lattice = rng.standard_normal(shape, dtype=np.float32) / 0.479**1.5  # a B-spline keeps .479 per axis

    def on(self, grid: Grid) -> np.ndarray:
        """Its values on a grid, float32."""
        return interpolate(self.lattice, self.scale_mm, grid)


@dataclass(frozen=True)
class Tissues:
    """What a brain is made of: float32 arrays of one grid's shape; of tissues, fractions of 0 to 1."""

    brain: np.ndarray  # 1 inside, falling through .5 at the surface
    csf: np.ndarray  # cerebrospinal fluid
    gm: np.ndarray  # grey matter
    wm: np.ndarray  # white matter
    ventricle: np.ndarray  # the part of `csf` inside the ventricles
    x: np.ndarray  # MNI mm to the right of the midline
    y: np.ndarray  # mm before the anterior commissure
    z: np.ndarray  # mm above the anterior commissure

    @property
    def cerebrum(self) -> np.ndarray:
        """Bool: neither cerebellum nor brainstem, where gliomas of adults hardly ever grow."""
        below_tentorium = (self.z < -12) & (self.y < -38)
        brainstem = (self.z < -4) & (np.abs(self.x) < 18) & (self.y < -10)
        return ~(below_tentorium | brainstem)


@dataclass(frozen=True)
class Head:
    """One patient's head, as the map from the field of view to MNI space."""

    matrix: np.ndarray  # (3, 3) mm to mm
    centre_mm: np.ndarray  # where the middle of the MNI brain lies in the field
    displacement: np.ndarray  # (3, X, Y, Z) mm on the coarse grid, added to a position before `matrix`
    sulci: float  # how far the sulci gape, 1 as in MNI152
    sulcus_noise: Noise  # makes neighbouring sulci differ

    def tissues(self, grid: Grid) -> Tissues:
        """Sample the atlas at every voxel of a grid."""
        atlas, origin_mm, middle_mm = load_atlas()
        moved = interpolate(self.displacement, COARSE_MM, grid)
        offset = [moved[k] + (grid.coordinates()[k] - np.float32(self.centre_mm[k])) for k in range(3)]
        matrix = self.matrix.astype(np.float32)
        mni = [sum(matrix[k, j] * offset[j] for j in range(3)) + np.float32(middle_mm[k]) for k in range(3)]
        extent = np.array(atlas.shape[:0:-1]) - 1  # torch wants the last axis first, scaled to -1..1
        scaled = [2 * (mni[k] - np.float32(origin_mm[k])) / np.float32(extent[2 - k]) - 1 for k in (2, 1, 0)]
        where = torch.from_numpy(np.stack(scaled, axis=-1)[None])
        brain, gm, wm, ventricle = grid_sample(atlas[None], where, align_corners=True)[0].numpy()
        csf = np.clip(1 - gm - wm, 0, 1)
        csf = np.clip(np.maximum(csf * self.sulci * np.exp(0.6 * self.sulcus_noise.on(grid)), ventricle), 0, 1)
        wm = wm**3 / (wm**3 + gm**3 + 1e-6)  # one patient's cortex is sharper than the average of 152
        return Tissues(brain, csf, (1 - csf) * (1 - wm), (1 - csf) * wm, ventricle, *mni)

    def pushed(self, source: np.ndarray) -> "Head":
        """The same head with tissue pushed out of where `source` (per voxel, on the coarse grid) is positive."""
        # the skull does not give way: near the surface growth squeezes the sulci instead
        free = np.clip(2 * self.tissues(field_grid(COARSE_MM)).brain - 1, 0, 1)
        return replace(self, displacement=self.displacement - free * swell(source))


def draw_head(rng: np.random.Generator) -> Head:
    """Draw size, proportions, tilt, position, fine shape and atrophy of one head."""
    tilt = Rotation.from_euler("XYZ", rng.normal(0, 4, 3) * [1, -1, 1], degrees=True).as_matrix()
    size = MEAN_SCALE * np.exp(rng.normal(0, 0.02) + rng.normal(0, 0.02, 3)) * [rng.choice((-1, 1)), 1, 1]
    coarse = field_grid(COARSE_MM)
    elastic = sum(amp * np.stack([Noise(rng, mm).on(coarse) for _ in range(3)]) for amp, mm in ((4.0, 45), (1.2, 16)))
    centre = np.array(FIELD_MM) / 2 + rng.normal(0, [3, 5, 2])
    atrophy = rng.uniform(0, 1)
    head = Head(np.diag(1 / size) @ tilt, centre, np.asarray(elastic), 0.8 + 2.2 * atrophy, Noise(rng, 9))
    return head.pushed((1.1 * atrophy - 0.35) * head.tissues(coarse).ventricle)


def swell(source: np.ndarray) -> np.ndarray:
    """Displacement of a soft medium in which volume appears: the gradient of Poisson's equation, float32 mm.

    `source` is (X, Y, Z), the relative growth per voxel on the coarse grid; negative shrinks. Gives (3, X, Y, Z).
    """
    size = [3 * n // 2 for n in source.shape]  # padding: what leaves on the right must not enter on the left
    k = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n, COARSE_MM) for n in size[:2]),
                    2 * np.pi * np.fft.rfftfreq(size[2], COARSE_MM), indexing="ij", sparse=True)  # fmt: skip
    squared = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    squared[0, 0, 0] = np.inf
    potential = np.fft.rfftn(source, s=size, axes=(0, 1, 2)) / squared
    nx, ny, nz = source.shape
    parts = [np.fft.irfftn(-1j * k[axis] * potential, s=size, axes=(0, 1, 2))[:nx, :ny, :nz] for axis in range(3)]
    return np.stack(parts).astype(np.float32)


@lru_cache(maxsize=1)
def load_atlas() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Read the MNI152 maps out of nilearn's wheel; nothing is downloaded.

    Gives a (4, X, Y, Z) float32 tensor of brain, GM, WM and ventricles at 1 mm; then, in MNI mm, the position of its
    first voxel and the middle of the brain.
    """
    t1, gm, wm = (
        load(resolution=1).get_fdata(dtype=np.float32)
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    mask = ndimage.gaussian_filter((t1[::2, ::2, ::2] > 0).astype(np.float32), 2) > 0.5  # without nerves and vessels
    depth = 2 * (ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask))
    x, y, z = (np.arange(n) for n in t1.shape)
    depth = interpolate(depth, 2.0, Grid((x, y, z)))
    origin = load_mni152_template(resolution=1).affine[:3, 3]
    deep = (depth > 18) & (np.abs(x + origin[0]) < 42)[:, None, None]
    ventricle = ndimage.gaussian_filter(np.clip(1.6 * (1 - gm - wm), 0, 1) * deep, 0.5)
    brain = np.clip(0.5 + depth / 16, 0, 1)  # a ramp of 8 mm each way
    box = ndimage.find_objects((brain > 0).astype(np.uint8))[0]
    middle = origin + [2 * (part.start + part.stop - 1) / 2 for part in ndimage.find_objects(mask.astype(np.uint8))[0]]
    atlas = np.stack([part[box] for part in (brain, gm, wm, ventricle)]).astype(np.float32)
    return torch.from_numpy(atlas), origin + [part.start for part in box], middle
