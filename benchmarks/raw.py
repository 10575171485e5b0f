"""What is lost between the scanner and the labels: `python -m benchmarks.raw`.

Not part of a plain `make bench`: twelve heads in three slice thicknesses take about an hour on two cores. Heads of the raw
phantom are moved by up to 20 mm and 15 degrees between the scans. Each is prepared twice: perfectly, with the true motions
and the true brain in one interpolation, and by `raw.preparation.prepare_patient`. The pretrained network segments both, and
both are scored against the true labels. What is finished is kept in runs/bench/raw.json and not done again.

`--real FOLDER` does it for the raw patient TCGA-FG-6692 in a folder like `../shared/real`: its brain against HD-BET's masks,
its regions against the vote of five algorithms, after the vote's scans were registered to the prepared ones. With
`--pictures docs/images` it draws instead that patient's preparation and his labels on the raw scans (CC BY 3.0, The Cancer
Imaging Archive, TCGA-LGG).
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks.common import FOLDER, describe_machine, print_table
from brats_utils.cases.case import Case
from brats_utils.cases.reader import read_case
from brats_utils.inference import Predictor, build_predictor, predict_scan
from brats_utils.labels import BRATS_2021, CHANNELS, FILE_NAMES, MSD, REGIONS, LabelSchema, labels_to_regions
from brats_utils.metrics import dice_per_region
from brats_utils.paths import write_text
from brats_utils.phantom.raw import RawPatient, apply, generate_raw_patient, to_sitk
from brats_utils.post_processing import threshold_probabilities
from brats_utils.raw.agreement import measure_overlap
from brats_utils.raw.native import predict_raw_patient
from brats_utils.raw.preparation import Preparation, prepare_patient
from brats_utils.raw.registration import register
from brats_utils.raw.views import plot_raw
from brats_utils.report.drawing import render_png
from brats_utils.saving.checkpoints import PRETRAINED, load_checkpoint

HEADS = 12
SLICES_MM = (1.0, 3.0, 5.5)
STILL = sitk.Transform(3, sitk.sitkIdentity)
RAW_NAMES = {"FLAIR": "fla", "T1w": "t1", "T1gd": "t1c", "T2w": "t2"}
"""Files of the raw patient, and of HD-BET's masks after `hdbet_`."""


def main(heads: int = HEADS, slices_mm: tuple[float, ...] = SLICES_MM) -> None:
    """Measure, in processes of their own so that the peak of the memory is that of one preparation, and print a table."""
    path = FOLDER / "raw.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for seed in range(heads):
        for slice_mm in slices_mm:
            key = f"head {seed}, slices of {slice_mm:g} mm"
            if key in done:
                continue
            folder = FOLDER / "raw" / f"{seed}-{slice_mm:g}mm"
            patient = run_apart(partial(generate_raw_patient, folder / "scans", seed=seed, slice_mm=slice_mm))
            done[key] = {"slice_mm": slice_mm} | run_apart(partial(measure_phantom, patient, folder / "prepared"))
            write_text(path, json.dumps(done, indent=1))
            print(f"{key}: {done[key]}", flush=True)
    report([row for row in done.values() if row["slice_mm"] in slices_mm])


def run_apart(job: Callable[[], Any]) -> Any:
    """Run something in a fresh process and give what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(job).result()


def measure_phantom(patient: RawPatient, folder: Path) -> dict[str, Any]:
    """Prepare and predict one head in both ways; `folder` gets the files."""
    start = time.perf_counter()
    preparation = prepare_patient(patient.scans, folder / "ours", overwrite=True)
    prepared_in = time.perf_counter() - start
    predictor = build_predictor([load_checkpoint(PRETRAINED)])
    probabilities = predict_files(predictor, preparation.images)
    total, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    brain, label = (sitk.ReadImage(str(path)) for path in (patient.brain, patient.label))
    perfect = predict_files(predictor, prepare_perfectly(patient, brain, folder / "perfect"))
    return {
        "error_mm": measure_errors(preparation, patient, brain),
        "brain": measure_overlap(brain, preparation.brain, STILL),
        "perfect": score(perfect, brain, label, STILL, MSD, like=brain),
        "ours": score(probabilities, brain, label, STILL, MSD, like=preparation.brain),
        "seconds": {"prepared": round(prepared_in, 1), "and predicted": round(total, 1)},
        "gigabytes": round(peak * 1024 / 1e9, 2),
        "warnings": preparation.content["warnings"],
    }


def predict_files(predictor: Predictor, images: tuple[Path | None, ...]) -> torch.Tensor:
    """Probabilities, (3, X, Y, Z), of four prepared files."""
    return predict_scan(predictor, read_case(Case("raw", images), incomplete=True)).probabilities


def prepare_perfectly(patient: RawPatient, brain: sitk.Image, folder: Path) -> tuple[Path, ...]:
    """Write what a preparation without any error would: true motions, true brain, one interpolation."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for channel, path in patient.scans.items():
        scan = sitk.ReadImage(str(path), sitk.sitkFloat32)
        moved = sitk.Resample(scan, brain, to_sitk(patient.transforms[channel]), sitk.sitkLinear, 0.0)
        paths.append(folder / f"{FILE_NAMES[channel]}.nii.gz")
        sitk.WriteImage(sitk.Mask(moved, brain), str(paths[-1]))
    return tuple(paths)


def measure_errors(preparation: Preparation, patient: RawPatient, brain: sitk.Image) -> dict[str, list[float]]:
    """How far registration misplaces a thousand points of the brain, in mm, by channel: median and 95th percentile."""
    voxels = np.argwhere(sitk.GetArrayViewFromImage(brain) > 0)[:, ::-1]
    chosen = voxels[:: max(1, len(voxels) // 1000)]
    points = np.array([brain.TransformIndexToPhysicalPoint(voxel.tolist()) for voxel in chosen])
    errors = {}
    for channel, registration in preparation.registrations.items():
        if channel != preparation.reference:
            apart = apply(registration.matrix, points) - apply(patient.transforms[channel], points)
            distance = np.linalg.norm(apart, axis=1)
            errors[channel] = [round(float(np.percentile(distance, part)), 3) for part in (50, 95)]
    return errors


def score(
    probabilities: torch.Tensor,
    grid: sitk.Image,
    label: sitk.Image,
    transform: sitk.Transform,
    schema: LabelSchema,
    *,
    like: sitk.Image,
) -> list[float]:
    """Dice of TC, WT and ET on a grid of 1 mm.

    Args:
        probabilities: (3, X, Y, Z) on the voxels of `like`.
        grid: where they are compared, in the space of `like`.
        label: the truth in numbers of `schema`, anywhere.
        transform: from points of the grid to those of the label.
        schema: the label's convention.
        like: see `probabilities`.
    """
    carried = []
    for volume in probabilities.numpy():
        image = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0)))
        image.CopyInformation(like)
        carried.append(sitk.GetArrayFromImage(sitk.Resample(image, grid, STILL, sitk.sitkLinear, 0.0)))
    _, found = threshold_probabilities(torch.from_numpy(np.stack(carried)), [True] * 3, voxel_ml=1e-3)
    moved = sitk.Resample(label, grid, transform, sitk.sitkNearestNeighbor, 0)
    truth = labels_to_regions(torch.from_numpy(sitk.GetArrayFromImage(moved).astype(np.uint8)), schema)
    return [round(float(dice), 4) for dice in dice_per_region(found, truth)]


def report(rows: list[Mapping[str, Any]]) -> None:
    """Print the table, a row for each thickness and one for all."""
    thicknesses = sorted({row["slice_mm"] for row in rows})
    groups = {f"{mm:g} mm": [row for row in rows if row["slice_mm"] == mm] for mm in thicknesses}
    header = ["slices", "heads", "error, mm: median (95%)", "brain", "TC, WT, ET perfect", "TC, WT, ET ours", "s", "GB"]
    lines = []
    for name, group in {**groups, "all": rows}.items():
        medians, highs = (
            [error[part] for row in group for error in row["error_mm"].values()] for part in (0, 1)
        )  # of each scan
        dice = {way: np.mean([row[way] for row in group], axis=0) for way in ("perfect", "ours")}
        lines.append([
            name, len(group), f"{np.median(medians):.2f} ({np.percentile(highs, 95):.2f})",
            f"{np.mean([row['brain'] for row in group]):.3f}",
            *(", ".join(f"{value:.3f}" for value in dice[way]) for way in ("perfect", "ours")),
            f"{np.median([row['seconds']['and predicted'] for row in group]):.0f}",
            f"{max(row['gigabytes'] for row in group):.1f}",
        ])  # fmt: skip
    print_table(f"Raw scans, {describe_machine()}", header, lines)


def measure_real(folder: Path) -> None:
    """Prepare and predict the raw patient; print Dice of the brain against HD-BET's, and of the regions against the vote."""
    raw, vote = folder / "raw/TCGA-FG-6692", folder / "tcga/TCGA-FG-6692"
    start = time.perf_counter()
    scans = {channel: raw / f"{name}.nii.gz" for channel, name in RAW_NAMES.items()}
    preparation = prepare_patient(scans, FOLDER / "raw/real", overwrite=True)
    probabilities = predict_files(build_predictor([load_checkpoint(PRETRAINED)]), preparation.images)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    brains = []
    for channel in CHANNELS:
        truth = sitk.ReadImage(str(raw / f"hdbet_{RAW_NAMES[channel]}.nii.gz"))
        back = preparation.registrations[channel].transform.GetInverse()
        brains.append(measure_overlap(truth, preparation.brain, back))
    ours = sitk.ReadImage(str(preparation.folder / f"{FILE_NAMES['T1gd']}.nii.gz"), sitk.sitkFloat32)
    atlas = register(ours, sitk.ReadImage(str(vote / "t1ce.nii.gz"), sitk.sitkFloat32))
    label = sitk.ReadImage(str(vote / "seg_consensus.nii.gz"))
    dice = score(probabilities, ours, label, atlas.transform, BRATS_2021, like=preparation.brain)
    print_table(
        f"TCGA-FG-6692 raw, {describe_machine()}",
        [*(f"brain {channel}" for channel in CHANNELS), *(region.name for region in REGIONS), "s", "GB"],
        [[*(f"{value:.3f}" for value in (*brains, *dice)), f"{seconds:.0f}", f"{peak * 1024 / 1e9:.1f}"]],
    )
    print(
        f"vote to ours: {atlas.rotation_deg:.1f} degrees, agreement {atlas.before:.2f} before, {atlas.after:.2f} after"
    )


def draw_real(folder: Path, out_dir: Path) -> None:
    """Draw `raw_preparation.png` and `raw_labels.png` of the raw patient, and of no other: his licence allows it."""
    scans = {channel: folder / f"raw/TCGA-FG-6692/{name}.nii.gz" for channel, name in RAW_NAMES.items()}
    made = FOLDER / "raw/pictures"
    predict_raw_patient(build_predictor([load_checkpoint(PRETRAINED)]), scans, made, overwrite=True)
    labels = {channel: sitk.ReadImage(str(made / f"native/{FILE_NAMES[channel]}.nii.gz")) for channel in CHANNELS}
    figure = plot_raw({channel: sitk.ReadImage(str(path)) for channel, path in scans.items()}, labels)
    pictures = {
        "raw_labels.png": render_png(figure),
        "raw_preparation.png": (made / "prepared/preparation.png").read_bytes(),
    }
    for name, content in pictures.items():
        (out_dir / name).write_bytes(content)
        print(f"{out_dir / name}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=HEADS, help="how many phantoms")
    parser.add_argument("--slices", type=float, nargs="+", default=SLICES_MM, help="thicknesses in mm")
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="the raw patient of such a folder instead")
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="with --real: draw it for the docs, into this folder"
    )
    args = parser.parse_args()
    if args.pictures and args.real:
        draw_real(args.real, args.pictures)
    elif args.real:
        measure_real(args.real)
    else:
        main(args.heads, tuple(args.slices))
