"""Commands beside the notebooks, thin over the same functions: `python -m brats_utils <command> --help`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from brats_utils.config import PRESETS, load_config
from brats_utils.data import load_cases
from brats_utils.evaluation import evaluate_cases, format_summary
from brats_utils.inference import ScanError, predict_scan, save_labels
from brats_utils.labels import REGIONS, SCHEMAS
from brats_utils.model import Checkpoint, choose_device, choose_precision, load_checkpoint
from brats_utils.paths import display_path, resolve_path
from brats_utils.phantom import generate_dataset
from brats_utils.recipe import train
from brats_utils.runner import NOTEBOOKS, ParameterError, inspect_parameters, run_notebooks


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; mistakes in its input end in one sentence and exit status 2, not in a traceback."""
    args = _build_parser().parse_args(argv)
    try:
        args.command(args)
    except (ValueError, OSError, RuntimeError) as error:
        reason: BaseException = error
        while reason.__cause__:  # MONAI's "applying transform …" hides it
            reason = reason.__cause__
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m brats_utils", description="3D brain tumour segmentation tutorial.")
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="execute the notebooks in order, into one output folder")
    run.add_argument("notebooks", nargs="*", help="names such as 03_train; by default all")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter, in YAML; $VARIABLES are filled in")  # fmt: skip
    run.set_defaults(command=_run)

    phantom = commands.add_parser("phantom", help="generate a synthetic data set in the layout of MSD")
    phantom.add_argument("--out", type=Path, required=True, help="folder to make")
    phantom.add_argument("--cases", type=int, default=40, help="labelled cases (default 40)")
    phantom.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="voxel size (default 2)")
    phantom.add_argument("--seed", type=int, default=0)
    phantom.set_defaults(command=_phantom)

    training = commands.add_parser("train", help="train as notebook 03 does; under torchrun, with several processes")
    training.add_argument("--preset", choices=PRESETS, default="laptop")
    training.add_argument("--data", default="", help="'phantom', 'msd' or a folder; by default the preset's")
    training.add_argument("--out", default="runs/train", help="folder for checkpoints and logs (default runs/train)")
    training.add_argument("--set", nargs=2, action="append", default=[], metavar=("SETTING", "VALUE"), help="change a setting")  # fmt: skip
    training.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    training.add_argument("--wandb-mode", default="auto", choices=("auto", "online", "offline", "disabled"))
    training.set_defaults(command=_train)

    predict = commands.add_parser("predict", help="segment one patient's scans")
    predict.add_argument("--checkpoint", type=Path, required=True)
    predict.add_argument("--image", type=Path, help="one 4D NIfTI: FLAIR, T1w, T1gd, T2w")
    for channel in ("flair", "t1", "t1gd", "t2"):
        predict.add_argument(f"--{channel}", type=Path, help="or four 3D NIfTI files")
    predict.add_argument("--out", type=Path, required=True, help="folder for segmentation.nii.gz")
    predict.set_defaults(command=_predict)

    evaluate = commands.add_parser("evaluate", help="score a checkpoint on every labelled case of a folder")
    evaluate.add_argument("--checkpoint", type=Path, required=True)
    evaluate.add_argument("--data", type=Path, required=True, help="folder in the layout of MSD")
    evaluate.add_argument("--out", type=Path, required=True, help="folder for cases.csv, summary.json and predictions")
    evaluate.set_defaults(command=_evaluate)
    return parser


def _run(args: argparse.Namespace) -> None:
    notebooks = args.notebooks or list(NOTEBOOKS)
    unknown = sorted(set(notebooks) - set(NOTEBOOKS))
    if unknown:
        raise ParameterError(f"notebooks: found {unknown}, expected some of {', '.join(NOTEBOOKS)}.")
    parameters = {name: yaml.safe_load(os.path.expandvars(value)) for name, value in args.parameter}
    output_dir = resolve_path(parameters.get("output_dir", inspect_parameters(notebooks[0])["output_dir"]))
    run_notebooks(parameters, output_dir, notebooks=notebooks)
    metrics = output_dir / "metrics.json"
    if "04_inference" in notebooks and metrics.is_file():
        print(f"\nTest cases, held out:\n{format_summary(json.loads(metrics.read_text())['test'])}")
    print(f"\nExecuted notebooks, checkpoints, predictions and metrics.json are in {display_path(output_dir)}/")


def _phantom(args: argparse.Namespace) -> None:
    generate_dataset(args.out, num_training=args.cases, spacing_mm=args.spacing, seed=args.seed)
    print(f"{args.cases} cases of {args.spacing:g} mm in {args.out}/")


def _train(args: argparse.Namespace) -> None:
    overrides = {name: yaml.safe_load(value) for name, value in args.set}
    config = load_config(args.preset, overrides, data=args.data, output_dir=args.out)
    train(config, out_dir=args.out, wandb_mode=args.wandb_mode, resume=args.resume)


def _predict(args: argparse.Namespace) -> None:
    four = [args.flair, args.t1, args.t1gd, args.t2]
    if (args.image is None) == (None in four) or (args.image is not None and any(four)):
        raise ScanError("Expected either --image with one 4D file, or all of --flair, --t1, --t1gd and --t2.")
    scan = args.image or four
    checkpoint, settings = _load(args.checkpoint)
    prediction = predict_scan(checkpoint.build_model().to(choose_device()), scan, **settings)
    target = save_labels(prediction.labels, args.out / "segmentation.nii.gz", like=args.image or args.flair)
    for region, mask in zip(REGIONS, prediction.regions, strict=True):
        print(f"{region.name}: {int(mask.sum())} voxels")
    print(f"Labels ({settings['schema'].name} numbering) in {target}. Not for clinical use.")


def _evaluate(args: argparse.Namespace) -> None:
    checkpoint, settings = _load(args.checkpoint)
    cases = load_cases(args.data.resolve(), schema=settings["schema"])
    evaluate_cases(checkpoint.build_model().to(choose_device()), cases, args.out, **settings)
    print(format_summary(json.loads((args.out / "summary.json").read_text())))
    print(f"Per case: {args.out / 'cases.csv'}")


def _load(path: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Read a checkpoint and the settings that prediction takes from it."""
    checkpoint = load_checkpoint(path.resolve())
    return checkpoint, {
        "spacing_mm": checkpoint.config["spacing_mm"],
        "roi_size": tuple(checkpoint.config["inference_roi_size"]),
        "schema": SCHEMAS[checkpoint.config["label_schema"]],
        "precision": choose_precision(choose_device()),
    }
