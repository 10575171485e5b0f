"""A patient without one of the four sequences is predicted and scored all the same, and not trained on."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from brats_utils import inference
from brats_utils.cases.case import Case, CaseError, stamp_files
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.precheck import check_cases
from brats_utils.cases.reader import read_case
from brats_utils.commands.cli import main
from brats_utils.inference import build_predictor, predict_scan
from brats_utils.labels import CHANNELS, MSD
from brats_utils.patients.prediction import predict_patient
from brats_utils.saving.checkpoints import load_checkpoint
from brats_utils.transforms import build_preprocessing, read_tensors

FILES = dict(zip(CHANNELS, ("flair", "t1", "t1gd", "t2"), strict=True))


@pytest.fixture(scope="module")
def whole(phantom_dir, tmp_path_factory):
    """The folder of a patient with four files and a label."""
    folder = tmp_path_factory.mktemp("whole") / "one"
    folder.mkdir()
    scan = nib.load(phantom_dir / "imagesTr/PHANTOM_001.nii.gz")
    for name, channel in zip(FILES.values(), nib.four_to_three(scan), strict=True):
        nib.save(channel, folder / f"{name}.nii.gz")
    shutil.copy(phantom_dir / "labelsTr/PHANTOM_001.nii.gz", folder / "seg.nii.gz")
    return folder


@pytest.fixture
def lack(whole, tmp_path):
    """Copy the patient without some channels, and list the case."""

    def copy(*channels):
        shutil.copytree(whole, tmp_path / "patients/one")
        for channel in channels:
            (tmp_path / f"patients/one/{FILES[channel]}.nii.gz").unlink()
        return find_cases(tmp_path / "patients", schema=MSD)[0]

    return copy


@pytest.fixture
def sure(monkeypatch, checkpoint):
    """A predictor that sees enhancing tumour everywhere."""
    monkeypatch.setattr(inference, "predict_members", lambda _, image: iter([torch.full((3, *image.shape[1:]), 0.9)]))
    return build_predictor([load_checkpoint(checkpoint)])


def list_images(folder):
    """By case, the names of its scans in the order of `CHANNELS`."""
    cases = find_cases(folder, labelled=False)
    return {case.case_id: [path and path.name.partition(".")[0] for path in case.images] for case in cases}


@pytest.mark.parametrize("channel", CHANNELS)
def test_any_one_of_the_four_may_be_missing_is_zeros_and_gives_one_warning(whole, lack, channel):
    case, complete = lack(channel), read_case(find_cases(whole, labelled=False)[0])
    scan = read_case(case, incomplete=True)
    there = [index for index, name in enumerate(CHANNELS) if name != channel]
    assert (case.missing, case.images[CHANNELS.index(channel)], scan.missing) == ((channel,), None, channel)
    assert not scan.image[CHANNELS.index(channel)].any()
    assert torch.equal(scan.image[there], complete.image[there])
    assert [text for text in scan.warnings if text not in complete.warnings] == [scan.warnings[-1]]
    assert scan.warnings[-1].startswith(f"{channel} is missing. ")
    assert not build_preprocessing(4.0)(scan.tensors)["image"][CHANNELS.index(channel)].any()


def test_training_refuses_a_patient_without_a_channel_and_says_who_takes_it(lack, tmp_path):
    case, memory = lack("T1gd"), tmp_path / "checked.json"
    check_cases([case], remembered=memory, incomplete=True)
    message = r"one: found no T1gd among its files.*predict and evaluate accept one missing sequence, training does not"
    with pytest.raises(CaseError, match=message):
        check_cases([case], remembered=memory)
    with pytest.raises(CaseError, match=message):
        read_tensors(case)


def test_two_missing_channels_are_refused_by_name(lack):
    with pytest.raises(CaseError, match="one: found no T1w and no T2w among its files, expected FLAIR, T1w, T1gd, T2w"):
        read_case(lack("T1w", "T2w"), incomplete=True)


def test_a_file_that_turns_out_to_be_another_channel_is_noticed(lack):
    case = lack("T2w")
    assert stamp_files(case) != stamp_files(replace(case, images=(*case.images[:2], None, case.images[2])))


def test_channels_that_are_swapped_are_noticed_without_a_third(lack):
    flair, t1, t1gd, t2 = lack("T1gd").images
    swapped = read_case(Case("swapped", (t2, t1, t1gd, flair)), incomplete=True)
    assert "Check the order of the channels." in " ".join(swapped.warnings)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["A_flair", "A_t1", "A_t2", "B_t1", "B_t1gd", "B_t2", "C_t1"], {"A": "T1gd", "B": "FLAIR", "C": "FLAIR"}),
        (["sub-1/anat/sub-1_FLAIR", "sub-1/anat/sub-1_ce-gd_T1w", "sub-1/anat/sub-1_T2w"], {"sub-1": "T1w"}),
        (["x/A_flair", "x/A_t1", "x/A_t1ce", "x/t2"], {"x": None}),
    ],
    ids=["side by side", "BIDS", "one patient of mixed names"],
)
def test_patients_of_three_files_are_found_in_every_layout(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    found = {case.case_id: next(iter(case.missing), None) for case in find_cases(tmp_path, labelled=False)}
    assert found == expected


def test_a_data_set_of_nnunet_with_three_of_our_channels_is_taken(tmp_path):
    for path in ("imagesTr/A_0000", "imagesTr/A_0001", "imagesTr/A_0002", "labelsTr/A"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / f"{path}.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T2", "1": "T1ce", "2": "T1"}}))
    assert list_images(tmp_path) == {"A": [None, "A_0002", "A_0001", "A_0000"]}


@pytest.mark.parametrize("number", range(4))
def test_a_case_of_nnunet_without_one_of_its_files_is_listed_without_that_channel(tmp_path, number):
    names = ["FLAIR", "T1", "T1ce", "T2"]
    (tmp_path / "imagesTs").mkdir()
    for path in [*(f"A_000{other}" for other in range(4) if other != number), *(f"B_000{other}" for other in range(4))]:
        (tmp_path / f"imagesTs/{path}.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": dict(zip("0123", names, strict=True))}))
    for folder in (tmp_path, tmp_path / "imagesTs"):
        missing = {case.case_id: case.missing for case in find_cases(folder, labelled=False)}
        assert missing == {"A": (CHANNELS[number],), "B": ()}


def test_without_t1gd_enhancing_tumour_is_core_unless_it_is_to_be_guessed(lack, sure):
    scan = read_case(lack("T1gd"), incomplete=True)
    seen, guessed = predict_scan(sure, scan), predict_scan(replace(sure, guess_enhancing=True), scan)
    assert MSD.enhancing not in seen.labels
    assert np.isnan(seen.volumes_ml["ET"])
    assert np.isnan(seen.expected_dice["ET"])
    assert seen.volumes_ml["TC"] == guessed.volumes_ml["ET"] > 0


def test_without_another_channel_enhancing_tumour_is_looked_for(lack, sure):
    assert predict_scan(sure, read_case(lack("T1w"), incomplete=True)).volumes_ml["ET"] > 0


def test_what_is_written_says_what_is_missing_and_gives_no_volume_of_what_was_not_looked_for(lack, sure, tmp_path):
    case = lack("T1gd")
    content = predict_patient(sure, case, tmp_path / "without")
    assert (content["missing"], content["volumes_ml"]["ET"], content["expected_dice"]["ET"]) == ("T1gd", None, None)
    assert json.loads((tmp_path / "without/prediction.json").read_text()) == content
    assert predict_patient(replace(sure, guess_enhancing=True), case, tmp_path / "g")["volumes_ml"]["ET"] > 0


def test_predict_takes_three_files_and_says_what_it_did_not_look_for(whole, checkpoint, tmp_path, capsys):
    files = [text for name in ("flair", "t1", "t2") for text in (f"--{name}", str(whole / f"{name}.nii.gz"))]
    main(["predict", "--checkpoint", str(checkpoint), "--no-flips", *files, "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert "ET: not segmented without T1gd\n" in said.out
    assert "warning: T1gd is missing. It alone shows contrast agent" in said.err
    assert (tmp_path / "preview.png").stat().st_size > 0


def test_a_folder_of_patients_leaves_the_volume_of_et_empty(lack, checkpoint, tmp_path, capsys):
    folder = lack("T1gd").files[0].parents[1]
    main(["predict", "--checkpoint", str(checkpoint), "--no-flips", "--patients", str(folder), "--out", str(tmp_path / "out")])  # fmt: skip
    (row,) = pd.read_csv(tmp_path / "out/patients.csv").to_dict("records")
    assert row["status"] == "warning"
    assert np.isnan(row["ET_ml"])
    assert "None" not in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_scores_what_is_missing_plainly_and_says_so(lack, checkpoint, tmp_path, capsys):
    folder = lack("T1gd").files[0].parents[1]
    command = ["evaluate", "--checkpoint", str(checkpoint), "--no-flips", "--data", str(folder), "--schema", "msd"]
    main([*command, "--out", str(tmp_path / "out")])
    assert "ET: not segmented without T1gd, in 1 of 1 cases" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out/cases.csv")["dice_ET"].tolist() == [0]
    assert (tmp_path / "out/report.html").is_file()
    main([*command, "--out", str(tmp_path / "guess"), "--guess-enhancing"])
    assert "not segmented" not in capsys.readouterr().out
