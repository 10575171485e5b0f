"""The cases of a folder are listed with their labels, and those of a dataset.json as it says; what is unclear is refused."""

import json
import os
import shutil

import pytest
from empty_files import FOUR, find_scans, write_files

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.labels import BRATS_2021, MSD, LabelError


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


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(CaseError, match="found no patient, expected one of these layouts: MSD"):
        find_cases(tmp_path)
    with pytest.raises(CaseError, match="not found, or no folder"):
        find_cases(tmp_path / "no")


def test_labelled_patients_are_those_with_a_seg_file(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg_consensus")
    write_files(tmp_path / "b", *FOUR)
    (found,) = find_cases(tmp_path, schema=MSD)
    assert (found.case_id, found.label.name, found.label_schema) == ("a", "seg_consensus.nii.gz", MSD)
    with pytest.raises(CaseError, match="found no labelled patient among 1"):
        find_cases(tmp_path / "b", schema=MSD)


def test_labels_are_not_looked_at_where_none_are_wanted(tmp_path):
    write_files(tmp_path / "a", *FOUR, "seg_1", "seg_2")
    (found,) = find_cases(tmp_path, labelled=False)
    assert (found.label, found.label_schema) == (None, None)


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


def test_a_folder_without_a_label_convention_is_asked_about(tmp_path):
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
    assert {case.label_schema for case in cases} == {MSD}


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
    assert first.endswith(
        ": MSD's layout, 4D files, 8 cases, 6 with a label in the msd convention, as dataset.json says."
    )
    assert second.endswith(": four files a patient, 1 case, 1 with a label in the brats2021 convention, as you say.")


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_folders_of_msd_without_their_dataset_json_are_refused(tmp_path, part):
    write_files(tmp_path / part, "A")
    with pytest.raises(CaseError, match=r"found imagesTr or labelsTr without a dataset\.json, which says what"):
        find_cases(tmp_path, labelled=False)


def test_numbered_files_without_a_dataset_json_are_refused(tmp_path):
    write_files(tmp_path, *(f"A_000{number}" for number in range(4)))
    with pytest.raises(CaseError, match=r"found files numbered _0000 and so on, expected a dataset\.json here or"):
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


def test_scans_that_dataset_json_lists_on_another_drive_are_told_apart(tmp_path, monkeypatch):
    def refuse(path, start=None):  # as Windows does from one drive to another
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", refuse)
    homes = [write_files(tmp_path / "elsewhere" / site, "scan", "seg") for site in ("HGG", "LGG")]
    listed = [{"image": str(home / "scan.nii.gz"), "label": str(home / "seg.nii.gz")} for home in homes]
    (tmp_path / "data").mkdir()
    write_document(tmp_path / "data", training=listed)
    assert [case.case_id for case in find_cases(tmp_path / "data")] == ["HGG", "LGG"]


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


@pytest.mark.parametrize("names", [[], ["t1", "t1gd", "t2", "flair"]], ids=["none", "another order"])
def test_listed_files_that_contradict_the_channels_are_refused(tmp_path, names):
    write_files(tmp_path, *names, "seg")
    images = [f"{name}.nii.gz" for name in names]
    write_document(tmp_path, training=[{"image": images, "label": "seg.nii.gz"}])
    with pytest.raises(CaseError, match=r"expected one per channel, in the order \['FLAIR', 'T1w', 'T1gd', 'T2w'\]"):
        find_cases(tmp_path)


def test_images_for_testing_that_were_not_copied_do_not_hide_nnunets_training_cases(tmp_path):
    write_nnunet(tmp_path, imagesTr=["A"], labelsTr=["A"])
    listed = [{"image": "imagesTr/A.nii.gz", "label": "labelsTr/A.nii.gz"}]
    write_document(tmp_path, training=listed, test=["imagesTs/C.nii.gz"])
    assert [case.case_id for case in find_cases(tmp_path)] == ["A"]


def test_a_label_of_nnunet_without_its_images_is_named(tmp_path):
    write_nnunet(tmp_path, imagesTr=["A"], labelsTr=["A", "Z"])
    with pytest.raises(CaseError, match=r"1 of the files listed are missing, the first is .*Z"):
        find_cases(tmp_path)


def test_what_macos_leaves_in_imagests_is_no_case(tmp_path):
    write_nnunet(tmp_path, imagesTr=["A"], labelsTr=["A"], imagesTs=["B", "._B"])
    assert list(find_scans(tmp_path)) == ["A", "B"]


def test_of_several_labels_the_one_named_tumor_is_taken(tmp_path):  # as in UCSF-PDGM
    labels = [f"x_{part}_segmentation" for part in ("tumor", "brain", "brain_parenchyma")]
    write_files(tmp_path / "x", "x_FLAIR", "x_T1", "x_T1c", "x_T2", *labels)
    (case,) = find_cases(tmp_path, schema=MSD)
    assert case.label.name == "x_tumor_segmentation.nii.gz"
