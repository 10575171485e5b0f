"""Commands beside the notebooks, thin over the same functions: `python -m brats_utils <command> --help`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

import pandas as pd

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.split import NUM_FOLDS
from brats_utils.commands.export import export_bundle
from brats_utils.commands.prepare import add_scans, find_scans, prepare
from brats_utils.commands.run import NOTEBOOKS, check_parameters, inspect_parameters, run_notebooks
from brats_utils.commands.train import train
from brats_utils.config import PRESETS, ConfigError, load_config, read_yaml
from brats_utils.evaluation import evaluate_cases, format_summary, write_evaluation, write_official
from brats_utils.inference import Predictor, build_predictor
from brats_utils.labels import FILE_NAMES, SCORED, LabelSchema, refuse_unknown_regions
from brats_utils.memory import keep_freed_memory
from brats_utils.paths import display_path, resolve_path
from brats_utils.patients.prediction import DISCLAIMER, predict_patient, predict_patients
from brats_utils.phantom.dataset import generate_dataset
from brats_utils.raw.native import predict_raw_patient, predict_raw_patients
from brats_utils.saving.checkpoints import load_checkpoint, name_weights
from brats_utils.transforms import explain_failure
from brats_utils.uncertainty import LOW_EXPECTED_DICE

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; mistakes in its input end in one sentence and exit status 2, not in a traceback."""
    args = _build_parser().parse_args(argv)
    keep_freed_memory()
    try:
        args.command(args)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {explain_failure(error)}", file=sys.stderr)
        sys.exit(2)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m brats_utils", description="3D brain tumour segmentation tutorial.")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_run(commands)
    _add_phantom(commands)
    _add_train(commands)
    _add_prepare(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_export(commands)
    return parser


def _add_run(commands: Commands) -> None:
    command = commands.add_parser("run", help="execute the notebooks in order, into one output folder")
    command.add_argument("notebooks", nargs="*", help="names such as 03_train; by default all")
    command.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook parameter, in YAML; $VARIABLES are filled in")  # fmt: skip
    command.set_defaults(command=_run)


def _add_phantom(commands: Commands) -> None:
    command = commands.add_parser("phantom", help="generate a synthetic data set in the layout of MSD")
    command.add_argument("--out", type=Path, required=True, help="folder to make")
    command.add_argument("--cases", type=int, default=40, help="labelled cases (default 40)")
    command.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="voxel size (default 2)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(command=_phantom)


def _add_train(commands: Commands) -> None:
    command = commands.add_parser("train", help="train as notebook 03 does; under torchrun, with several processes")
    command.add_argument("--preset", choices=PRESETS, default="laptop")
    command.add_argument("--data", default="", help="'phantom', 'msd' or a folder; by default the preset's")
    command.add_argument("--schema", choices=SCORED, help="convention of the labels in --data, needed where it has no dataset.json")  # fmt: skip
    command.add_argument("--out", default="runs/train", help="folder for checkpoints and logs (default runs/train)")
    command.add_argument("--set", nargs=2, action="append", default=[], metavar=("SETTING", "VALUE"), help="change a setting")  # fmt: skip
    command.add_argument("--init", default="", help="weights to start from: 'pretrained', the bundled weights, 'monai', or a checkpoint")  # fmt: skip
    command.add_argument("--fold", type=int, choices=range(1, NUM_FOLDS + 1), help="hold out this fifth of what is not for test, for a cross-validation")  # fmt: skip
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    command.add_argument("--wandb-mode", default="auto", choices=("auto", "online", "offline", "disabled"))
    command.set_defaults(command=_train)


def _add_prepare(commands: Commands) -> None:
    command = commands.add_parser("prepare", help="raw scans, as the scanner gave them, to what predict, evaluate and train take")  # fmt: skip
    add_scans(command)
    command.add_argument("--out", type=Path, required=True, help="folder to make")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier preparation in --out")
    command.set_defaults(command=_prepare)


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser("predict", help="segment own scans: one patient, or a folder of patients")
    command.add_argument("--image", type=Path, help="one 4D NIfTI: FLAIR, T1w, T1gd, T2w")
    for channel in FILE_NAMES.values():
        command.add_argument(f"--{channel}", type=Path, help="or four 3D NIfTI files; one may be missing")
    command.add_argument("--patients", type=Path, help="or a folder of them: BraTS, BIDS, nnU-Net, MSD or 4D files")
    command.add_argument("--raw", action="store_true", help="the scans are as the scanner gave them, NIfTI or DICOM: prepare them first, and write labels on their grids too")  # fmt: skip
    command.add_argument("--patient", type=Path, help="with --raw, the folder of one patient, in which the four are looked for")  # fmt: skip
    command.add_argument("--brain-mask", type=Path, metavar="FILE", help="with --raw, your own brain, on the grid of T1w")  # fmt: skip
    command.add_argument("--out", type=Path, required=True, help="folder for segmentation.nii.gz and the rest")
    command.add_argument("--resample", action="store_true", help="bring scans on different grids to that of the first")
    command.add_argument("--doubtful-first", action="store_true", help="with --patients, sort patients.csv by expected Dice, the lowest first")  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace earlier predictions in --out")
    _add_predictor(command, "convention of the labels to write; by default that of the training")
    command.set_defaults(command=_predict)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="score a checkpoint on every labelled case of a folder")
    command.add_argument("--data", type=Path, required=True, help="a folder of labelled cases: MSD, nnU-Net, BraTS or BIDS")  # fmt: skip
    command.add_argument("--out", type=Path, required=True, help="folder for scores, predictions and report.html")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation in --out")
    command.add_argument("--official", type=Path, metavar="DIR", help="new folder for predictions and labels as the official scorer of BraTS, brats-evaluation, reads them")  # fmt: skip
    _add_predictor(command, "convention of the labels in --data, needed where it has no dataset.json")
    command.set_defaults(command=_evaluate)


def _add_export(commands: Commands) -> None:
    command = commands.add_parser("export", help="write a checkpoint as a MONAI bundle, with its model card")
    command.add_argument("--checkpoint", type=name_weights, required=True, help="a file, or 'pretrained'")
    command.add_argument("--out", type=Path, required=True, help="folder to make")
    command.add_argument("--metrics", type=Path, help="metrics.json of notebook 04, for the model card")
    command.set_defaults(command=_export)


def _run(args: argparse.Namespace) -> None:
    notebooks = args.notebooks or list(NOTEBOOKS)
    unknown = sorted(set(notebooks) - set(NOTEBOOKS))
    if unknown:
        raise ConfigError(f"notebooks: found {unknown}, expected some of {', '.join(NOTEBOOKS)}.")
    parameters = {name: read_yaml(name, os.path.expandvars(value)) for name, value in args.parameter}
    check_parameters(parameters, notebooks)
    preset = parameters.get("preset", "auto")  # which `auto` becomes, the machine decides; all have the same settings
    load_config("laptop" if preset == "auto" else preset, parameters.get("overrides"))
    output_dir = resolve_path(parameters.get("output_dir", inspect_parameters(notebooks[0])["output_dir"]))
    run_notebooks(parameters, output_dir, notebooks=notebooks)
    metrics = output_dir / "metrics.json"
    if "04_inference" in notebooks and metrics.is_file():
        print(f"\nTest cases, held out:\n{format_summary(json.loads(metrics.read_text(encoding='utf-8'))['test'])}")
    print(f"\nExecuted notebooks, checkpoints, predictions and metrics.json are in {display_path(output_dir)}/")


def _phantom(args: argparse.Namespace) -> None:
    generate_dataset(args.out, num_training=args.cases, spacing_mm=args.spacing, seed=args.seed)
    print(f"{args.cases} cases of {args.spacing:g} mm in {args.out}/")


def _prepare(args: argparse.Namespace) -> None:
    _check_folder(args.out)
    prepare(args)


def _train(args: argparse.Namespace) -> None:
    overrides = {name: read_yaml(name, value) for name, value in args.set}
    overrides |= {"label_schema": args.schema} if args.schema else {}
    overrides |= {"fold": args.fold} if args.fold else {}
    config = load_config(args.preset, overrides, data=args.data, output_dir=args.out, init=args.init)
    train(config, out_dir=args.out, wandb_mode=args.wandb_mode, resume=args.resume)


def _add_predictor(command: argparse.ArgumentParser, schema_help: str) -> None:
    command.add_argument("--checkpoint", type=name_weights, nargs="+", required=True, help="'pretrained', the bundled weights; 'monai', that of MONAI's zoo; or files, or folders of MONAI bundles; several are averaged")  # fmt: skip
    command.add_argument("--no-flips", dest="flips", action="store_false", help="a single pass, without test-time augmentation (TTA) with flips: faster, a little worse")  # fmt: skip
    command.add_argument("--no-bias-correction", dest="bias_correction", action="store_false", help="leave the bias field of FLAIR as it is, also where the checkpoint has it corrected")  # fmt: skip
    command.add_argument("--schema", choices=SCORED, help=schema_help)
    command.add_argument("--guess-enhancing", action="store_true", help="call enhancing tumour also without T1gd, which alone shows it")  # fmt: skip
    command.add_argument("--keep-small", action="store_true", help="keep connected components of tumour, and enhancing tumour, under 1 mL: no post-processing")  # fmt: skip


def _load_predictor(args: argparse.Namespace, schema: LabelSchema | None = None) -> Predictor:
    checkpoints = [load_checkpoint(path.resolve()) for path in args.checkpoint]
    predictor = build_predictor(checkpoints, flips=args.flips, schema=schema)
    bias_correction = predictor.bias_correction and args.bias_correction
    return replace(
        predictor,
        guess_enhancing=args.guess_enhancing,
        keep_small=args.keep_small,
        bias_correction=bias_correction,
    )


def _check_folder(out: Path, *, option: str = "--out") -> None:
    """Make the folder for predictions, or refuse it, now and not when they are made."""
    file = next((path for path in (out, *out.parents) if path.is_file()), None)
    if file:
        raise NotADirectoryError(
            f"{option} {out}: found the file {file}, expected a folder or nothing. Choose another name."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(
            f"{option} {out}: nothing can be written there ({error.strerror}), expected a folder of yours. Choose another."
        ) from None


def _predict(args: argparse.Namespace) -> None:
    _check_ways(args)
    scans = find_scans(args) if args.raw else {}
    _check_folder(args.out)
    predictor = _load_predictor(args, SCORED.get(args.schema))
    if args.patients:
        how = {"overwrite": args.overwrite, "doubtful_first": args.doubtful_first}
        if args.raw:
            table = predict_raw_patients(predictor, args.patients, args.out, **how)
        else:
            table = predict_patients(predictor, args.patients, args.out, resample=args.resample, **how)
        _report_patients(table, args.out)
        return
    if args.raw:
        content = predict_raw_patient(predictor, scans, args.out, brain_mask=args.brain_mask, overwrite=args.overwrite)
    else:
        images = (args.image,) if args.image else tuple(getattr(args, name) for name in FILE_NAMES.values())
        case = Case(args.out.resolve().name, images)
        content = predict_patient(predictor, case, args.out, resample=args.resample, overwrite=args.overwrite)
    _report_patient(content, args.out)


def _check_ways(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if args.raw:
        if args.image or args.resample:
            raise CaseError("--raw: found with --image or --resample, which are for prepared scans. Leave one out.")
        if args.patients and args.brain_mask:
            raise CaseError("--brain-mask: found with --patients, expected one patient. Predict them one by one.")
        return
    if args.patient or args.brain_mask:
        raise CaseError("--patient, --brain-mask: found without --raw, expected it. They are for scans as the scanner gave them.")  # fmt: skip
    ways = [args.image, args.patients, any(getattr(args, name) for name in FILE_NAMES.values())]
    if sum(map(bool, ways)) != 1:
        raise CaseError(
            "Expected --image with one 4D file, or --patients with a folder, or --flair, --t1, --t1gd, --t2 (one may be missing)."
        )


def _report_patients(table: pd.DataFrame, out: Path) -> None:
    print(table.drop(columns="reason").to_string(index=False, float_format="%.2f", na_rep=""))
    for patient, reason in table.loc[table["reason"] != "", ["patient", "reason"]].itertuples(index=False):
        print(f"{patient}: {reason}")
    failed, earlier = (int((table["status"] == status).sum()) for status in ("failed", "earlier"))
    before = f", {earlier} of them earlier (--overwrite does them again)" if earlier else ""
    done = f"{len(table) - failed} of {len(table)} patients predicted{before}"
    doubtful = table.loc[table["doubtful"].eq(True), "patient"].tolist()  # it is empty where the patient failed
    if doubtful:
        print(f"Doubtful, expected Dice below {LOW_EXPECTED_DICE}: {', '.join(doubtful)}. Look at their preview.png.")
    print(f"{done}; table in {out / 'patients.csv'}. {DISCLAIMER}")
    if failed:
        sys.exit(1)


def _report_patient(content: dict[str, Any], out: Path) -> None:
    for warning in content["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for region, volume in content["volumes_ml"].items():
        print(f"{region}: not segmented without T1gd" if volume is None else f"{region}: {volume:.2f} mL")
    removed = content["removed"]
    if any(removed.values()):
        count = removed["pieces"]
        components = f"{count} connected component{'s' if count != 1 else ''} of tumour, {removed['ml']:.2f} mL in all"
        print(f"Removed as too small: {components}; ET, {removed['ET_ml']:.2f} mL. --keep-small keeps it.")
    if content["doubtful"]:
        print(
            f"Doubtful: expected Dice {content['expected_dice']['mean']:.2f}, below {LOW_EXPECTED_DICE}. Look at "
            "preview.png before you use the labels; predictions like this one are often wrong."
        )
    native = f", on the raw scans in {out / 'native'}/" if "volumes_native_ml" in content else ""
    print(f"Labels ({content['label_schema']} convention) in {out / 'segmentation.nii.gz'}{native}. {DISCLAIMER}")


def _evaluate(args: argparse.Namespace) -> None:
    _check_folder(args.out)
    if (args.out / "cases.csv").exists() and not args.overwrite:
        raise FileExistsError(
            f"--out {args.out}: found the cases.csv of an earlier evaluation, expected none. Choose another folder, or "
            "--overwrite to replace it."
        )
    if args.official:
        _check_folder(args.official, option="--official")
        if any(args.official.iterdir()) or args.official.samefile(args.out):
            raise FileExistsError(f"--official {args.official}: found files, or --out, expected an empty folder. Choose another.")  # fmt: skip
    predictor = _load_predictor(args)
    data = args.data.resolve()
    cases = find_cases(data, schema=SCORED.get(args.schema))
    for schema in {case.label_schema for case in cases if case.label_schema and args.official}:
        refuse_unknown_regions(schema, what="--official")
    evaluate_cases(predictor, cases, args.out)
    report = write_evaluation(args.out, cases, title=f"Evaluation on {data.name}", schema=predictor.schema)
    print(format_summary(json.loads((args.out / "summary.json").read_text(encoding="utf-8"))))
    print(f"Per case: {args.out / 'cases.csv'}; pictures: {report}")
    if args.official:
        command = write_official(cases, args.out, args.official, schema=predictor.schema)
        print(f"The official scores, where brats-evaluation is installed, in an environment of its own:\n{command}")


def _export(args: argparse.Namespace) -> None:
    if args.checkpoint.is_dir() or args.checkpoint == name_weights("monai"):
        raise ValueError(
            f"--checkpoint {args.checkpoint}: is a MONAI bundle already, expected a checkpoint. Copy its folder."
        )
    try:
        metrics = json.loads(args.metrics.read_text(encoding="utf-8")) if args.metrics else None
    except ValueError as error:
        raise ValueError(
            f"--metrics {args.metrics}: found no JSON ({error}), expected metrics.json of notebook 04. Run it again."
        ) from None
    print(f"MONAI bundle in {export_bundle(load_checkpoint(args.checkpoint.resolve()), args.out, metrics=metrics)}/")
