"""Labels that people really have: training, evaluation and prediction see the same regions, or refuse the file by name."""

import numpy as np
import pytest
from scans import BRATS, NAMES, assert_same, look, refuse, store, turn, warnings_of, write_files, write_msd

from brats_utils.cases.layouts import find_cases
from brats_utils.cases.reader import read_case
from brats_utils.labels import BRATS_2021, BRATS_2023, BRATS_2024, BRATS_PEDS, MSD


@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("axes", ["LPS", "PIR", "SLA"])
def test_a_label_with_other_axes_is_reoriented_to_the_scan_and_said_so(patients, originals, tmp_path, axes, cache):
    write_msd(tmp_path, patients, scan=lambda image: turn(image, axes))
    assert_same(look(tmp_path, cache=cache), originals)
    message = f"The label's axes run RAS, those of the scan {axes}: it was reoriented to the scan's axes."
    assert message in warnings_of(tmp_path)


def test_scan_and_label_whose_axes_run_alike_are_no_reason_to_warn(patients, originals, tmp_path):
    write_msd(tmp_path, patients, scan=lambda image: turn(image, "LPS"), label=lambda image: turn(image, "LPS"))
    assert_same(look(tmp_path), originals)
    assert "axes run" not in warnings_of(tmp_path)


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SLA"])
def test_a_label_with_the_header_of_another_place_is_refused_with_the_names_of_both_files(patients, tmp_path, axes):
    def move_away(image):
        turned = turn(image, axes)
        return store(turned, affine=turned.affine + np.array([[0, 0, 0, -90]] * 3 + [[0] * 4]))

    def misplace(image):
        return store(turn(image, axes), affine=np.diag([4.0, 4, 4, 1]))

    write_msd(tmp_path, patients, scan=move_away, label=misplace)
    message = refuse(tmp_path)
    scan, label = (tmp_path / f"{part}/{NAMES[0]}.nii.gz" for part in ("imagesTr", "labelsTr"))
    assert message.startswith(f"{label}: found a label ")
    assert str(scan) in message
    assert read_case(find_cases(tmp_path, labelled=False)[0]).warnings == ()


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("header", ["no code", "identity"])
def test_a_label_without_a_position_is_taken_voxel_by_voxel_and_said_so(patients, originals, tmp_path, axes, header):
    def unplace(image):
        stored = store(turn(image, axes), affine=np.eye(4))
        if header == "no code":
            stored.set_sform(None, 0)
            stored.set_qform(None, 0)
        return stored

    write_msd(tmp_path, patients, scan=lambda image: turn(image, axes), label=unplace)
    assert_same(look(tmp_path, cache="ram"), originals)
    assert "gives no position: the label is taken voxel by voxel." in warnings_of(tmp_path)


def with_slope(image):
    stored = store(image, lambda values: values * 85)
    stored.header.set_slope_inter(3 / 255, 0)
    return stored


@pytest.mark.parametrize(
    "change",
    [
        with_slope,
        lambda image: store(image, dtype=np.int16),
        lambda image: store(image, lambda values: values * 1.0000001, dtype=np.float32),
        lambda image: store(image, lambda values: values * (1 + 3e-4), dtype=np.float64),
    ],
    ids=["slope", "int16", "float32", "float64"],
)
def test_a_label_that_is_nearly_whole_numbers_is_those_numbers(patients, originals, tmp_path, change):
    assert_same(look(write_msd(tmp_path, patients, label=change)), originals)
    assert warnings_of(tmp_path) == ""


@pytest.mark.parametrize(
    ("value", "shown"), [(1.002, "1.002"), (2.0011, "2.0011"), (0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_a_label_further_off_is_refused_with_its_digits(patients, tmp_path, value, shown):
    def put(values):
        values = values.astype(np.float64)
        values[30, 30, 20] = value
        return values

    message = refuse(write_msd(tmp_path, patients, label=lambda image: store(image, put)))
    assert f"labelsTr/{NAMES[0]}.nii.gz: found label values [{shown}] that are no whole numbers" in message


def renumber(new):
    """From MSD's numbering to another, given the new values of 0 to 3."""
    return lambda image: store(image, lambda values: np.array(new, np.uint8)[values])


def cut_out(new):
    """Renumber, and give every other slice of the core that does not enhance, as left by a surgeon, the last value."""

    def change(values):
        cavity = (values == MSD.necrotic) & (np.indices(values.shape)[2] % 2 == 0)
        return np.where(cavity, new[-1], np.array(new)[values]).astype(np.uint8)

    return lambda image: store(image, change)


def test_a_cavity_is_no_tumour(patients, tmp_path):
    write_files(tmp_path / "cavity", patients, *BRATS, change=cut_out([0, 2, 1, 3, 4]))
    write_msd(tmp_path / "healthy", patients, label=cut_out([0, 1, 2, 3, 0]))
    assert_same(look(tmp_path / "cavity", schema=BRATS_2024), look(tmp_path / "healthy").values())


@pytest.mark.parametrize("schema", [MSD, BRATS_2023], ids=lambda schema: schema.name)
def test_a_cavity_in_another_convention_is_refused_with_all_that_4_may_mean(patients, tmp_path, schema):
    message = refuse(write_files(tmp_path, patients, *BRATS, change=cut_out([0, 2, 1, 3, 4])), schema=schema)
    assert f"{NAMES[0]}-seg.nii.gz: found label values [4]" in message
    assert "4 is enhancing tumour in brats2021, resection cavity in brats2024, edema in brats_peds." in message
    assert len(find_cases(tmp_path, labelled=False)) == 2


@pytest.mark.parametrize(
    ("schema", "new"),
    [(BRATS_2021, [0, 2, 1, 4]), (BRATS_2023, [0, 2, 1, 3]), (BRATS_PEDS, [0, 4, 2, 1]), (BRATS_PEDS, [0, 4, 3, 1])],
    ids=["brats2021", "brats2023", "brats_peds", "all core cystic"],
)
def test_labels_of_any_convention_are_the_same_regions(patients, originals, tmp_path, schema, new):
    write_files(tmp_path, patients, *BRATS, change=renumber(new))
    assert_same(look(tmp_path, schema=schema), originals)
