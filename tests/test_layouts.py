"""Patients are found by what lies in a folder, and what can be read in two ways is refused."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import BRATS_2021, MSD, LabelError

FOUR = ("flair", "t1", "t1gd", "t2")


def write_files(folder, *names):
    """Files that are looked for and not into."""
    for name in names:
        path = folder / (name if ".nii" in name else f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write_document(folder, **content):
    channels = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    labels = {str(value): tissue for value, tissue in MSD.tissues.items()}
    (folder / "dataset.json").write_text(json.dumps({"modality": channels, "labels": labels} | content))


def write_nnunet(folder, **parts):
    """Files of nnU-Net v2: the names of cases by folder, with the channels of images numbered."""
    for part, names in parts.items():
        numbers = [f"_000{number}" for number in range(4)] if part.startswith("images") else [""]
        write_files(folder / part, *(f"{name}{number}" for name in names for number in numbers))
    channels = dict(zip("0123", ("T1", "T1ce", "T2", "FLAIR"), strict=True))
    document = {"channel_names": channels, "labels": {tissue: value for value, tissue in MSD.tissues.items()}}
    (folder / "dataset.json").write_text(json.dumps(document))


def find_scans(folder):
    """Ids and scans of all patients, labelled or not."""
    return {case.case_id: case.images for case in find_cases(folder, labelled=False)}


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


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(CaseError, match="found no patient, expected one of these layouts: MSD"):
        find_cases(tmp_path)
    with pytest.raises(CaseError, match="not found, or no folder"):
        find_cases(tmp_path / "no")


def test_labelled_patients_are_those_with_a_seg_file(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg_consensus")
    write_files(tmp_path / "b", *FOUR)
    (found,) = find_cases(tmp_path, schema=MSD)
    assert (found.case_id, found.label.name, found.numbering) == ("a", "seg_consensus.nii.gz", MSD)
    with pytest.raises(CaseError, match="found no labelled patient among 1"):
        find_cases(tmp_path / "b", schema=MSD)


def test_labels_are_not_looked_at_where_none_are_wanted(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg_1", "seg_2")
    (found,) = find_cases(tmp_path, labelled=False)
    assert (found.label, found.numbering) == (None, None)


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


def test_folders_without_a_nifti_are_no_labelled_patients(tmp_path):
    write_files(tmp_path / "a", "scan_4d", "seg")
    (tmp_path / "notes").mkdir()
    assert [case.case_id for case in find_cases(tmp_path, schema=MSD)] == ["a"]


def test_patients_whose_label_is_unclear_are_named(tmp_path):
    write_files(tmp_path / "a", "scan_4d", "seg")
    write_files(tmp_path / "b", "scan_4d", "seg_1", "seg_2")
    write_files(tmp_path / "c", "c-seg")
    with pytest.raises(CaseError, match=r"b has 2 labels \(seg_1.nii.gz, seg_2.nii.gz\); c has a label and no scan"):
        find_cases(tmp_path, schema=MSD)


def test_what_macos_leaves_beside_files_is_no_scan(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg", *(f"._{name}" for name in (*FOUR, "seg")))
    write_files(tmp_path / "b", "scan_4d", "._scan_4d")
    assert [path.name for path in find_scans(tmp_path)["a"]] == [f"{name}.nii.gz" for name in FOUR]
    assert find_scans(tmp_path)["b"] == (tmp_path / "b/scan_4d.nii.gz",)
    assert [case.label.name for case in find_cases(tmp_path, schema=MSD)] == ["seg.nii.gz"]


def test_a_folder_that_does_not_say_how_labels_are_numbered_is_asked_about(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg")
    with pytest.raises(LabelError, match="expected label_schema, or --schema with one of msd, brats2021, brats2023"):
        find_cases(tmp_path)


@pytest.fixture
def copied_dir(phantom_dir, tmp_path):
    return shutil.copytree(phantom_dir, tmp_path / "data")


def test_cases_are_listed_by_id(phantom_dir):
    cases = find_cases(phantom_dir)
    assert [case.case_id for case in cases] == sorted(case.case_id for case in cases)
    assert all(path.is_file() for case in cases for path in case.files)
    assert {case.numbering for case in cases} == {MSD}


def test_folder_of_another_schema_is_refused(phantom_dir):
    with pytest.raises(LabelError, match="set label_schema"):
        find_cases(phantom_dir, schema=BRATS_2021)


def test_missing_file_is_named(copied_dir):
    gone = find_cases(copied_dir)[0].label
    gone.unlink()
    with pytest.raises(CaseError, match=rf"1 of the files listed are missing, the first is .*{gone.name}"):
        find_cases(copied_dir)


def test_a_case_that_is_listed_twice_is_refused(copied_dir):
    document = json.loads((copied_dir / "dataset.json").read_text())
    document["training"] *= 2
    (copied_dir / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(CaseError, match=r"dataset\.json: a case is listed twice"):
        find_cases(copied_dir)


def test_images_for_testing_are_listed_where_labels_are_not_wanted(copied_dir):
    document = json.loads((copied_dir / "dataset.json").read_text())
    here, gone = (entry["image"] for entry in document["training"][:2])
    (copied_dir / gone).unlink()
    (copied_dir / "dataset.json").write_text(json.dumps(document | {"training": [], "test": [here, gone]}))
    assert list(find_scans(copied_dir)) == ["PHANTOM_001"]


def test_what_was_found_is_said_in_one_line(phantom_dir, tmp_path, capsys):
    find_cases(phantom_dir)
    write_files(tmp_path / "one", *FOUR, "seg")
    find_cases(tmp_path / "one", schema=BRATS_2021)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(": MSD's layout, 4D files, 8 cases, 6 with a label, numbered as msd, as dataset.json says.")
    assert second.endswith(": four files a patient, 1 case, 1 with a label, numbered as brats2021, as you say.")


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_folders_of_msd_without_their_dataset_json_are_refused(tmp_path, part):
    write_files(tmp_path / part, "A")
    with pytest.raises(CaseError, match=r"found imagesTr or labelsTr without a dataset\.json, which says what"):
        find_cases(tmp_path, labelled=False)


def test_numbered_files_without_a_dataset_json_are_refused(tmp_path):
    write_files(tmp_path, *(f"A_000{number}" for number in range(4)))
    with pytest.raises(CaseError, match=r"found files numbered _0000 and so on, expected a dataset\.json here or"):
        find_cases(tmp_path, labelled=False)


def test_scans_of_a_patient_beside_folders_of_others_are_refused(tmp_path):
    write_files(tmp_path, *FOUR)
    write_files(tmp_path / "B", *FOUR)
    with pytest.raises(
        CaseError, match="found scans of one patient, and scans of others in B, expected one or the other"
    ):
        find_cases(tmp_path, labelled=False)


def test_a_4d_file_beside_numbered_files_of_its_name_is_refused(tmp_path):
    write_files(tmp_path / "imagesTr", "A", *(f"A_000{number}" for number in range(4)))
    write_files(tmp_path / "labelsTr", "A")
    write_document(tmp_path, training=[{"image": "imagesTr/A.nii.gz", "label": "labelsTr/A.nii.gz"}])
    with pytest.raises(CaseError, match=r"A\.nii\.gz: found a 4D file and A_0000\.nii\.gz beside it, expected one or"):
        find_cases(tmp_path)


def test_a_data_set_one_folder_below_is_named(phantom_dir):
    with pytest.raises(CaseError, match=f"found a data set in {phantom_dir.name}. Name that folder, and not this one"):
        find_cases(phantom_dir.parent)


def test_two_patients_of_one_name_in_different_folders_are_told_apart(tmp_path):
    write_files(tmp_path / "HGG/A", *FOUR)
    write_files(tmp_path / "LGG/A", *FOUR)
    assert [images[0].parent for images in find_scans(tmp_path).values()] == [tmp_path / "HGG/A", tmp_path / "LGG/A"]


def test_scans_that_dataset_json_lists_on_another_drive_are_told_apart(tmp_path, monkeypatch):
    def refuse(path, start=None):  # as Windows does from one drive to another
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", refuse)
    homes = [write_files(tmp_path / "elsewhere" / site, "scan", "seg") for site in ("HGG", "LGG")]
    listed = [{"image": str(home / "scan.nii.gz"), "label": str(home / "seg.nii.gz")} for home in homes]
    (tmp_path / "data").mkdir()
    write_document(tmp_path / "data", training=listed)
    assert [case.case_id for case in find_cases(tmp_path / "data")] == ["HGG", "LGG"]


def test_other_sequences_and_what_the_system_leaves_are_no_scans(tmp_path):
    write_files(tmp_path / "A", *FOUR, "t2_flair_bias", "adc", "swi", "brain_mask")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "survival.csv").touch()
    assert {name: [path.name for path in images] for name, images in find_scans(tmp_path).items()} == {
        "A": [f"{name}.nii.gz" for name in FOUR]
    }


def test_a_label_belongs_to_the_patient_of_that_whole_name(tmp_path):
    for name in ("A1", "A10"):
        for word in ("flair", "t1", "t1gd", "t2", "seg"):
            (tmp_path / f"{name}_{word}.nii.gz").touch()
    found = {case.case_id: case.label.name for case in find_cases(tmp_path, schema=MSD)}
    assert found == {"A1": "A1_seg.nii.gz", "A10": "A10_seg.nii.gz"}


def test_a_4d_file_with_a_number_is_no_file_of_nnunet(tmp_path):
    (tmp_path / "patient_0001.nii.gz").touch()
    assert [case.case_id for case in find_cases(tmp_path, labelled=False)] == ["patient_0001"]


def test_scans_of_nnunet_without_a_label_are_predicted(tmp_path):
    (tmp_path / "imagesTr").mkdir()
    for number in range(4):
        (tmp_path / f"imagesTr/A_{number:04d}.nii.gz").touch()
    names = {"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    (case,) = find_cases(tmp_path, labelled=False)
    assert (case.case_id, case.images[0].name) == ("A", "A_0003.nii.gz")


def test_a_number_within_the_name_of_a_case_of_nnunet_is_not_that_of_a_channel(tmp_path):
    names = ["BraTS2021_00003", "BraTS2021_00004"]
    write_nnunet(tmp_path, imagesTr=names[:1], labelsTr=names[:1], imagesTs=names[1:])
    assert [case.case_id for case in find_cases(tmp_path)] == names[:1]
    assert list(find_scans(tmp_path)) == names


@pytest.mark.parametrize(
    "names", [("t1c_brain", "t1n_brain", "t2f_brain", "t2w_brain"), ("0000", "0001", "0002", "0003")]
)
def test_four_files_whose_names_say_no_channel_are_refused(tmp_path, names):
    write_files(tmp_path / "P", *(f"P_{name}" for name in names))
    with pytest.raises(
        CaseError, match="whose names do not say which channel each is, expected last words such as FLAIR"
    ):
        find_scans(tmp_path)


def test_patients_in_folders_of_one_name_are_all_called_by_the_folder_above_too(tmp_path):
    write_files(tmp_path / "P1/v1", *FOUR)
    write_files(tmp_path / "P0/v1", *FOUR)
    found = {name: images[0].parent for name, images in find_scans(tmp_path).items()}
    assert found == {"P0_v1": tmp_path / "P0/v1", "P1_v1": tmp_path / "P1/v1"}


@pytest.mark.parametrize("names", [[], ["t1", "t1gd", "t2", "flair"]], ids=["none", "another order"])
def test_listed_files_that_contradict_the_channels_are_refused(tmp_path, names):
    write_files(tmp_path, *names, "seg")
    images = [f"{name}.nii.gz" for name in names]
    write_document(tmp_path, training=[{"image": images, "label": "seg.nii.gz"}])
    with pytest.raises(CaseError, match=r"expected one a channel, in the order \['FLAIR', 'T1w', 'T1gd', 'T2w'\]"):
        find_cases(tmp_path)


def test_a_session_called_post_is_no_contrast_agent(tmp_path):
    names = [f"sub-1_ses-post_{word}" for word in ("FLAIR", "T1w", "ce-gd_T1w", "T2w")]
    write_files(tmp_path / "sub-1/ses-post/anat", *names)
    (images,) = find_scans(tmp_path).values()
    assert [path.name for path in images] == [f"{name}.nii.gz" for name in names]


def test_subject_and_session_name_a_patient_also_without_a_folder_anat(tmp_path):
    for subject in ("sub-1", "sub-2"):
        write_files(tmp_path / subject / "ses-1", *(f"{subject}_ses-1_{name}" for name in FOUR))
    assert list(find_scans(tmp_path)) == ["sub-1_ses-1", "sub-2_ses-1"]


def test_the_label_of_a_4d_file_is_not_that_of_a_shorter_name(tmp_path):
    write_files(tmp_path, "A", "A_seg", "A_2", "A_2_seg")
    found = {case.case_id: case.label.name for case in find_cases(tmp_path, schema=MSD)}
    assert found == {"A": "A_seg.nii.gz", "A_2": "A_2_seg.nii.gz"}


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


def test_images_for_testing_that_were_not_copied_do_not_hide_nnunets_training_cases(tmp_path):
    write_nnunet(tmp_path, imagesTr=["A"], labelsTr=["A"])
    listed = [{"image": "imagesTr/A.nii.gz", "label": "labelsTr/A.nii.gz"}]
    write_document(tmp_path, training=listed, test=["imagesTs/C.nii.gz"])
    assert [case.case_id for case in find_cases(tmp_path)] == ["A"]


def test_a_label_of_nnunet_without_its_images_is_named(tmp_path):
    write_nnunet(tmp_path, imagesTr=["A"], labelsTr=["A", "Z"])
    with pytest.raises(CaseError, match=r"1 of the files listed are missing, the first is .*Z"):
        find_cases(tmp_path)


def test_a_linked_folder_is_called_by_its_own_name(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("P1", "P2"):
        write_files(tmp_path / f"store_{name}/x", *FOUR)
        (tmp_path / "data" / name).symlink_to(tmp_path / f"store_{name}/x")
    assert list(find_scans(tmp_path / "data")) == ["P1", "P2"]


def test_what_macos_leaves_in_imagests_is_no_case(tmp_path):
    write_nnunet(tmp_path, imagesTr=["A"], labelsTr=["A"], imagesTs=["B", "._B"])
    assert list(find_scans(tmp_path)) == ["A", "B"]


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


def test_of_several_labels_the_one_named_tumor_is_taken(tmp_path):  # as in UCSF-PDGM
    labels = [f"x_{part}_segmentation" for part in ("tumor", "brain", "brain_parenchyma")]
    write_files(tmp_path / "x", "x_FLAIR", "x_T1", "x_T1c", "x_T2", *labels)
    (case,) = find_cases(tmp_path, schema=MSD)
    assert case.label.name == "x_tumor_segmentation.nii.gz"


def test_endings_in_capitals_are_those_of_scans(tmp_path):
    (tmp_path / "A").mkdir()
    for name in FOUR:
        (tmp_path / f"A/{name}.NII.GZ").touch()
    assert [path.name for path in find_scans(tmp_path)["A"]] == [f"{name}.NII.GZ" for name in FOUR]
