"""A checkpoint on labelled scans of patients: `python -m benchmarks.real CHECKPOINT FOLDER[:SCHEMA] …`.

Not part of `make bench`: it needs scans that are not in the repository, and measures no time.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tqdm import tqdm

from benchmarks.common import describe_machine, print_table
from brats_utils.cases.case import Case
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.evaluation import evaluate_cases, predict_case, view_case
from brats_utils.inference import Predictor, build_predictor
from brats_utils.labels import CHANNELS, REGIONS, SCHEMAS, LabelSchema
from brats_utils.metrics import bootstrap_interval, format_interval, summarise_scores
from brats_utils.paths import REPOSITORY
from brats_utils.report.drawing import render_png, stack_figures
from brats_utils.report.figures import plot_comparison
from brats_utils.saving.checkpoints import load_checkpoint, name_weights

IMAGES = REPOSITORY / "docs" / "images"
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))
"""Colour (Okabe-Ito, colour-blind safe) and marker of each folder."""

Row = tuple[object, ...]


def find_folder(argument: str) -> tuple[str, list[Case]]:
    """Give name and labelled cases of `FOLDER` or `FOLDER:SCHEMA`."""
    path, _, schema = argument.partition(":")
    folder = Path(path).resolve()
    return folder.name, find_cases(folder, schema=SCHEMAS[schema] if schema else None)


def list_scores(table: pd.DataFrame) -> Iterator[Row]:
    """A row per case: volumes, Dice and expected Dice."""
    for row in table.to_dict("records"):
        volumes, scores = [], []
        for name in (region.name for region in REGIONS):
            true = f"{row[f'volume_ml_{name}']:.1f}" if row[f"has_{name}"] else "absent"
            volumes.append(f"{true} / {row[f'found_ml_{name}']:.1f}")
            scores.append(f"{row[f'dice_{name}']:.2f} / {_or_dash(row[f'expected_dice_{name}'])}")
        yield row["case_id"], *volumes, *scores


def summarise(name: str, table: pd.DataFrame) -> Iterator[Row]:
    """A row per region: Dice over the patients who have it, and over all by the BraTS rule."""
    summary = summarise_scores(table.to_dict("records"))
    for region in REGIONS:
        present = table.loc[table[f"has_{region.name}"], f"dice_{region.name}"]
        interval = format_interval(dict(zip(("low", "high"), bootstrap_interval(present.tolist()), strict=True)))
        means = _or_dash(present.mean(), 3), interval, _or_dash(present.median(), 3)
        yield name, region.name, f"{len(present)} of {len(table)}", *means, f"{summary[region.name]['dice']:.3f}"
    yield name, "mean", len(table), "", "", "", f"{summary['mean']['dice']:.3f}"


def compare_trust(table: pd.DataFrame) -> Iterator[Row]:
    """A row per region: whether the expected Dice ranks the cases as the real one does, where the region was found."""
    for region in REGIONS:
        found = table[["expected_dice_" + region.name, "dice_" + region.name]].dropna()
        expected, real = found.iloc[:, 0], found.iloc[:, 1]
        ranks = expected.corr(real, method="spearman", min_periods=3)
        yield region.name, len(found), *(_or_dash(value) for value in (ranks, expected.mean(), real.mean()))


def _or_dash(value: float, digits: int = 2) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def plot_patients(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw found volume and Dice against true volume, a column per region, a point per case; under 1 mL the axes are linear."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.6), sharex=True, sharey="row", layout="constrained")
    styled = [(*entry, *style) for entry, style in zip(tables.items(), cycle(STYLES), strict=False)]
    for (upper, lower), region in zip(axes.T, REGIONS, strict=True):
        upper.axline((1, 1), (2, 2), color="0.6", lw=1)
        for _, table, color, marker in styled:
            true, found = (table[f"{kind}_ml_{region.name}"] for kind in ("volume", "found"))
            true = true.where(true > 0, np.linspace(-0.12, 0.12, len(table)))  # lest cases of 0 mL hide each other
            faces = [color if has else "white" for has in table[f"has_{region.name}"]]
            for axis, values in ((upper, found), (lower, table[f"dice_{region.name}"])):
                axis.scatter(true, values, s=36, c=faces, marker=marker, edgecolors=color, alpha=0.85, zorder=3)
        upper.set_title(f"{region.name} ({region.title.replace('-', ' ').lower()})")
        lower.set_xlabel("true volume, mL")
    for axis in axes.flat:
        axis.grid(color="0.88", lw=0.6)
    corner, ticks = axes[0, 0], (0, 1, 10, 100)
    corner.set_xscale("symlog", linthresh=1, linscale=0.4)
    corner.set_yscale("symlog", linthresh=1, linscale=0.4)
    corner.set(xlim=(-0.4, 600), ylim=(-0.4, 600), ylabel="found volume, mL")
    corner.set_xticks(ticks, ticks)
    corner.set_yticks(ticks, ticks)
    axes[1, 0].set(ylabel="Dice", ylim=(-0.04, 1.04))
    dots = [(f"{name}, {len(table)} patients", color, color, marker) for name, table, color, marker in styled]
    dots.append(("hollow: the patient does not have it", "white", "0.3", "o"))
    lines = [
        Line2D([], [], ls="", marker=marker, mfc=face, mec=edge, label=label) for label, face, edge, marker in dots
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def draw_slices(cases: Sequence[Case], out_dir: Path, *, schema: LabelSchema) -> Iterator[tuple[bytes, bytes]]:
    """Draw the slice with most tumour and that with most errors of each case; `evaluate_cases` has written to `out_dir`."""
    for case in tqdm(cases, desc="Draw"):
        seen = view_case(case, out_dir, schema=schema)
        wrong = (seen.truth != seen.prediction).any(0).sum((0, 1))
        shown = seen.image, seen.truth, seen.prediction
        most, worst = (plot_comparison(*shown, title=seen.case_id, slice_idx=z) for z in (None, int(wrong.argmax())))
        yield render_png(most), render_png(worst)


def score_folders(
    predictor: Predictor, folders: Mapping[str, list[Case]], shown: Mapping[str, list[Case]], *, title: str
) -> None:
    """Print and draw how good it is on the folders, and draw slices of the cases that may be shown."""
    tables: dict[str, pd.DataFrame] = {}
    pictures: list[tuple[bytes, bytes]] = []
    for folder, cases in {**folders, **shown}.items():
        with TemporaryDirectory() as name:
            tables[folder] = evaluate_cases(predictor, cases, Path(name))
            if folder in shown:
                pictures += draw_slices(cases, Path(name), schema=predictor.schema)
        for region in REGIONS:
            true, error = (tables[folder][f"{kind}_ml_{region.name}"] for kind in ("volume", "volume_error"))
            tables[folder][f"found_ml_{region.name}"] = true + error
    names = [region.name for region in REGIONS]
    header = ["case", *(f"{n}, true / found mL" for n in names), *(f"{n} Dice / expected" for n in names)]
    print_table(title, header, (row for table in tables.values() for row in list_scores(table)))
    counted = {folder: tables[folder] for folder in folders}
    together = pd.concat(counted.values(), ignore_index=True)
    everyone = tables | ({"together": together} if len(counted) > 1 else {})
    header = ["folder", "region", "have it", "mean Dice of those", "95% interval", "median", "mean of all, BraTS rule"]
    print_table(
        "Mean over cases in which the region is present",
        header,
        (row for name, t in everyone.items() for row in summarise(name, t)),
    )
    header = ["region", "cases where found", "rank correlation", "mean expected Dice", "mean Dice"]
    print_table(f"Expected and real Dice, {' and '.join(counted)}", header, compare_trust(together))
    plot_patients(counted).savefig(IMAGES / "patients.png", dpi=100)
    for kind, drawn in zip(("real", "real_errors"), zip(*pictures, strict=True), strict=False):
        stack_figures(drawn).save(IMAGES / f"{kind}.png")


def leave_out(predictor: Predictor, cases: Sequence[Case], channels: Sequence[str], *, title: str) -> None:
    """Print the Dice with one missing channel; the cases have all four, each as a file of its own."""
    rows = []
    for channel in ("none", *channels):
        images = [tuple(None if n == channel else p for n, p in zip(CHANNELS, c.images, strict=True)) for c in cases]
        fewer = [replace(case, images=some) for case, some in zip(cases, images, strict=True)]
        for guess in (False, True) if channel == "T1gd" else (False,):
            asked = replace(predictor, guess_enhancing=guess)
            bar = tqdm(fewer, desc=f"Without {channel}")
            summary = summarise_scores([predict_case(asked, c, read_case(c, incomplete=True))[1] for c in bar])
            means = [summary[region.name]["dice_where_present"] for region in REGIONS]
            note = {"T1gd": ", ET guessed" if guess else ", ET not called"}.get(channel, "")
            rows.append((channel + note, *("–" if mean is None else f"{mean:.2f}" for mean in means)))
    counts = [f"{region.name}, n={summary[region.name]['cases_with_region']}" for region in REGIONS]
    print_table(f"{title}: mean Dice over cases in which the region is present", ["channel left out", *counts], rows)


def main() -> None:
    """Read the command line; score, or leave out channels."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=__doc__)
    parser.add_argument("checkpoint", type=name_weights, help="a file, or 'pretrained'")
    parser.add_argument("folders", nargs="+", metavar="FOLDER[:SCHEMA]", help="labelled cases; the schema is the label convention, where no dataset.json says it")  # fmt: skip
    parser.add_argument("--pictures", nargs="+", default=[], metavar="FOLDER[:SCHEMA]", help="cases whose slices a licence allows to show; scored too, but counted in `together` only if in FOLDER as well")  # fmt: skip
    parser.add_argument("--without", choices=(*CHANNELS, "each"), help="print the Dice without a channel instead")
    parser.add_argument("--flips", action=argparse.BooleanOptionalAction, help="test-time augmentation with flips (default), or a single pass (default for --without)")  # fmt: skip
    args = parser.parse_args()
    folders, shown = (dict(find_folder(name) for name in names) for names in (args.folders, args.pictures))
    if len({**folders, **shown}) < len({name.partition(":")[0] for name in (*args.folders, *args.pictures)}):
        parser.error("found two folders of one name, expected names that tell them apart in the tables")
    flips = args.flips if args.flips is not None else not args.without
    predictor = build_predictor([load_checkpoint(args.checkpoint)], flips=flips)
    title = f"{args.checkpoint.name}, {'TTA with flips' if flips else 'single pass'}, {describe_machine()}"
    if args.without:
        four = [c for cases in folders.values() for c in cases if len(c.images) == len(CHANNELS) and all(c.images)]
        if not four:
            parser.error("found no case of four files, expected some: from one 4D file no channel is left out")
        leave_out(predictor, four, CHANNELS if args.without == "each" else [args.without], title=title)
    else:
        score_folders(predictor, folders, shown, title=title)


if __name__ == "__main__":
    main()
