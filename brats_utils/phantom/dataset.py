"""The phantom: a synthetic data set in the layout of MSD Task01_BrainTumour, made without any download.

Brains come from the MNI152 maps inside nilearn's wheel (`anatomy`), tumours are grown in them (`tumour`) and four MR
sequences are simulated (`image`). It looks like BraTS and is not: no number measured on it says anything about patients.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from joblib import Parallel, cpu_count, delayed
from scipy import ndimage
from tqdm import tqdm

from brats_utils.config import COARSEST_MM
from brats_utils.labels import CHANNELS, MSD
from brats_utils.phantom.anatomy import COARSE_MM, Grid, Noise, Tissues, draw_head, field_grid
from brats_utils.phantom.image import render
from brats_utils.phantom.tumour import grow_tumour

VERSION = 4
"""Raise it with every change to what is generated, so that an older phantom is not reused."""


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic patient."""

    image: np.ndarray  # (X, Y, Z, 4) int16, channels in the order of `labels.CHANNELS`, 0 is background
    label: np.ndarray  # (X, Y, Z) uint8, schema `labels.MSD`
    affine: np.ndarray  # (4, 4) float64, voxel to mm, RAS+


def generate_case(seed: int, case_idx: int, *, spacing_mm: float = 2.0) -> PhantomCase:
    """Make one case; the same seed and index are the same patient at every spacing.

    Every third case has no enhancing tumour.

    Args:
        seed: of the data set, 0 or more.
        case_idx: number of the case, from 0.
        spacing_mm: voxel size; 1 mm gives MSD's 240 x 240 x 155.
    """
    head_rng, tumour_rng, image_rng = (np.random.default_rng([seed, case_idx, part]) for part in range(3))
    tumour, head = grow_tumour(tumour_rng, draw_head(head_rng), enhances=case_idx % 3 != 2)
    whole_field, coarse = field_grid(spacing_mm), field_grid(COARSE_MM)
    box = _brain_box(head.tissues(coarse), spacing_mm, whole_field.shape)
    grid = whole_field.crop(box)
    tissues = head.tissues(grid)
    depths = tumour.depths(grid, tissues)
    mask = _strip_skull(image_rng, grid, tissues)
    values = render(image_rng, grid, tissues, depths)
    label = np.zeros(whole_field.shape, dtype=np.uint8)
    for depth, value in zip(depths, (MSD.edema, MSD.necrotic, MSD.enhancing), strict=True):
        label[box][(depth > 0) & mask] = value
    image = np.zeros((*whole_field.shape, len(CHANNELS)), dtype=np.int16)
    image[box] = _digitise(image_rng, values, mask)
    return PhantomCase(image, label, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]))


def _brain_box(tissues: Tissues, spacing_mm: float, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The voxels of a grid around the brain, from the coarse grid's tissues: the rest is background and costs nothing."""
    voxels = COARSE_MM / spacing_mm
    extent = ndimage.find_objects((tissues.brain > 0.45).astype(np.uint8))[0]
    x, y, z = (
        slice(max(int((part.start - 1) * voxels), 0), min(int((part.stop + 1) * voxels), n))
        for part, n in zip(extent, shape, strict=True)
    )
    return x, y, z


def _strip_skull(rng: np.random.Generator, grid: Grid, tissues: Tissues) -> np.ndarray:
    """Bool mask of what is left of the scan: cut more or less close to the brain, now and then with slices missing."""
    mask = tissues.brain > rng.uniform(0.55, 0.72) + 0.03 * Noise(rng, 25).on(grid)
    if rng.random() < 0.06:
        missing = int(rng.uniform(0.05, 0.2) * len(grid.axes[2]))
        mask[:, :, slice(missing) if rng.random() < 0.5 else slice(-missing, None)] = False
    return mask


def _digitise(rng: np.random.Generator, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Integers in a scale of the scanner's own, background 0, of (X, Y, Z, 4) values; now and then a cut field of view."""
    image = np.zeros(values.shape, dtype=np.int16)
    for channel in range(values.shape[-1]):
        inside = values[..., channel][mask]
        # raw maxima in the release go from 300 to 32767
        scale = np.exp(rng.uniform(np.log(300), np.log(30000))) / inside.max()
        image[..., channel][mask] = np.clip(np.rint(inside * scale), 1, 32767)
    if rng.random() < 0.1:  # one sequence was planned too small
        cut = int(rng.uniform(0.03, 0.12) * values.shape[1])
        image[:, :cut, :, rng.integers(values.shape[-1])] = 0
    return image


def generate_dataset(
    root: Path, *, num_training: int, num_test: int = 2, spacing_mm: float = 2.0, seed: int = 0
) -> Path:
    """Write a phantom in the layout of MSD, or reuse the one that is there; give its folder.

    Args:
        root: folder to make, with dataset.json, imagesTr, labelsTr and imagesTs.
        num_training: labelled cases, 1 or more.
        num_test: cases without label, in imagesTs.
        spacing_mm: voxel size, up to `COARSEST_MM`.
        seed: of the whole data set, 0 or more.

    Raises:
        FileExistsError: if `root` holds anything but this very phantom.
        ValueError: if no phantom can be made with these numbers.
    """
    if not 0 < spacing_mm <= COARSEST_MM:  # NaN is neither
        raise ValueError(f"spacing: found {spacing_mm:g} mm, expected more than 0 and at most {COARSEST_MM}. Try 2.")
    if seed < 0 or num_training < 1:
        raise ValueError(
            f"Found seed {seed} and {num_training} cases, expected a seed of 0 or more and one case at least. Correct them."
        )
    document = _describe(num_training, num_test, spacing_mm, seed)
    entries = [*document["training"], *({"image": path} for path in document["test"])]
    if root.exists() and any(root.iterdir()):
        _check_same(root, document)
        return root
    print(f"Generating {len(entries)} synthetic cases at {spacing_mm:g} mm.", flush=True)
    partial = root.with_name(f".part-{os.getpid()}-{root.name}")
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (partial / folder).mkdir(parents=True)
    try:
        jobs = (delayed(_write_case)(partial, entry, seed, i, spacing_mm) for i, entry in enumerate(entries))
        workers = Parallel(n_jobs=cpu_count(), return_as="generator")
        for _ in tqdm(workers(jobs), desc="Phantom", total=len(entries)):
            pass
        (partial / "dataset.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        partial.replace(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _write_case(root: Path, entry: Mapping[str, str], seed: int, case_idx: int, spacing_mm: float) -> None:
    """Generate one case and write its files: `entry` says where under `root` its `image` goes, and its `label`."""
    case = generate_case(seed, case_idx, spacing_mm=spacing_mm)
    for part, path in entry.items():
        image = nib.Nifti1Image(getattr(case, part), case.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(case.affine, code=1)
        image.set_qform(case.affine, code=1)
        nib.save(image, root / path)


def _describe(num_training: int, num_test: int, spacing_mm: float, seed: int) -> dict[str, Any]:
    """The dataset.json; keys and spelling as in MSD's own, plus `phantom`."""
    names = [f"PHANTOM_{number:03d}.nii.gz" for number in range(1, num_training + num_test + 1)]
    return {
        "name": "BRATS",
        "description": "Synthetic gliomas in synthetic brains: for learning, never for medicine",
        "reference": "MNI ICBM152 2009a maps as shipped with nilearn",
        "licence": "Apache-2.0",
        "release": f"phantom {VERSION}",
        "tensorImageSize": "4D",
        "modality": {str(i): "t1gd" if name == "T1gd" else name for i, name in enumerate(CHANNELS)},
        "labels": {
            "0": "background",
            str(MSD.edema): "edema",
            str(MSD.necrotic): "non-enhancing tumor",
            str(MSD.enhancing): "enhancing tumour",
        },
        "numTraining": num_training,
        "numTest": num_test,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:num_training]],
        "test": [f"./imagesTs/{name}" for name in names[num_training:]],
        "phantom": {"version": VERSION, "seed": seed, "spacing_mm": spacing_mm},
    }


def _check_same(root: Path, document: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but the phantom described."""
    path = root / "dataset.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == document:
        return
    keys = ("phantom", "numTraining", "numTest")
    expected = {key: document[key] for key in keys}
    what = {key: found.get(key) for key in keys} if isinstance(found, dict) else "files but no readable dataset.json"
    raise FileExistsError(
        f"{root}: found {what}, expected {expected}. "
        "Choose another folder, or move this one elsewhere to have it generated again."
    )
