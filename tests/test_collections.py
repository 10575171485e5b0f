"""Public collections are read as their archives unpack them; each row of the table in docs/collections.md has a tree here."""

import json
import re
from itertools import product
from pathlib import Path

import pytest
from collection_trees import TREES

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.labels import BRATS_2021, BRATS_2023, MSD, SCORED, WHOLE_TUMOUR, LabelError

INPUTS = (Path(__file__).resolve().parents[1] / "docs/collections.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \|[^|]*\|[^|]*\| `(\w+)` \| `evaluate --data (\S+) --schema (\w+)` \|", INPUTS, re.M)


def write_tree(folder, tree):
    """Empty files, with `{a,b}` spelt out."""
    for line in tree.split("\n"):
        parts = [part.split(",") for part in re.split(r"[{}]", line.strip())]
        for name in map("".join, product(*parts)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    return folder


def schema_of(name):
    return SCORED[re.search(r"in the (\w+) convention", TREES[name][2])[1]]


@pytest.mark.parametrize("name", TREES)
def test_a_collection_is_found_as_its_archive_unpacks_it(name, tmp_path, capsys):
    folder, tree, said = TREES[name]
    cases = find_cases(write_tree(tmp_path / folder, tree), schema=schema_of(name))
    assert capsys.readouterr().out.strip().endswith(f"{folder}: {said}")
    assert all(len(case.images) == 4 and not case.missing for case in cases)


@pytest.mark.parametrize("name", TREES)
def test_prediction_sees_the_same_scans_of_a_collection_as_evaluation(name, tmp_path):
    folder, tree, _ = TREES[name]
    labelled = find_cases(write_tree(tmp_path / folder, tree), schema=schema_of(name))
    every = {case.case_id: case.images for case in find_cases(tmp_path / folder, labelled=False)}
    assert {case.case_id: case.images for case in labelled}.items() <= every.items()
    assert all(len(images) == 4 and None not in images for images in every.values())


@pytest.mark.parametrize("name", TREES)
def test_a_collection_is_found_from_the_folder_above_too(name, tmp_path):
    folder, tree, _ = TREES[name]
    inner = find_cases(write_tree(tmp_path / "PKG - archive" / folder, tree), schema=schema_of(name))
    outer = find_cases(tmp_path, schema=schema_of(name))
    assert [case.files for case in inner] == [case.files for case in outer]


def test_the_table_of_collections_in_the_docs_has_a_tree_for_each_row():
    assert [name for name, *_ in ROWS] == list(TREES)
    for name, schema, folder, wanted in ROWS:
        assert (schema, folder) == (wanted, TREES[name][0])
        assert schema == schema_of(name).name


def test_two_experts_of_one_scan_are_asked_about(tmp_path):
    _, tree, _ = TREES["IvyGAP-Radiomics"]
    write_tree(tmp_path, tree)
    write_tree(tmp_path, tree.split("\n")[-1].replace("UPenn", "CWRU"))
    with pytest.raises(
        CaseError, match=r"W1_1996.10.25 has 2 labels \(W1_1996.10.25_CWRU_labels.nii.gz, W1_1996.10.25_UPe"
    ):
        find_cases(tmp_path, schema=BRATS_2021)


def test_a_label_that_is_called_mask_alone_is_no_label_of_tissues(tmp_path):
    _, tree, _ = TREES["Erasmus Glioma Database"]
    with pytest.raises(
        LabelError, match=r"MASK\.nii\.gz: found a label that is called mask and no more.* whole_tumour"
    ):
        find_cases(write_tree(tmp_path, tree), schema=BRATS_2023)


def test_one_time_point_more_of_one_patient_is_called_after_the_patient_too(tmp_path):
    _, tree, _ = TREES["RHUH-GBM"]
    names = [case.case_id for case in find_cases(write_tree(tmp_path, tree), labelled=False)]
    assert names == ["RHUH-0001_0", "RHUH-0001_2", "RHUH-0002_0"]


def test_sequences_in_folders_of_their_own_are_joined_by_the_name_of_the_patient(tmp_path, capsys):
    write_tree(tmp_path, "{T1,T1Gd,T2,FLAIR}/{A,B}.nii.gz\nlabels/{A,B}.nii.gz")
    a, b = find_cases(tmp_path, schema=BRATS_2023)
    assert [path.relative_to(tmp_path).as_posix() for path in a.images] == [f"{s}/A.nii.gz" for s in ("FLAIR", "T1", "T1Gd", "T2")]  # fmt: skip
    assert (b.case_id, b.label) == ("B", tmp_path / "labels/B.nii.gz")


@pytest.mark.parametrize(
    "labels", ["masks/A.nii.gz", "labels/A/seg.nii.gz", "gt/A_seg.nii.gz", "annotations/x/A_labels.nii.gz"]
)
def test_labels_in_a_folder_of_their_own_go_to_the_patient_of_their_name(labels, tmp_path, capsys):
    write_tree(tmp_path, f"scans/A/A_{{flair,t1,t1ce,t2}}.nii.gz\nscans/A1/A1_{{flair,t1,t1ce,t2}}.nii.gz\n{labels}")
    (case,) = find_cases(tmp_path, schema=BRATS_2023)
    assert (case.case_id, case.label) == ("A", tmp_path / labels)
    assert f"labels in {labels.partition('/')[0]}, 2 cases, 1 with" in capsys.readouterr().out


def test_folders_whose_names_say_nothing_are_sequences_where_the_scans_in_them_are_of_one_patient(tmp_path):
    write_tree(tmp_path / "P", "{a/P_T1,b/P_T1ce,c/P_T2,d/P_FLAIR,e/P_seg}.nii.gz")
    (case,) = find_cases(tmp_path, labelled=False)
    assert (case.case_id, case.missing) == ("P", ())
    write_tree(tmp_path / "Q", "{A/A_T1,B/B_T1ce,C/C_T2}.nii.gz")
    assert [case.case_id for case in find_cases(tmp_path / "Q", labelled=False)] == ["A", "B", "C"]


def test_a_label_in_a_folder_below_its_scans_is_found(tmp_path):
    write_tree(tmp_path, "A/A_{flair,t1,t1ce,t2}.nii.gz\nA/segmentation/A.nii.gz")
    (case,) = find_cases(tmp_path, schema=BRATS_2023)
    assert case.label == tmp_path / "A/segmentation/A.nii.gz"


@pytest.mark.parametrize("name", ["A.nii", "A.nii/A.nii", "A.nii.gz/A.nii"])
def test_files_of_a_dataset_json_are_found_unpacked_too(name, tmp_path):
    write_tree(tmp_path, f"imagesTr/{name}\nlabelsTr/{name}")
    labels = {str(value): tissue for value, tissue in MSD.tissues.items()}
    listed = [{"image": "./imagesTr/A.nii.gz", "label": "./labelsTr/A.nii.gz"}]
    channels = dict(zip("0123", ("FLAIR", "T1w", "t1gd", "T2w"), strict=True))
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": channels, "labels": labels, "training": listed}))
    (case,) = find_cases(tmp_path)
    assert (case.case_id, case.files) == ("A", (tmp_path / "imagesTr" / name, tmp_path / "labelsTr" / name))


def test_a_label_of_nobody_is_named(tmp_path):
    write_tree(tmp_path, "scans/A/A_{flair,t1,t1ce,t2}.nii.gz\nlabels/{A,B}_seg.nii.gz")
    with pytest.raises(CaseError, match="labels has a label and no scan"):
        find_cases(tmp_path, schema=BRATS_2023)


def test_a_label_that_two_patients_of_a_name_may_own_is_given_by_its_folder(tmp_path):
    write_tree(tmp_path, "scans/{HGG,LGG}/A/A_{flair,t1,t1ce,t2}.nii.gz\nlabels/{HGG,LGG}/A_seg.nii.gz")
    cases = find_cases(tmp_path, schema=BRATS_2023)
    assert [(case.images[0].parts[-3], case.label.parts[-2]) for case in cases] == [("HGG", "HGG"), ("LGG", "LGG")]


def test_a_folder_of_dicom_is_named_for_what_it_holds(tmp_path):  # Burdenko-GBM-Progression, QIN, IvyGAP
    write_tree(tmp_path, "Burdenko-GBM-001/07-01-2009/1.000000-T1-01/{1-001,1-002}.dcm\nmanifest.tcia")
    with pytest.raises(
        CaseError, match=r"found no patient, .*, but files that end in \.dcm \(2\), \.tcia \(1\)\. DICOM is"
    ):
        find_cases(tmp_path, labelled=False)


def test_the_whole_tumour_has_a_label_convention_of_its_own(tmp_path):
    _, tree, _ = TREES["Erasmus Glioma Database"]
    (case,) = find_cases(write_tree(tmp_path, tree), schema=WHOLE_TUMOUR)
    assert case.label_schema.tissues == {0: "background", 1: "whole tumour"}
