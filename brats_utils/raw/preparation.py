"""Raw scans of a patient to four files on one grid, brain only: what prediction, evaluation and training take."""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from brats_utils.cases.case import CaseError
from brats_utils.cases.checks import find_tissue, find_warnings
from brats_utils.cases.geometry import find_box
from brats_utils.labels import CHANNELS, FILE_NAMES
from brats_utils.paths import display_path, publish, write_text
from brats_utils.patients.prediction import refuse_earlier
from brats_utils.raw.agreement import check_agreement
from brats_utils.raw.brain import find_brains, read_brain_mask
from brats_utils.raw.grid import SPACING_MM, array_of, build_grid, crop_to
from brats_utils.raw.inputs import doubt_body_parts, read_scans
from brats_utils.raw.picture import plot_preparation
from brats_utils.raw.registration import Registration, register, stay
from brats_utils.raw.series import RawScan, Series
from brats_utils.report.drawing import render_png

LAST = "preparation.json"
"""The file that says that the others are whole."""

WRITTEN = (
    *(f"{name}.nii.gz" for name in (*FILE_NAMES.values(), "brain_mask")),
    *(f"transforms/{name}.tfm" for name in FILE_NAMES.values()),
    "preparation.png",
    LAST,
)

RIM_MM = 1.0
"""What is taken off around deepbet's brain, which holds some fluid and dura that the network calls tumour.

With it, three raw phantoms in slices of 3 mm gain .04, .03 and .01 (mean Dice of TC, WT, ET; one of them .13, .12 and .04, the
others lose up to .03), and TCGA-FG-6692 .00, .00 and .01; 2026-11-30, `benchmarks.raw`.
"""


@dataclass(frozen=True)
class Preparation:
    """What was prepared, and how to get back to the raw scans."""

    folder: Path  # with the files of `WRITTEN`
    scans: dict[str, RawScan]  # by channel, in the order of `CHANNELS`
    registrations: dict[str, Registration]  # by channel; that of the reference moves nothing
    reference: str  # the channel whose space it is
    brain: sitk.Image  # uint8 on the prepared grid
    content: dict[str, Any]  # of preparation.json

    @property
    def images(self) -> tuple[Path | None, ...]:
        """The prepared files in the order of `CHANNELS`, as `Case.images` has them."""
        return tuple(self.folder / f"{FILE_NAMES[name]}.nii.gz" if name in self.scans else None for name in CHANNELS)


def prepare_patient(
    scans: Mapping[str, Path | Series], out_dir: Path, *, brain_mask: Path | None = None, overwrite: bool = False
) -> Preparation:
    """Bring the raw scans of a patient onto one grid, take the brain out, and write all that `WRITTEN` lists.

    The space is that of T1gd, or of the first that is there; voxels are cubes of `SPACING_MM`. Each scan is interpolated
    once, from its raw voxels. All files appear at once, so whoever interrupts a preparation finds nothing of it.

    Args:
        scans: by the names of `CHANNELS`; NIfTI files, or folders with a DICOM series. One may be missing.
        out_dir: folder to make.
        brain_mask: the brain, on the grid of one of the scans; None to let `deepbet` find it.
        overwrite: replace an earlier preparation, and any other file of these names.

    Raises:
        CaseError: see `read_scans`; one is of another head or of none, no brain is found, or `out_dir` holds a file of these
            names already.
    """
    started = time.monotonic()
    if not overwrite:
        refuse_earlier(out_dir, written=WRITTEN, kind="preparation")
    raw = read_scans(scans)
    images = {name: scan.image for name, scan in raw.items()}
    _keep_sources([*(scan.series.path for scan in raw.values()), *([brain_mask] if brain_mask else [])], out_dir)
    reference = "T1gd" if "T1gd" in raw else next(iter(raw))
    given = read_brain_mask(brain_mask, images) if brain_mask else None
    brains = find_brains(images, given=given)
    with ThreadPoolExecutor() as threads:  # each takes one core, see `register`
        found = threads.map(lambda name: _register(raw, brains.stripped, brains.masks, name, reference), raw)
        registrations = dict(zip(raw, found, strict=True))
    agreements, doubts = check_agreement(images, brains.masks, registrations, reference=reference)
    brain = _place_brain(brains.masks[brains.source], registrations[brains.source], images[reference])
    if not brain_mask and brains.source not in brains.stripped:
        brain = _take_off_rim(brain)
    heads = {name: _resample(scan.image, brain, registrations[name]) for name, scan in raw.items()}
    prepared = {name: _strip(heads[name], brain, stripped=name in brains.stripped) for name in raw}
    values = np.stack([array_of(image) for image in prepared.values()])
    values = values[:, *find_box(find_tissue(torch.from_numpy(values)))]  # as `read_case` sees them, in the same words
    warnings = [
        *doubt_body_parts(raw),
        *brains.warnings,
        *doubts,
        *find_warnings(values, list(raw), spacing_mm=[SPACING_MM] * 3),
    ]
    content: dict[str, Any] = {
        "reference": reference,
        "spacing_mm": SPACING_MM,
        "size": list(brain.GetSize()),
        "brain": brains.source if not brain_mask else "given",
        "brain_ml": round(float(sitk.GetArrayViewFromImage(brain).sum()) * SPACING_MM**3 / 1000, 1),
        "channels": {name: _describe(raw[name], registrations[name]) | agreements.get(name, {}) for name in raw},
        "warnings": warnings,
        "versions": _list_versions(),
        "note": "Not for clinical use.",
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".part-", dir=out_dir) as folder:
        made = Path(folder)
        (made / "transforms").mkdir()
        for name, image in prepared.items():
            sitk.WriteImage(image, str(made / f"{FILE_NAMES[name]}.nii.gz"))
            sitk.WriteTransform(registrations[name].transform, str(made / f"transforms/{FILE_NAMES[name]}.tfm"))
        sitk.WriteImage(brain, str(made / "brain_mask.nii.gz"))
        picture = plot_preparation(
            {name: array_of(head) for name, head in heads.items()}, array_of(brain) > 0, reference=reference
        )
        (made / "preparation.png").write_bytes(render_png(picture))
        content["seconds"] = round(time.monotonic() - started, 1)
        write_text(made / LAST, json.dumps(content, indent=1))
        publish(made, out_dir, names=WRITTEN)
    return Preparation(out_dir, raw, registrations, reference, brain, content)


def _keep_sources(sources: Sequence[Path], out_dir: Path) -> None:
    """Refuse to write over what is read."""
    written = {(out_dir / name).resolve() for name in WRITTEN}
    for source in sources:
        if source.resolve() in written:
            raise CaseError(
                f"{display_path(source)}: found a raw scan where a prepared one of this name would be written, expected another "
                "folder. Choose one for --out."
            )


def _register(
    raw: Mapping[str, RawScan], stripped: frozenset[str], brains: Mapping[str, sitk.Image], name: str, reference: str
) -> Registration:
    """Head to head, or brain to brain where one of them has no skull."""
    fixed, moving = raw[reference].image, raw[name].image
    one_grid = all(_same_grid(scan.image, fixed) for scan in raw.values())
    if name == reference or (one_grid and len(stripped) == len(raw)):  # whoever strips scans has registered them before
        return stay(fixed)
    if (name in stripped) != (reference in stripped):
        fixed, moving = (sitk.Mask(raw[one].image, brains[one]) for one in (reference, name))
    return register(fixed, moving)


def _same_grid(image: sitk.Image, other: sitk.Image) -> bool:
    return image.GetSize() == other.GetSize() and np.allclose(
        [*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()],
        [*other.GetOrigin(), *other.GetSpacing(), *other.GetDirection()],
        atol=1e-3,
    )


def _place_brain(mask: sitk.Image, registration: Registration, reference: sitk.Image) -> sitk.Image:
    """The brain on the prepared grid, which is cut to it, with room around."""
    soft = sitk.Cast(mask, sitk.sitkFloat32)
    return crop_to(_resample(soft, build_grid(reference), registration) > 0.5)


def _take_off_rim(brain: sitk.Image) -> sitk.Image:
    """Erode a mask by `RIM_MM`; voxels that are larger stay."""
    radius = int(RIM_MM // brain.GetSpacing()[0])
    return sitk.BinaryErode(brain, [radius] * 3, sitk.sitkCross)


def _resample(image: sitk.Image, grid: sitk.Image, registration: Registration) -> sitk.Image:
    """The one interpolation, from the raw voxels; 0 where nothing was taken."""
    return sitk.Resample(image, grid, registration.transform, sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def _strip(head: sitk.Image, brain: sitk.Image, *, stripped: bool) -> sitk.Image:
    """Keep the brain alone; what was stripped keeps its own, without what interpolation leaves around it."""
    return sitk.Mask(head, sitk.Abs(head) > 1e-3 if stripped else brain)


def _describe(scan: RawScan, registration: Registration) -> dict[str, Any]:
    """What preparation.json says of a channel."""
    return {
        "series": scan.series.name,
        "dicom": dict(scan.series.words),
        "size": list(scan.image.GetSize()),
        "spacing_mm": [round(size, 4) for size in scan.image.GetSpacing()],
        "start": registration.start,
        "rotation_deg": round(registration.rotation_deg, 2),
        "shift_mm": round(registration.shift_mm, 2),
        "transform": registration.matrix.round(6).tolist(),
        "mutual_information": {"before": round(registration.before, 3), "after": round(registration.after, 3)},
    }


def _list_versions() -> dict[str, str]:
    found = {}
    for package in ("brats-utils", "SimpleITK", "deepbet", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
