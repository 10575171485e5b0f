"""The command `prepare`: raw scans of one patient, or of a folder of them."""

import argparse
import sys
from pathlib import Path

from brats_utils.cases.case import CaseError
from brats_utils.labels import CHANNELS, FILE_NAMES
from brats_utils.raw.channels import choose_channels
from brats_utils.raw.preparation import Preparation, prepare_patient
from brats_utils.raw.series import Series
from brats_utils.raw.several import prepare_patients

WAYS = (
    "Expected --flair, --t1, --t1gd, --t2 (NIfTI files or folders of a DICOM series; one may be missing), or --patient with the "
    "folder of one patient, or --patients with a folder of patients."
)


def add_scans(command: argparse.ArgumentParser) -> None:
    """Add the options that name raw scans."""
    for name in FILE_NAMES.values():
        command.add_argument(
            f"--{name}", type=Path, help="a NIfTI file, or a folder of one DICOM series; one may be missing"
        )
    command.add_argument("--patient", type=Path, help="or the folder of one patient, in which the four are looked for")
    command.add_argument("--patients", type=Path, help="or a folder with such a folder for each patient")
    command.add_argument("--brain-mask", type=Path, metavar="FILE", help="your own brain (HD-BET, SynthStrip), on the grid of T1w")  # fmt: skip


def find_scans(args: argparse.Namespace) -> dict[str, Path | Series]:
    """The scans of one patient by channel, as the options name them.

    Raises:
        CaseError: they name none, or name them in two ways; see `choose_channels`.
    """
    named: dict[str, Path | Series] = {
        channel: path for channel in CHANNELS if (path := getattr(args, FILE_NAMES[channel])) is not None
    }
    if (args.patient is not None) + (args.patients is not None) + bool(named) != 1:
        raise CaseError(WAYS)
    return dict(choose_channels(args.patient)) if args.patient else named


def prepare(args: argparse.Namespace) -> None:
    """Prepare what the options name, and say what came out."""
    scans = find_scans(args)
    if args.patients is None:
        report(prepare_patient(scans, args.out, brain_mask=args.brain_mask, overwrite=args.overwrite))
        return
    if args.brain_mask:
        raise CaseError("--brain-mask: found with --patients, expected one patient. Prepare them one by one.")
    table = prepare_patients(args.patients, args.out, overwrite=args.overwrite)
    print(table.drop(columns="reason").to_string(index=False, na_rep=""))
    for patient, reason in table.loc[table["reason"] != "", ["patient", "reason"]].itertuples(index=False):
        print(f"{patient}: {reason}")
    failed = int((table["status"] == "failed").sum())
    print(f"{len(table) - failed} of {len(table)} patients prepared; table in {args.out / 'preparations.csv'}.")
    if failed:
        sys.exit(1)


def report(preparation: Preparation) -> None:
    """Say how each scan was moved, what is doubtful, and what to look at."""
    content = preparation.content
    for name, channel in content["channels"].items():
        overlap = channel.get("overlap")
        brains = f"; brains share {overlap['before']:.2f} before, {overlap['after']:.2f} after" if overlap else ""
        moved = f"moved {channel['shift_mm']:.1f} mm, {channel['rotation_deg']:.1f} degrees{brains}"
        print(f"{name} ({channel['series']}): {'the reference' if name == content['reference'] else moved}")
    for warning in content["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"Brain {content['brain_ml']:.0f} mL, {content['seconds']:.0f} s. Look at {preparation.folder / 'preparation.png'}."
    )
