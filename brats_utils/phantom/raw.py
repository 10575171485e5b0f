"""Raw scans of a phantom: heads as a clinical scanner would take them, each sequence with the patient lying otherwise.

What nobody knows of a real patient is known here: the true brain, the true labels, and how the head lay in each scan.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from brats_utils.labels import CHANNELS, MSD
from brats_utils.phantom.anatomy import COARSE_MM, Grid, draw_head, field_grid
from brats_utils.phantom.head import WholeHead, build_head
from brats_utils.phantom.image import SEQUENCES
from brats_utils.phantom.tumour import grow_tumour

PIXEL_MM = 0.9
"""In-plane. Source: .898 mm in the raw scans of TCGA-FG-6692 (TCGA-LGG)."""

COLUMNS, ROWS = 224, 272
"""Voxels of a slice, from the patient's right to left and from front to back."""

ROOM_MM = (18.0, 12.0)
"""How far the slices go beyond the brain, below and above."""

CUT_MM = 22.0
"""What is missing of the brain where the slices were planned too few."""

NOSE_MM = 6.0
"""The field of view reaches this much farther to the front than to the back of the brain."""

NOISE = 0.35
"""SD of the noise in white matter of brightness 1, at a sequence's own `noise` of 1. The background of raw scans of
TCGA-FG-6692 is then met: 2 to 4 hundredths of the brightest."""

NAMES = dict(zip(CHANNELS, ("flair", "t1", "t1gd", "t2"), strict=True))
"""Files and folders of the raw scans."""


@dataclass(frozen=True)
class RawPatient:
    """The raw scans of one synthetic patient, and the truth."""

    scans: dict[str, Path]  # by the names of `CHANNELS`: a NIfTI file, or the folder of a DICOM series
    transforms: dict[str, np.ndarray]  # by channel (4, 4): points of T1gd's space to those of the channel's, mm, LPS
    brain: Path  # NIfTI: the true brain, on the grid of `label`
    label: Path  # NIfTI: the true labels, schema `labels.MSD`, on a grid of 1 mm in the space of T1gd


def generate_raw_patient(
    out_dir: Path,
    *,
    seed: int,
    slice_mm: float = 5.5,
    shift_mm: float = 20,
    degrees: float = 15,
    dicom: bool = False,
    detail_mm: float = 1.0,
) -> RawPatient:
    """Write four raw scans of one phantom, with skull, each on a grid of its own, and the truth beside them.

    Between the scans the patient moves: the head turns about its centre and shifts, up to the largest values given. FLAIR
    or T2w lacks the lowest or the highest part of the brain. The same seed is the same patient, however it is scanned.

    Args:
        out_dir: folder to make, with `flair`, `t1`, `t1gd`, `t2`, and `truth`; earlier ones are replaced.
        seed: of the patient, 0 or more; every third has no enhancing tumour.
        slice_mm: thickness of the slices, over which the signal is averaged; they touch.
        shift_mm: the largest shift against T1gd.
        degrees: the largest rotation against T1gd.
        dicom: write DICOM series, a folder each, rather than NIfTI files; needs pydicom.
        detail_mm: voxel size of the head before it is scanned; coarser is quicker.
    """
    rng = np.random.default_rng([seed, 3, 0, 25])
    head = _grow(seed, detail_mm)
    points = to_lps(np.argwhere(head.brain > 0), head.grid)
    middle = points.mean(axis=0)
    pose = _draw_motion(rng, middle, shift_mm=8, degrees=5)  # from the head's own space to that of T1gd
    cut, low = rng.choice(["FLAIR", "T2w"]), bool(rng.random() < 0.5)
    scans, transforms = {}, {}
    out_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=out_dir) as folder:
        made = Path(folder)
        for channel, name in enumerate(CHANNELS):
            moved = _draw_motion(rng, apply(pose, middle), shift_mm=shift_mm, degrees=degrees)
            transforms[name] = np.eye(4) if name == "T1gd" else moved
            there = transforms[name] @ pose
            grid = plan_slices(rng, apply(there, points), slice_mm, cut_low=low if name == cut else None)
            image = scan(rng, volume_of(head.channels[channel], head.grid), there, grid, noise=SEQUENCES[name].noise)
            scans[name] = out_dir / _write(image, made / NAMES[name], channel=name, seed=seed, dicom=dicom).name
        _write_truth(head, pose, points, made)
        for path in made.iterdir():
            _replace(path, out_dir / path.name)
    return RawPatient(scans, transforms, out_dir / "truth/brain.nii.gz", out_dir / "truth/label.nii.gz")


def _grow(seed: int, detail_mm: float) -> WholeHead:
    """The head with its tumour: none of those that `dataset.generate_case` makes, so that no network has seen it."""
    head_rng, tumour_rng, image_rng = (np.random.default_rng([seed, part, 0, 25]) for part in range(3))
    tumour, head = grow_tumour(tumour_rng, draw_head(head_rng), enhances=seed % 3 != 2)
    extent = ndimage.find_objects((head.tissues(field_grid(COARSE_MM)).brain > 0).astype(np.uint8))[0]
    box = tuple(slice(int(p.start * COARSE_MM / detail_mm), int(p.stop * COARSE_MM / detail_mm)) for p in extent)
    return build_head(image_rng, head, tumour, brain_grid=field_grid(detail_mm).crop((box[0], box[1], box[2])))


def _draw_motion(rng: np.random.Generator, middle: np.ndarray, *, shift_mm: float, degrees: float) -> np.ndarray:
    """A rotation about `middle` and a shift, each in any direction and between 0.3 and 1 of the largest: (4, 4)."""
    axis, direction = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(rng.uniform(0.3, 1) * degrees * axis, degrees=True).as_matrix()
    motion[:3, 3] = middle - motion[:3, :3] @ middle + rng.uniform(0.3, 1) * shift_mm * direction
    return motion


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move points, (..., 3), by a (4, 4) matrix."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def to_lps(voxels: np.ndarray, grid: Grid) -> np.ndarray:
    """Positions in mm, LPS, of voxels, (N, 3): the grid counts to the right and to the front, DICOM the other way."""
    return np.stack([sign * axis[part] for sign, axis, part in zip((-1, -1, 1), grid.axes, voxels.T, strict=True)], 1)


def volume_of(values: np.ndarray, grid: Grid) -> sitk.Image:
    """Give SimpleITK (X, Y, Z) values on a grid of the phantom."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32))
    image.SetSpacing([float(axis[1] - axis[0]) for axis in grid.axes])
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin(to_lps(np.zeros((1, 3), dtype=int), grid)[0].tolist())
    return image


def plan_slices(
    rng: np.random.Generator, points: np.ndarray, slice_mm: float, *, cut_low: bool | None = None
) -> sitk.Image:
    """Lay slices over the brain as a radiographer does, tilted towards the base of the skull: an empty image.

    `points`, (N, 3) in mm, LPS, are those of the brain. `cut_low` leaves its lowest or its highest part out.
    """
    tilt = [rng.uniform(-18, 2), rng.uniform(-3, 3), rng.uniform(-3, 3)]
    direction = Rotation.from_euler("XYZ", tilt, degrees=True).as_matrix()
    along = points @ direction
    low, high = along[:, 2].min() - ROOM_MM[0], along[:, 2].max() + ROOM_MM[1]
    if cut_low is not None:
        low, high = (low + ROOM_MM[0] + CUT_MM, high) if cut_low else (low, high - ROOM_MM[1] - CUT_MM)
    slices = int(np.ceil((high - low) / slice_mm))
    middle = (along[:, :2].min(axis=0) + along[:, :2].max(axis=0)) / 2 + [0, -NOSE_MM] + rng.uniform(-5, 5, 2)
    first = [*(middle - PIXEL_MM * (np.array([COLUMNS, ROWS]) - 1) / 2), low + slice_mm / 2]
    grid = sitk.Image([COLUMNS, ROWS, slices], sitk.sitkUInt8)
    grid.SetSpacing([PIXEL_MM, PIXEL_MM, slice_mm])
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin((direction @ first).tolist())
    return grid


def scan(
    rng: np.random.Generator, volume: sitk.Image, pose: np.ndarray, grid: sitk.Image, *, noise: float
) -> sitk.Image:
    """Take a scan: uint16 on `grid`, averaged over the slices, shaded by the coil, with noise, in a unit of its own.

    `pose` moves points of the volume to where they lie in the scanner, (4, 4), mm, LPS. `noise` is the SD relative to
    that of normal brain. Source: Gudbjartsson 1995 (MRM 34:910), magnitudes are Rician, in the background as well.
    """
    parts = max(1, round(grid.GetSpacing()[2] / PIXEL_MM))
    step = grid.GetSpacing()[2] / parts
    direction = np.reshape(grid.GetDirection(), (3, 3))
    origin = np.array(grid.GetOrigin()) + direction[:, 2] * (step - grid.GetSpacing()[2]) / 2
    columns, rows, slices = grid.GetSize()
    fine = sitk.Resample(volume, [columns, rows, slices * parts], to_sitk(np.linalg.inv(pose)), sitk.sitkLinear,
                         origin.tolist(), [PIXEL_MM, PIXEL_MM, step], grid.GetDirection())  # fmt: skip
    signal = sitk.GetArrayViewFromImage(fine).reshape(slices, parts, rows, columns).mean(axis=1)
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in signal.shape)
    slope = rng.normal(0, 0.07, 3).astype(np.float32)
    near = (z**2)[:, None, None] + (y**2)[:, None] + x**2  # the coil lies around the head
    signal *= 1 + (slope[0] * z)[:, None, None] + (slope[1] * y)[:, None] + slope[2] * x + rng.uniform(0, 0.12) * near
    sd = NOISE * noise * rng.uniform(0.7, 1.4)
    real, imaginary = (rng.normal(0, sd, signal.shape).astype(np.float32) for _ in range(2))
    magnitude = np.hypot(signal + real, imaginary)
    brightest = np.exp(rng.uniform(np.log(400), np.log(4000)))  # raw maxima: no two scanners share a unit
    counts = np.clip(np.rint(magnitude * brightest / np.percentile(magnitude, 99.9)), 0, 4095)
    image = sitk.GetImageFromArray(counts.astype(np.uint16))
    image.CopyInformation(grid)
    return image


def to_sitk(matrix: np.ndarray) -> sitk.AffineTransform:
    """A (4, 4) matrix for SimpleITK."""
    return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())


def _write(image: sitk.Image, stem: Path, *, channel: str, seed: int, dicom: bool) -> Path:
    if dicom:
        from brats_utils.phantom.series import write_series  # pydicom is in the extra `raw`

        return write_series(image, stem, channel=channel, seed=seed)
    path = stem.with_name(f"{stem.name}.nii.gz")
    sitk.WriteImage(image, str(path))
    return path


def _write_truth(head: WholeHead, pose: np.ndarray, points: np.ndarray, folder: Path) -> None:
    """Brain and labels on 1 mm, axes to left, posterior and superior, around the brain as it lies in T1gd."""
    there = apply(pose, points)
    low = np.floor(there.min(axis=0)) - 10
    grid = sitk.Image(np.ceil(there.max(axis=0) - low + 10).astype(int).tolist(), sitk.sitkUInt8)
    grid.SetOrigin(low.tolist())
    back = to_sitk(np.linalg.inv(pose))
    volumes = [volume_of(part, head.grid) for part in (head.brain, *head.depths)]
    brain, whole, core, enhancing = (sitk.Resample(one, grid, back, sitk.sitkLinear, -99.0) > 0 for one in volumes)
    label = sitk.Image(grid)
    for region, value in ((whole, MSD.edema), (core, MSD.necrotic), (enhancing, MSD.enhancing)):
        label = sitk.Mask(label, region & brain, outsideValue=value, maskingValue=1)
    (folder / "truth").mkdir()
    sitk.WriteImage(brain, str(folder / "truth/brain.nii.gz"))
    sitk.WriteImage(label, str(folder / "truth/label.nii.gz"))


def _replace(path: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    path.replace(target)
