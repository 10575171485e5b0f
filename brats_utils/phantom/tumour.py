"""Tumour of the phantom: of which kind, how large, where, and how it grows into the brain."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from brats_utils.phantom.anatomy import COARSE_MM, Grid, Head, Noise, Tissues, field_grid, interpolate

KINDS = {
    "ring": (0.33, 0.40, 0.85),  # necrosis inside an incomplete rim
    "curly": (0.20, 0.35, 0.65),  # enhancing sheets folded through the core, like a cauliflower cut open
    "solid": (0.32, 0.70, 1.0),  # no dark centre
    "patchy": (0.15, 0.02, 0.25),  # a few nodules in a non-enhancing core
}
"""Enhancing kinds: how often, least and largest share of the core that enhances.

Source: statistics of 16 BraTS/TCGA cases, docs/phantom.md (volumes of ET and NCR)."""

VOLUMES_ML = {True: ((40, 1.2, 0.6, 190), (90, 0.8, 5, 300)), False: ((45, 1.0, 3, 180), (45, 0.9, 5, 200))}
"""Core and edema with and without enhancement: median, SD of the logarithm, least, largest.

Source: the volumes of 16 BraTS/TCGA cases, widened to those of the development cases, docs/phantom.md."""

FAR_MM = 80.0
"""Edema never travels farther than this through white matter."""


@dataclass(frozen=True)
class Blob:
    """An ellipsoid."""

    centre: np.ndarray  # (3,) mm
    radius: float  # mm, of the sphere of the same volume
    metric: np.ndarray  # (3, 3), maps the ellipsoid to that sphere

    def distance(self, grid: Grid) -> np.ndarray:
        """About the distance to its surface in mm, negative inside."""
        offset = [axis - np.float32(c) for axis, c in zip(grid.coordinates(), self.centre, strict=True)]
        squared = np.zeros(grid.shape, dtype=np.float32)
        for row in self.metric.astype(np.float32):
            squared += (row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]) ** 2
        return np.sqrt(squared) - np.float32(self.radius)


@dataclass(frozen=True)
class Plan:
    """What a tumour will be, before it meets the brain. Each noise is a pair, coarse and fine."""

    kind: str  # one of `KINDS`, or `non-enhancing`
    core_ml: float  # volume of the core
    edema_ml: float  # volume of the edema
    enhancing: float  # share of the core that enhances
    side: float  # -1 or 1, the hemisphere
    blobs: tuple[Blob, ...]  # foci of the core
    lobes: tuple[Noise, Noise]  # makes the core lobulated
    rim: tuple[Noise, Noise]  # decides where the core enhances
    fringe: tuple[Noise, Noise]  # on the border of the edema

    def core_score(self, grid: Grid, tissues: Tissues) -> np.ndarray:
        """In mm, lower is nearer to the middle of the core, which keeps to its hemisphere and out of CSF."""
        nearest = np.min([blob.distance(grid) for blob in self.blobs], axis=0)
        size = self.blobs[0].radius
        score = nearest + 0.19 * size * self.lobes[0].on(grid) + 0.09 * size * self.lobes[1].on(grid)
        across = np.clip(-self.side * tissues.x / 6, 0, 1) * (0.6 + 0.4 * (tissues.wm < 0.5))
        return score + 0.5 * size * across + 6 * tissues.ventricle + 60 * ((tissues.brain < 0.5) | ~tissues.cerebrum)

    def rim_score(self, grid: Grid, depth: np.ndarray) -> np.ndarray:
        """In mm, lower enhances sooner; `depth` is the distance to the surface of the core."""
        coarse, fine = (noise.on(grid) for noise in self.rim)
        if self.kind == "ring":
            return np.abs(depth - 2 - 1.5 * coarse) + 0.7 * np.abs(fine)  # a layer just below the surface
        if self.kind == "curly":
            return np.minimum(3.5 * np.abs(fine), np.abs(depth - 2)) + 1.2 * coarse
        return 3 * coarse + 1.2 * fine + (0.2 * depth if self.kind == "patchy" else 0)

    def edema_score(self, grid: Grid, tissues: Tissues, arrival: np.ndarray) -> np.ndarray:
        """In mm, lower is reached sooner; `arrival` is `travel` on the coarse grid."""
        coarse, fine = (noise.on(grid) for noise in self.fringe)
        barrier = 5 * tissues.gm + 22 * tissues.csf + 60 * (tissues.brain < 0.5)
        return interpolate(arrival, COARSE_MM, grid) + barrier + 2.5 * coarse + 0.5 * fine


@dataclass(frozen=True)
class Tumour:
    """A grown tumour."""

    plan: Plan  # its shape
    arrival: np.ndarray  # (X, Y, Z) mm on the coarse grid, how far edema travels from the core
    limits: tuple[float, float, float]  # scores at the surface of core, enhancement and edema

    def depths(self, grid: Grid, tissues: Tissues) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """About the depth inside edema-or-core, core and enhancement, in mm; negative outside."""
        core = self.limits[0] - self.plan.core_score(grid, tissues)
        enhancing = np.minimum(self.limits[1] - self.plan.rim_score(grid, core), core)
        edema = self.limits[2] - self.plan.edema_score(grid, tissues, self.arrival)
        return np.maximum(edema, core), core, enhancing


def draw_plan(rng: np.random.Generator, tissues: Tissues, *, enhances: bool) -> Plan:
    """Draw kind, volumes and place of a tumour, on the tissues of the coarse grid; a low-grade one does not enhance."""
    kind = str(rng.choice(list(KINDS), p=[odds for odds, _, _ in KINDS.values()])) if enhances else "non-enhancing"
    core_ml, edema_ml = (
        float(np.clip(median * np.exp(rng.normal(0, spread)), low, high))
        for median, spread, low, high in VOLUMES_ML[enhances]
    )
    enhancing = rng.uniform(*KINDS[kind][1:]) if enhances else 0.0
    allowed = tissues.cerebrum & (tissues.brain > 0.75) & (np.abs(tissues.x) > 8)
    odds = (allowed * (tissues.wm + 0.3 * tissues.gm)).ravel()  # deep white matter and cortex alike
    index = np.unravel_index(rng.choice(odds.size, p=odds / odds.sum()), tissues.wm.shape)
    blobs = _draw_blobs(rng, np.array(index) * COARSE_MM, core_ml)
    size = blobs[0].radius
    noises = [(Noise(rng, a), Noise(rng, b)) for a, b in ((max(0.7 * size, 6), max(0.3 * size, 4)), (18, 11), (24, 9))]
    return Plan(kind, core_ml, edema_ml, enhancing, float(np.sign(tissues.x[index])), blobs, *noises)


def _draw_blobs(rng: np.random.Generator, centre: np.ndarray, core_ml: float) -> tuple[Blob, ...]:
    """A main focus, lobes that stick out of it, now and then satellites away from it."""
    radius = (3000 * core_ml / (4 * np.pi)) ** (1 / 3)  # mm, of a sphere as large as the core
    reach = [(0.0, 1.0)] + [(rng.uniform(0.6, 1.1), rng.uniform(0.45, 0.8)) for _ in range(rng.integers(1, 5))]
    if rng.random() < 0.2:
        reach += [(rng.uniform(1.6, 2.5), rng.uniform(0.2, 0.5)) for _ in range(rng.integers(1, 3))]
    blobs = []
    for far, share in reach:
        direction = rng.normal(size=3)
        axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        stretch = np.exp(rng.normal(0, 0.2, 3))
        metric = np.diag(stretch / np.prod(stretch) ** (1 / 3)) @ axes.T
        blobs.append(Blob(centre + far * radius * direction / np.linalg.norm(direction), share * radius, metric))
    return tuple(blobs)


def grow_tumour(rng: np.random.Generator, head: Head, *, enhances: bool) -> tuple[Tumour, Head]:
    """Place a tumour in a head and push the head's tissue aside; gives the tumour and the head it has deformed."""
    coarse = field_grid(COARSE_MM)
    tissues = head.tissues(coarse)
    plan = draw_plan(rng, tissues, enhances=enhances)
    score = plan.core_score(coarse, tissues)
    core = score < _limit(score, plan.core_ml)
    swollen = travel(core, 0.3 + 0.7 * tissues.wm) < 12
    mass = rng.uniform(0.5, 1.3) * core + rng.uniform(0.05, 0.25) * (swollen & ~core)
    head = head.pushed(mass)
    tissues = head.tissues(coarse)
    score = plan.core_score(coarse, tissues)
    core_limit = _limit(score, plan.core_ml)
    depth = core_limit - score
    inside = depth > 0
    rim = plan.rim_score(coarse, depth)[inside]
    rim_limit = float(np.quantile(rim, plan.enhancing)) if enhances else -np.inf
    arrival = travel(inside, (tissues.wm + 0.4 * tissues.gm) * (tissues.brain > 0.5) * tissues.cerebrum)
    edema = np.where(inside, np.inf, plan.edema_score(coarse, tissues, arrival))
    return Tumour(plan, arrival, (core_limit, rim_limit, _limit(edema, plan.edema_ml))), head


def _limit(score: np.ndarray, volume_ml: float) -> float:
    """The score below which the wanted volume lies, on the coarse grid."""
    voxels = max(int(volume_ml * 1000 / COARSE_MM**3), 1)
    return float(np.partition(score.ravel(), voxels)[voxels])


def travel(start: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Shortest way from a region, longer where the going is slow (relaxation over 26 neighbours), on the coarse grid.

    Both are (X, Y, Z): `start` bool, `speed` from 0 for hardly passable to 1 for a mm per mm. Gives float32 mm, at most
    `FAR_MM`.
    """
    arrival = np.where(start, 0, FAR_MM).astype(np.float32)
    slowness = (COARSE_MM / np.clip(speed, 0.08, 1)).astype(np.float32)
    box = tuple(slice(max(i.min() - 18, 1), i.max() + 19) for i in np.nonzero(start))
    inner, step = arrival[box], slowness[box]
    moves = [move for move in product((-1, 0, 1), repeat=3) if any(move)]
    for _ in range(int(FAR_MM / COARSE_MM)):
        before = inner.copy()
        padded = np.pad(inner, 1, constant_values=FAR_MM)
        for i, j, k in moves:
            nx, ny, nz = inner.shape
            neighbour = padded[1 + i : 1 + i + nx, 1 + j : 1 + j + ny, 1 + k : 1 + k + nz]
            np.minimum(inner, neighbour + step * np.float32(np.sqrt(i * i + j * j + k * k)), out=inner)
        if np.array_equal(before, inner):
            break
    return arrival
