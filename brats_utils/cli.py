"""Commands beside the notebooks, thin over the same functions: `python -m brats_utils <command> --help`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from brats_utils.config import PRESETS, load_config
from brats_utils.paths import display_path, resolve_path


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; mistakes in its input end in one sentence and exit status 2, not in a traceback."""
    args = _build_parser().parse_args(argv)
    try:
        args.command(args)
    except (ValueError, OSError, RuntimeError) as error:
        if type(error).__module__.partition(".")[0] not in ("brats_utils", "builtins"):
            raise
        sys.exit(f"error: {error}")


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m brats_utils", description="3D brain tumour segmentation tutorial.")
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="execute the notebooks in order, into one output folder")
    run.add_argument("notebooks", nargs="*", help="names such as 03_train; by default all")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter, in YAML")  # fmt: skip
    run.set_defaults(command=_run)

    phantom = commands.add_parser("phantom", help="generate a synthetic data set in the layout of MSD")
    phantom.add_argument("--out", type=Path, required=True, help="folder to make")
    phantom.add_argument("--cases", type=int, default=40, help="labelled cases (default 40)")
    phantom.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="voxel size (default 2)")
    phantom.add_argument("--seed", type=int, default=0)
    phantom.set_defaults(command=_phantom)

    train = commands.add_parser("train", help="train as notebook 03 does")
    train.add_argument("--preset", choices=PRESETS, default="laptop")
    train.add_argument("--data", default="", help="'phantom', 'msd' or a folder; by default the preset's")
    train.add_argument("--out", default="runs/train", help="folder for checkpoints and logs (default runs/train)")
    train.add_argument("--set", nargs=2, action="append", default=[], metavar=("SETTING", "VALUE"), help="change a setting")  # fmt: skip
    train.add_argument("--wandb-mode", default="auto", choices=("auto", "online", "offline", "disabled"))
    train.set_defaults(command=_train)

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
    from brats_utils.runner import NOTEBOOKS, inspect_parameters, run_notebooks

    notebooks = args.notebooks or list(NOTEBOOKS)
    unknown = sorted(set(notebooks) - set(NOTEBOOKS))
    if unknown:
        raise ValueError(f"notebooks: found {unknown}, expected some of {', '.join(NOTEBOOKS)}.")
    parameters = {name: yaml.safe_load(value) for name, value in args.parameter}
    output_dir = resolve_path(parameters.get("output_dir", inspect_parameters(notebooks[0])["output_dir"]))
    run_notebooks(parameters, output_dir, notebooks=notebooks)
    metrics = output_dir / "metrics.json"
    if "04_inference" in notebooks and metrics.is_file():
        from brats_utils.evaluation import format_summary

        print(f"\nTest cases, held out:\n{format_summary(json.loads(metrics.read_text())['test'])}")
    print(f"\nExecuted notebooks, checkpoints, predictions and metrics.json are in {display_path(output_dir)}/")


def _phantom(args: argparse.Namespace) -> None:
    from brats_utils.phantom import generate_dataset

    generate_dataset(args.out, num_training=args.cases, spacing_mm=args.spacing, seed=args.seed)
    print(f"{args.cases} cases of {args.spacing:g} mm in {args.out}/")


def _train(args: argparse.Namespace) -> None:
    overrides: dict[str, Any] = {name: yaml.safe_load(value) for name, value in args.set}
    if args.data:
        overrides["dataset_dir"] = args.data
    out_dir = resolve_path(args.out)
    config = load_config(args.preset, {**overrides, "checkpoint_dir": display_path(out_dir / "checkpoints")})
    schema, roi_size = SCHEMAS[config.label_schema], config.inference_roi_size
    set_determinism(config.seed if config.deterministic else None)

    dataset_dir = prepare_dataset(
        resolve_path(config.dataset_dir), spacing_mm=config.spacing_mm, num_cases=config.phantom_cases, seed=config.seed
    )
    parts = split_cases(load_cases(dataset_dir, schema=schema), out_dir / "split.json", seed=config.seed)
    train_loader, val_loader = build_loaders(parts, config, cache_dir=out_dir / "cache")
    state = build_state(config, steps_per_epoch=len(train_loader))
    mode = resolve_mode(args.wandb_mode)
    run = start_run(job_type="train", mode=mode, output_dir=out_dir, config=config.model_dump(mode="json"))
    for result in train_epochs(
        state, train_loader, val_loader, max_epochs=config.max_train_epochs,
        validation_intervals=config.validation_intervals, roi_size=roi_size, seed=config.seed,
    ):  # fmt: skip
        log_epoch(run, result)
        if result.dice is not None:
            path = save_progress(
                state, out_dir / "checkpoints", config=config.model_dump(mode="json"), run_id=run.id, is_best=result.is_best
            )
            log_checkpoint(run, path, epoch=result.epoch, mean_dice=state.mean_dice, is_best=result.is_best)
        print(describe_epoch(result), flush=True)
    finish_run(run)
