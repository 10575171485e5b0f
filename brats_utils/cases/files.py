"""What the name of a file says: which channel it is, or that it is a label, and how far that label may be trusted."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from brats_utils.cases.dataset_json import channel_of, without_channel
from brats_utils.cases.formats import ENDINGS
from brats_utils.labels import CHANNELS

PREDICTED = ("segmentation", "regions", "probabilities", "uncertainty")
"""Volumes that `predict` writes. Beside its `prediction.json` they are neither scans nor labels."""

ENDING = rf"({'|'.join(re.escape(ending) for ending in sorted(ENDINGS, key=len, reverse=True))})$"

PREPARED = ("lps", "r", "r2", "r3", "r2s", "rsri", "n4", "bet", "reg", "ss", "skull", "strip", "ants", "unstripped")
"""Words after the name of a channel that tell how the scan was prepared: `W1_t1gd_LPS_r_SS` is T1gd.

Source: the releases of IvyGAP-Radiomics, REMBRANDT (rSRI), LUMIERE (r2s_bet_reg, skull_strip), UTSW-Glioma (ants) and
UPENN-GBM (unstripped).
"""

LABEL = (
    r"(?<![a-z])r?(tumou?r)?(seg|dseg(?![a-z]))"  # seg, segm, dseg, segmentation, tumorseg_FeTS
    r"|tumou?r_?mask"  # MU-Glioma-Post
    r"|glistrboost"  # TCGA-GBM and -LGG, REMBRANDT
    r"|(?<![a-z])labels?$"  # IvyGAP-Radiomics: W1_1996.10.25_CWRU_labels
    r"|(?<![a-z])ot$"  # BraTS 2012 to 2015: VSD.Brain_3more.XX.O.OT.54517
)
"""Signs of a label in its name, without ending and without the number of the Virtual Skeleton Database."""

LABEL_TREE = r"(?<![a-z])(seg|label|mask|annotation|ground.?truth|gt(?![a-z]))"
"""Sign of a folder that holds the labels of scans elsewhere: images_segm, 3_Annotations_SRI, labels."""

PARTS = r"cellular|subtraction|hd.?glio"
"""Labels of something else than the three tissues: UCSD-PTGBM's of cell density, UCSF-ALPTDG's of change, HD-GLIO's two."""

MANUAL, UNSAID, AUTOMATIC, OTHER = range(4)
TRUST = {
    OTHER: PARTS,
    MANUAL: r"manual|(?<!un)correct|expert|radiologist|refined|reviewed",
    AUTOMATIC: r"auto|approx|predict|glistrboost|fets|nnu.?net|deepbratumia",
}
"""Kinds of labels and the signs of them in a name, in the order they are asked; of several of a case the lowest is taken.

Source: Bakas 2017, doi 10.1038/sdata.2017.117 (ManuallyCorrected before GlistrBoost); Bakas 2022, doi
10.1038/s41597-022-01560-7 (UPENN-GBM: 147 of images_segm refined by experts, automated_segm not); UTSW-Glioma, TCIA.
"""

KINDS = ("made or corrected by people", "not said to be automatic", "made by a program", "of other tissues")


def volumes_of(folder: Path) -> list[Path]:
    """Scans and labels, without our own predictions and the `._` files that macOS leaves beside each.

    A folder that stands for one file, as some programs unpack an archive, counts as that file: `X_flair.nii/57_flair.nii`,
    or `VSD.Brain.XX.O.MR_Flair.54512/` of BraTS 2015 with a file of its own name.
    """
    ours = {f"{kind}.nii.gz" for kind in PREDICTED} if (folder / "prediction.json").exists() else set()
    found = [path for path in _files_in(folder) if path.name not in ours]
    for home in folders_of(folder):
        if stands_for_file(home):
            found += _files_in(home)
    return sorted(found)


def _files_in(folder: Path) -> list[Path]:
    paths = (path for path in folder.glob("*") if path.name.lower().endswith(ENDINGS) and path.is_file())
    return sorted(path for path in paths if not path.name.startswith("."))


def folders_of(folder: Path) -> list[Path]:
    """Folders in which something of a patient may lie; an atlas is nobody's."""
    names = re.compile(r"\.|__MACOSX|(\d+[_-])?atlas([_-]\w+)?$", re.IGNORECASE)
    return sorted(path for path in folder.glob("*") if path.is_dir() and not names.match(path.name))


def stands_for_file(home: Path) -> bool:
    """Whether a folder with one volume in it was that volume: it has the name of a file, or that of the scan in it."""
    inside = _files_in(home)
    if len(inside) != 1 or home.name.lower().endswith(ENDINGS):
        return len(inside) == 1
    known = channel_in(inside[0]) or is_label(inside[0])
    return bool(known) and _without_number(stem_of(inside[0])) == _without_number(home.name)


def find_file(path: Path) -> Path:
    """The file of this name or, where there is none, one of the same stem, as Kaggle unpacks what is uploaded as .nii.gz.

    Gives the path itself where there is neither, or several.
    """
    if path.is_file() or path.parent.name.lower().endswith(ENDINGS):
        return path
    named = [path.with_name(stem_of(path) + ending) for ending in ENDINGS]
    others = [other for other in named if other.is_file()]
    for home in named:
        if home.is_dir() and stands_for_file(home):
            others += _files_in(home)
    return others[0] if len(others) == 1 else path


def stem_of(path: Path) -> str:
    """Give the name of a file without its ending; of one whose folder stands for it, the name of that folder."""
    named = path.parent if path.parent.name.lower().endswith(ENDINGS) else path
    return re.sub(ENDING, "", named.name, flags=re.IGNORECASE)


def _without_number(stem: str) -> str:
    """Without the number that the Virtual Skeleton Database gave a file: `VSD.Brain.XX.O.MR_Flair.54512`."""
    return re.sub(r"(?<=[a-zA-Z0-9])\.\d+$", "", stem)


def _split_prepared(stem: str) -> tuple[str, int]:
    """A name without the words of `PREPARED` at its end, and how many they are."""
    words = re.split(r"([^a-zA-Z0-9]+)", _without_number(stem))
    count = 0
    while len(words) > 2 and words[-1].lower() in PREPARED:
        words = words[:-2]
        count += 1
    return "".join(words), count


def channel_in(path: Path) -> str | None:
    """Tell which channel a file is, by its name."""
    return channel_of(_split_prepared(stem_of(path))[0])


def prepared_steps(path: Path) -> int:
    """How many words of `PREPARED` its name ends in."""
    return _split_prepared(stem_of(path))[1]


def owner_in(path: Path) -> str:
    """What stands before the name of the channel: the patient, in `A_t1ce` and `A_t1ce_LPS_r_SS`."""
    return without_channel(_split_prepared(stem_of(path))[0])


def is_label(path: Path) -> bool:
    """Whether the name says that it is a label."""
    return not channel_in(path) and bool(re.search(LABEL, _without_number(stem_of(path)), re.IGNORECASE))


def order_scans(scans: Sequence[Path]) -> tuple[Path | None, ...]:
    """The four scans of a patient in the order of `CHANNELS`; None keeps the place of what is missing.

    Of a channel that is there twice, as it was and prepared further, the first is taken.
    """
    images: list[Path | None] = []
    for channel in CHANNELS:
        found = [path for path in scans if channel_in(path) == channel]
        least = min(map(prepared_steps, found), default=0)
        images += [path for path in found if prepared_steps(path) == least] or [None]
    return tuple(images)


def rank_label(path: Path, root: Path) -> int:
    """How far a label is to be trusted, from `MANUAL` to `OTHER`, by its name and those of the folders below `root`."""
    text = str(path.relative_to(root)).lower() if path.is_relative_to(root) else path.name.lower()
    return next((kind for kind, sign in TRUST.items() if re.search(sign, text)), UNSAID)


def trust_labels(labels: Sequence[Path], root: Path) -> list[Path]:
    """Of several labels of a case those that are to be trusted most; more than one where nothing decides."""
    best = min((rank_label(path, root) for path in labels), default=0)
    chosen = [path for path in labels if rank_label(path, root) == best]
    tumour = [
        path for path in chosen if re.search("tumou?r", path.name.lower())
    ]  # others are of the brain, in UCSF-PDGM
    chosen = tumour if len(tumour) == 1 else chosen
    names = {path.name for path in chosen}
    resliced = [path for path in chosen if path.name.startswith("r") and path.name[1:] in names]  # UTSW-Glioma
    return resliced if len(chosen) == 2 and resliced else chosen


def scans_and_labels(folder: Path) -> tuple[list[Path], list[Path]]:
    """The volumes of a folder, labels apart."""
    volumes = volumes_of(folder)
    labels = [path for path in volumes if is_label(path)]
    return [path for path in volumes if path not in labels], labels


def name_folder(home: Path) -> str:
    """Name a patient after the folder; in BIDS after subject and session."""
    path = Path(os.path.abspath(home))  # a link keeps its own name
    entities = [part for part in path.parts if part.startswith(("sub-", "ses-"))]
    return "_".join(entities) if entities and path.name.startswith(("anat", "ses-")) else path.name


def labels_of(name: str, labels: Sequence[Path], names: Iterable[str]) -> list[Path]:
    """Labels named like a patient with more after it; A10_seg is not A1's, nor A_2_seg A's where there is an A_2."""
    longer = [other for other in names if len(other) > len(name)]
    mine = re.compile(rf"{re.escape(name)}[^a-zA-Z0-9]")
    others = [re.compile(rf"{re.escape(other)}[^a-zA-Z0-9]") for other in longer]
    found = []
    for path in labels:
        text = f"{stem_of(path)}."  # so that something follows the name
        if mine.match(text) and not any(other.match(text) for other in others):
            found.append(path)
    return found
