"""Patients without a dataset.json are found by the names of folders and files, whatever else lies there."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from empty_files import FOUR, find_scans, write_files

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import MSD


def test_patients_are_found_by_the_names_of_their_files(tmp_path):
    write_files(tmp_path / "a", *FOUR)
    write_files(tmp_path / "b", "B_0-t2f", "B_0-t1n", "B_0-t1c", "B_0-t2w")
    write_files(tmp_path, "c")
    (tmp_path / "d").mkdir()
    patients = find_scans(tmp_path)
    assert list(patients) == ["a", "b", "c", "d"]
    assert [path.name for path in patients["b"]] == [f"B_0-{n}.nii.gz" for n in ("t2f", "t1n", "t1c", "t2w")]
    assert patients["c"] == (tmp_path / "c.nii.gz",)
    assert list(find_scans(tmp_path / "a")) == ["a"]


@pytest.mark.parametrize("names", [("A", "A.nii.gz"), ("B.nii", "B.nii.gz")], ids=str)
def test_two_patients_of_one_name_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    with pytest.raises(CaseError, match=f"{names[0]} and .*{names[1]}: found two patients of the name {names[0][0]}"):
        find_scans(tmp_path)


def test_a_missing_channel_is_named_when_the_patient_is_read(tmp_path):
    write_files(tmp_path / "a", "flair", "t1", "t2")
    nib.save(nib.Nifti1Image(np.arange(64, dtype=np.float32).reshape(4, 4, 4), np.eye(4)), tmp_path / "a/flair.nii.gz")
    shutil.copy(tmp_path / "a/flair.nii.gz", tmp_path / "a/t1.nii.gz")
    (case,) = find_cases(tmp_path, labelled=False)
    with pytest.raises(CaseError, match="a: found no T1gd among its files, expected FLAIR, T1w, T1gd, T2w"):
        read_case(case)


def test_a_label_beside_a_4d_file_is_no_second_scan(tmp_path):
    patient = write_files(tmp_path / "a", "scan_4d", "seg")
    assert find_scans(tmp_path) == {"a": (patient / "scan_4d.nii.gz",)}
    assert find_scans(patient) == {"scan_4d": (patient / "scan_4d.nii.gz",)}
    for folder in (tmp_path, patient):
        (found,) = find_cases(folder, schema=MSD)
        assert (found.images, found.label) == ((patient / "scan_4d.nii.gz",), patient / "seg.nii.gz")


@pytest.mark.parametrize("name", ["segmentation", "tumor_segmentation", "A-Seg2"])
def test_any_word_that_starts_with_seg_tells_a_label(tmp_path, name):
    patient = write_files(tmp_path / "a", "scan_4d", name)
    (found,) = find_cases(tmp_path, schema=MSD)
    assert (found.images, found.label) == ((patient / "scan_4d.nii.gz",), patient / f"{name}.nii.gz")


def test_what_macos_leaves_beside_files_is_no_scan(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg", *(f"._{name}" for name in (*FOUR, "seg")))
    write_files(tmp_path / "b", "scan_4d", "._scan_4d")
    assert [path.name for path in find_scans(tmp_path)["a"]] == [f"{name}.nii.gz" for name in FOUR]
    assert find_scans(tmp_path)["b"] == (tmp_path / "b/scan_4d.nii.gz",)
    assert [case.label.name for case in find_cases(tmp_path, schema=MSD)] == ["seg.nii.gz"]


def test_scans_of_a_patient_beside_folders_of_others_are_refused(tmp_path):
    write_files(tmp_path, *FOUR)
    write_files(tmp_path / "B", *FOUR)
    with pytest.raises(
        CaseError, match="found scans of one patient, and scans of others in B, expected one or the other"
    ):
        find_cases(tmp_path, labelled=False)


def test_other_sequences_and_what_the_system_leaves_are_no_scans(tmp_path):
    write_files(tmp_path / "A", *FOUR, "t2_flair_bias", "adc", "swi", "brain_mask")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "survival.csv").touch()
    assert {name: [path.name for path in images] for name, images in find_scans(tmp_path).items()} == {
        "A": [f"{name}.nii.gz" for name in FOUR]
    }


@pytest.mark.parametrize("names", [("A1", "A10"), ("A", "A_2")], ids=str)
@pytest.mark.parametrize("scans", [("",), tuple(f"_{name}" for name in FOUR)], ids=["4D", "four files"])
def test_a_label_belongs_to_the_patient_of_that_whole_name(tmp_path, names, scans):
    for name in names:
        write_files(tmp_path, *(f"{name}{word}" for word in (*scans, "_seg")))
    found = {case.case_id: case.label.name for case in find_cases(tmp_path, schema=MSD)}
    assert found == {name: f"{name}_seg.nii.gz" for name in names}


def test_a_4d_file_with_a_number_is_no_file_of_nnunet(tmp_path):
    (tmp_path / "patient_0001.nii.gz").touch()
    assert [case.case_id for case in find_cases(tmp_path, labelled=False)] == ["patient_0001"]


@pytest.mark.parametrize(
    "names", [("t1c_brain", "t1n_brain", "t2f_brain", "t2w_brain"), ("0000", "0001", "0002", "0003")]
)
def test_four_files_whose_names_say_no_channel_are_refused(tmp_path, names):
    write_files(tmp_path / "P", *(f"P_{name}" for name in names))
    with pytest.raises(
        CaseError, match="whose names do not say which channel each is, expected last words such as FLAIR"
    ):
        find_scans(tmp_path)


@pytest.mark.parametrize("homes", [("P0/v1", "P1/v1"), ("HGG/A", "LGG/A")], ids=str)
def test_patients_in_folders_of_one_name_are_all_called_by_the_folder_above_too(tmp_path, homes):
    for home in reversed(homes):
        write_files(tmp_path / home, *FOUR)
    found = {name: images[0].parent for name, images in find_scans(tmp_path).items()}
    assert found == {home.replace("/", "_"): tmp_path / home for home in homes}


def test_a_session_called_post_is_no_contrast_agent(tmp_path):
    names = [f"sub-1_ses-post_{word}" for word in ("FLAIR", "T1w", "ce-gd_T1w", "T2w")]
    write_files(tmp_path / "sub-1/ses-post/anat", *names)
    (images,) = find_scans(tmp_path).values()
    assert [path.name for path in images] == [f"{name}.nii.gz" for name in names]


def test_subject_and_session_name_a_patient_also_without_a_folder_anat(tmp_path):
    for subject in ("sub-1", "sub-2"):
        write_files(tmp_path / subject / "ses-1", *(f"{subject}_ses-1_{name}" for name in FOUR))
    assert list(find_scans(tmp_path)) == ["sub-1_ses-1", "sub-2_ses-1"]


@pytest.mark.parametrize(
    "names",
    [
        [*(f"B_{name}" for name in FOUR), "A_adc"],
        [*(f"B_{name}" for name in FOUR), "mask"],
        [*(f"B_{name}" for name in FOUR), "B_t2_flair_bias"],
        ["B_flair", "B_t1", "B_t1gd"],
        ["B_T2_FLAIR", "B_T1", "B_T1_Gd", "B_T2"],
    ],
    ids=["sequence", "mask", "bias", "missing channel", "two words"],
)
def test_patients_side_by_side_are_told_apart_whatever_lies_beside_them(tmp_path, names):
    write_files(tmp_path, *(f"A_{name}" for name in FOUR), *names)
    assert list(find_scans(tmp_path)) == ["A", "B"]


def test_a_linked_folder_is_called_by_its_own_name(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("P1", "P2"):
        write_files(tmp_path / f"store_{name}/x", *FOUR)
        (tmp_path / "data" / name).symlink_to(tmp_path / f"store_{name}/x")
    assert list(find_scans(tmp_path / "data")) == ["P1", "P2"]


def test_folders_that_macos_packs_beside_others_are_no_patients(tmp_path):
    write_files(tmp_path / "P1", *FOUR)
    write_files(tmp_path / "__MACOSX/P1", "._flair")
    assert list(find_scans(tmp_path)) == ["P1"]


def test_a_folder_that_evaluate_wrote_is_no_patient(tmp_path):
    write_files(tmp_path / "A", *FOUR, "seg")
    write_files(tmp_path / "evaluation/predictions", "A")
    (tmp_path / "evaluation/cases.csv").touch()
    assert list(find_scans(tmp_path)) == ["A"]
    assert [case.case_id for case in find_cases(tmp_path, schema=MSD)] == ["A"]


def test_scans_of_a_patient_whose_name_starts_with_seg_are_no_labels(tmp_path):
    write_files(tmp_path / "x", *(f"Seg01_{name}" for name in FOUR))
    assert [path.name for path in find_scans(tmp_path)["x"]] == [f"Seg01_{name}.nii.gz" for name in FOUR]


def test_endings_in_capitals_are_those_of_scans(tmp_path):
    (tmp_path / "A").mkdir()
    for name in FOUR:
        (tmp_path / f"A/{name}.NII.GZ").touch()
    assert [path.name for path in find_scans(tmp_path)["A"]] == [f"{name}.NII.GZ" for name in FOUR]
