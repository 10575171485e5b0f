"""Scans with whatever is odd in them: written in any layout, and what training, evaluation and prediction see."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.geometry import reorient_volume
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.precheck import check_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import MSD, LabelError
from brats_utils.loading import build_dataset
from brats_utils.transforms import build_cached_transform, build_eval_transform

NAMES = ("PHANTOM_001", "PHANTOM_003")  # the second has no enhancing tumour
MODALITY = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
FOUR = ("flair", "t1", "t1ce", "t2")
BRATS = ("{id}/{id}-{channel}.nii.gz", "{id}/{id}-seg.nii.gz", ("t2f", "t1n", "t1c", "t2w"))
SHAPE = (40, 48, 36)
LPS = np.array([[-1.0, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1, -72], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).integers(0, 4, (12, 14, 10)).astype(np.uint8)


def keep(image):
    return image


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def turn(image, axes):
    wanted = nib.orientations.axcodes2ornt(axes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


def store(image, change=keep, *, affine=None, dtype=None):
    """The image with other voxels, or with a header of which no more than an affine is kept."""
    values = change(np.asanyarray(image.dataobj))
    return nib.Nifti1Image(values.astype(dtype or values.dtype), image.affine if affine is None else affine)


def write_msd(folder, patients, *, scan=keep, label=keep, names=NAMES):
    """Write them in MSD's layout, each image and each label changed before."""
    entries = []
    for name, images in zip(names, patients, strict=True):
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
        for change, image, path in zip((scan, label), images, entries[-1].values(), strict=True):
            save(change(image), folder / path)
    return describe(folder, training=entries)


def describe(folder, **content):
    document = {"modality": MODALITY, "labels": {str(value): tissue for value, tissue in MSD.tissues.items()}}
    (folder / "dataset.json").write_text(json.dumps(document | content))
    return folder


def write_files(folder, patients, scan, label, channels=FOUR, *, change=keep):
    """Write a file a channel; `scan` and `label` are patterns of paths, `channels` their names in our order."""
    for name, grade, (image, truth) in zip(NAMES, ("HGG", "LGG"), patients, strict=True):
        filled = {"id": name, "number": name[-3:], "grade": grade}
        for index, channel in enumerate(channels):
            save(image.slicer[..., index], folder / scan.format(channel=channel, **filled))
        save(change(truth), folder / label.format(**filled))
    return folder


def write_channels(folder, *, affine=None, names=("flair", "t1", "t1gd", "t2"), change=None, dtype=np.float32):
    """Write four brains of noise that resemble no channel in particular; `change` edits {name: volume} first."""
    brain = np.zeros(SHAPE, dtype=bool)
    brain[4:-4, 4:-4, 4:-4] = True
    rng = np.random.default_rng(0)
    volumes = {name: np.where(brain, 100 + 20 * rng.random(SHAPE), 0).astype(dtype) for name in names}
    if change:
        change(volumes)
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{name}.nii.gz")
    return [folder / f"{name}.nii.gz" for name in volumes]


def set_voxel(name, value):
    """Give a change for `write_channels`."""
    return lambda volumes: volumes[name].__setitem__((20, 20, 20), value)


def write_labelled(folder):
    """Write a 4D scan of noise, and its label on the same grid."""
    scan = np.random.default_rng(0).random((*LABELS.shape, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(scan, LPS), folder / "scan.nii.gz")
    nib.save(nib.Nifti1Image(LABELS, LPS), folder / "label.nii.gz")
    return Case("one", (folder / "scan.nii.gz",), folder / "label.nii.gz", MSD)


def read_files(*files, **how):
    return read_case(Case("one", files), **how)


def prepare(cases, *, cache):
    whole = build_eval_transform(cases[0].label_schema)
    dataset = build_dataset(cases, cached=build_cached_transform(4.0), on_the_fly=whole, cache=cache)
    return [dataset[index] for index in range(len(cases))]


def look(folder, *, schema=None, cache="none"):
    """What training, evaluation and prediction see of each case, with axes as training turns them."""
    cases, seen = find_cases(folder, schema=schema), {}
    alone = {case.case_id: case for case in find_cases(folder, labelled=False)}
    for case, patch in zip(cases, prepare(cases, cache=cache), strict=True):
        truth, scan = read_case(case), read_case(alone[case.case_id])
        seen[case.case_id] = {
            "training image": patch["image"],
            "training regions": patch["label"],
            "evaluation regions": reorient_volume(truth.regions, truth.image.affine),
            "prediction image": reorient_volume(scan.image, scan.image.affine),
        }
    return seen


def assert_same(seen, originals, *, but=()):
    assert len(seen) == len(originals)
    for one, other in zip(seen.values(), originals, strict=True):
        for key in set(one) - set(but):
            torch.testing.assert_close(
                one[key], other[key], atol=2e-3, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
            )


def warnings_of(folder, **how):
    return " ".join(text for case in find_cases(folder, **how) for text in read_case(case).warnings)


def refuse(folder, **how):
    """The message with which all that takes labels refuses a folder's first case; that it is one is checked here."""
    case = find_cases(folder, **how)[0]
    with pytest.raises((CaseError, LabelError)) as refused:
        check_cases([case])
    for cache in ("ram", "none"):
        with pytest.raises(RuntimeError) as wrapped:  # by MONAI; the command line shows the cause
            prepare([case], cache=cache)
        cause = wrapped.value.__cause__
        assert (type(cause), str(cause)) == (refused.type, str(refused.value))
    return str(refused.value)
