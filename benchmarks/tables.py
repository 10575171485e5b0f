"""Tables for W&B: the usual recipe against ours, in one run, on a synthetic case of full size.

Run as `python -m benchmarks.tables`. The usual recipe is written anew here: it makes a mask for each
picture, and it shows every slice of the volume. Two questions are timed, from tensors to an offline run on disk:

1. The same slices, pictures and layers: how many seconds does a row take?
2. The table of one case as each recipe shows it by default: how many seconds and bytes?
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import wandb

from brats_utils.labels import MSD, REGIONS, labels_to_regions
from brats_utils.phantom.dataset import generate_case
from brats_utils.report.page import ReportCase
from brats_utils.report.slices import tumour_slices, upright_slice, window_volume
from brats_utils.tables import ROW_HEADER, build_data_table, build_prediction_table, choose_stride
from brats_utils.tracking import start_run

REPEATS = 5
Recipe = Callable[[], wandb.Table]
Scale = Callable[[torch.Tensor], np.ndarray]


class Measured(NamedTuple):
    """What a table cost."""

    rows: int
    seconds: float
    megabytes: float


def build_case() -> ReportCase:
    """Make a case of 240 x 240 x 155 voxels; its prediction is the truth, moved by a few voxels."""
    phantom = generate_case(0, 0, spacing_mm=1.0)
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(phantom.image, -1, 0), np.float32))
    truth = labels_to_regions(torch.from_numpy(phantom.label), MSD)
    return ReportCase("phantom", image, truth, truth.roll(3, dims=1), (1.0, 1.0, 1.0))


def scale_slices_alone(image: torch.Tensor) -> np.ndarray:
    """Scale each slice to 8-bit grey by its own darkest and brightest voxel, as the usual recipe leaves it to W&B.

    Args:
        image: (C, X, Y, Z) float.

    Returns:
        (C, X, Y, Z) uint8.
    """
    values = image.numpy()
    low, high = values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True)
    return (255 * (values - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)


def build_layer(regions: np.ndarray, region_idx: int, slice_idx: int) -> dict[str, Any]:
    """Describe one layer in plain data, which W&B writes anew for each picture.

    Args:
        regions: (3, X, Y, Z) float32, as transforms leave them.
        region_idx: index into `REGIONS`.
        slice_idx: index along Z.
    """
    label = region_idx + 1
    mask = upright_slice(regions[region_idx], slice_idx) * label
    return {"mask_data": mask, "class_labels": {label: REGIONS[region_idx].title}}


def build_usual_data_table(case: ReportCase, slices: Sequence[int], scale: Scale) -> wandb.Table:
    """Build the table of data, picture by picture."""
    grey, truth = scale(case.image), case.truth.float().numpy()
    table = wandb.Table(columns=[*ROW_HEADER, *(f"Image-Channel-{channel}" for channel in range(4))])
    for slice_idx in slices:
        pictures = []
        for channel in range(4):
            layers = {f"ground-truth/{r.title}": build_layer(truth, i, slice_idx) for i, r in enumerate(REGIONS)}
            pictures.append(wandb.Image(upright_slice(grey[channel], slice_idx), masks=layers, mode="L"))
        table.add_data("val", 0, slice_idx, *pictures)
    return table


def build_usual_prediction_table(case: ReportCase, slices: Sequence[int], scale: Scale) -> wandb.Table:
    """Build the table of predictions, picture by picture: for each region its four channels."""
    grey, truth, prediction = scale(case.image), case.truth.float().numpy(), case.prediction.float().numpy()
    header = [f"Image-Channel-{channel}/{region.title}" for region in REGIONS for channel in range(4)]
    table = wandb.Table(columns=[*ROW_HEADER, *header])
    for slice_idx in slices:
        cells = []
        for i, region in enumerate(REGIONS):
            for channel in range(4):
                layers = {
                    f"ground-truth/{region.title}": build_layer(truth, i, slice_idx),
                    f"prediction/{region.title}": build_layer(prediction, i, slice_idx),
                }
                cells.append(wandb.Image(upright_slice(grey[channel], slice_idx), masks=layers, mode="L"))
        table.add_data("val", 0, slice_idx, *cells)
    return table


def measure(recipe: Recipe) -> Measured:
    """Build a table and log it to an offline run: the clock stops when its files are staged on disk."""
    with TemporaryDirectory() as folder:
        run = start_run(job_type="dataset", mode="offline", output_dir=Path(folder), config={})
        start = time.perf_counter()
        with redirect_stdout(StringIO()):
            table = recipe()
            run.log({"table": table})
        seconds = time.perf_counter() - start
        staged = sum(path.stat().st_size for path in Path(folder).rglob("staging/*"))
        run.finish()
    return Measured(len(table.data), seconds, staged / 1e6)


def compare(usual: Recipe, ours: Recipe) -> list[Measured]:
    """Measure both by turns, after one round to warm up; medians."""
    rounds = [(measure(usual), measure(ours)) for _ in range(REPEATS + 1)][1:]
    return [
        Measured(*(statistics.median(values) for values in zip(*side, strict=True)))
        for side in zip(*rounds, strict=True)
    ]


def main() -> None:
    """Measure and print."""
    os.environ["WANDB_SILENT"] = "true"
    case = build_case()
    slices, every = tumour_slices(case.truth), range(case.image.shape[-1])
    either = tumour_slices(case.truth | case.prediction)
    spaced = {"stride": choose_stride(1.0)}
    usual, usual_pair = partial(build_usual_data_table, case), partial(build_usual_prediction_table, case)
    ours, ours_pair = (partial(build, [("val", 0, case)]) for build in (build_data_table, build_prediction_table))
    print(f"{'table, usual recipe / ours':28}{'rows':>10}{'ms per row':>16}{'seconds':>16}{'MB':>16}")
    for name, recipes in {
        "data, same rows": (partial(usual, slices, window_volume), ours),
        "predictions, same rows": (partial(usual_pair, either, window_volume), ours_pair),
        "data, default": (partial(usual, every, scale_slices_alone), partial(ours, **spaced)),
        "predictions, default": (partial(usual_pair, every, scale_slices_alone), partial(ours_pair, **spaced)),
    }.items():
        (rows, seconds, size), (our_rows, our_seconds, our_size) = compare(*recipes)
        pace, our_pace = 1000 * seconds / rows, 1000 * our_seconds / our_rows
        print(
            f"{name:28}{rows:6}/{our_rows:3}{pace:7.1f}/{our_pace:4.1f} {pace / our_pace:.1f}x"
            f"{seconds:6.2f}/{our_seconds:4.2f} {seconds / our_seconds:.1f}x{size:6.2f}/{our_size:4.2f} {size / our_size:.1f}x"
        )


if __name__ == "__main__":
    main()
