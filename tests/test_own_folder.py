"""The notebooks that take a data set, executed on a folder of four files a patient; 07 takes raw scans."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brats_utils.cases.layouts import find_cases
from brats_utils.commands.run import NOTEBOOKS, run_notebooks
from brats_utils.labels import BRATS_2021, MSD
from brats_utils.saving.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow


def copy_in_layout_of_brats(cases, folder):
    """Four files a patient, numbered as BraTS 2021 does, and no dataset.json."""
    renumber = np.zeros(4, np.uint8)
    for tissue in ("edema", "necrotic", "enhancing"):
        renumber[getattr(MSD, tissue)] = getattr(BRATS_2021, tissue)
    for case in cases:
        stem = folder / case.case_id / case.case_id
        stem.parent.mkdir(parents=True)
        for name, scan in zip(("flair", "t1", "t1ce", "t2"), nib.four_to_three(nib.load(case.images[0])), strict=True):
            nib.save(scan, f"{stem}_{name}.nii.gz")
        label = nib.load(case.label)
        nib.save(nib.Nifti1Image(renumber[np.asarray(label.dataobj)], label.affine), f"{stem}_seg.nii.gz")
    return folder


@pytest.mark.slow(minutes=3)
def test_every_notebook_takes_four_files_a_patient(phantom_dir, tmp_path):
    cases, output_dir = find_cases(phantom_dir)[:4], tmp_path / "run"
    data = copy_in_layout_of_brats(cases, tmp_path / "brats")
    parameters = {"preset": "smoke", "output_dir": str(output_dir), "wandb_mode": "disabled", "data": str(data)}
    parameters |= {"overrides": {"label_schema": "brats2021"}}
    parameters |= {"real_data": str(data / cases[0].case_id), "real_schema": "brats2021"}
    run_notebooks(parameters, output_dir, notebooks=[name for name in NOTEBOOKS if name != "07_raw_scans"])
    assert load_checkpoint(output_dir / "checkpoints/best.pt").config["label_schema"] == "brats2021"
    assert len(pd.read_csv(output_dir / "real/cases.csv")) == 1
    predicted = np.unique(nib.load(output_dir / "own_scans/prediction/segmentation.nii.gz").dataobj)
    assert set(predicted) <= set(BRATS_2021.tissues)
