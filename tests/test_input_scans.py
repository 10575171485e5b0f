"""Scans that people really have: training, evaluation and prediction see the same image, or refuse the file by name."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scans import NAMES, assert_same, keep, look, refuse, store, turn, warnings_of, write_msd

from brats_utils.cases.case import CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.nifti import save_volume
from brats_utils.cases.reader import read_case

FIELDS = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
FIELDS = (*FIELDS, "srow_x", "srow_y", "srow_z", "xyzt_units")


def give_long_quaternion(*, sform_code, by=3e-7):
    """Half a turn around the third axis, as a quaternion longer than 1, in a header that is stored as it is."""

    def change(image):
        turned = turn(image, "LPS")
        turned.set_qform(turned.affine, 1)
        turned.set_sform(turned.affine, sform_code)
        header = turned.header.copy()
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = 0, 0, 1 + by
        return nib.Nifti1Image(np.asanyarray(turned.dataobj), None, header)

    return change


@pytest.mark.parametrize("sform_code", [1, 0], ids=["good sform", "no sform"])
@pytest.mark.parametrize("by", [3e-7, 2e-6])
def test_a_quaternion_that_is_a_hair_too_long_changes_nothing(patients, originals, tmp_path, sform_code, by):
    change = give_long_quaternion(sform_code=sform_code, by=by)
    assert_same(look(write_msd(tmp_path, patients, scan=change, label=change), cache="ram"), originals)
    assert warnings_of(tmp_path) == ""


@pytest.mark.parametrize("change", [keep, *(give_long_quaternion(sform_code=code) for code in (0, 1, 2))])
def test_what_is_written_carries_the_geometry_that_was_read_bit_by_bit(patients, tmp_path, change):
    case = find_cases(write_msd(tmp_path, patients, scan=change), labelled=False)[0]
    scan = read_case(case)
    written = save_volume((scan.image[0] > 0).byte(), tmp_path / "out.nii.gz", like=scan.reference)
    read, found = nib.load(case.images[0]).header, nib.load(written).header
    assert {name: found[name].tobytes() for name in FIELDS} == {name: read[name].tobytes() for name in FIELDS}
    assert found["pixdim"][:4].tobytes() == read["pixdim"][:4].tobytes()


def score(values):
    values = values.astype(np.float32)
    return (values - values.mean((0, 1, 2))) / values.std((0, 1, 2))


def shift(image):
    stored = store(image, dtype=np.int16)
    stored.header.set_slope_inter(1, -1000)
    return stored


def score_one(values):
    return np.concatenate([values[..., :2], score(values)[..., 2:3], values[..., 3:]], axis=-1)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: store(image, score),
        lambda image: store(image, score_one),
        lambda image: store(image, lambda values: 2 * values / values.max((0, 1, 2)) - 1, dtype=np.float32),
        lambda image: store(image, lambda values: values + 7),
        shift,
    ],
    ids=["z-score", "z-score of one channel", "from -1 to 1", "7", "-1000 by the header"],
)
def test_a_constant_background_that_is_not_0_becomes_0(patients, originals, tmp_path, change):
    write_msd(tmp_path, patients, scan=change)
    assert_same(look(tmp_path), originals, but=["prediction image"])
    text = warnings_of(tmp_path)
    assert "Found a constant background that is not 0 (" in text
    assert "skull" not in text
    case, plain = find_cases(tmp_path, labelled=False)[0], originals[0]["prediction image"]
    assert torch.equal(read_case(case).image.as_tensor().any(0), plain.any(0))


def put(value, channel):
    def change(values):
        values = values.astype(np.float32)
        values[30, 30, 20, channel] = value
        return values

    return lambda image: store(image, change)


@pytest.mark.parametrize(("value", "channel"), [(np.nan, 1), (np.inf, 0), (-np.inf, 3)])
def test_one_voxel_that_is_no_number_is_refused_with_the_name_of_the_file(patients, tmp_path, value, channel):
    folder = write_msd(tmp_path, patients, scan=put(value, channel))
    expected = f"imagesTr/{NAMES[0]}.nii.gz: {('FLAIR', 'T1w', 'T1gd', 'T2w')[channel]}: found NaN or infinite voxels"
    assert expected in refuse(folder)
    with pytest.raises(CaseError, match="found NaN or infinite voxels"):
        read_case(find_cases(folder, labelled=False)[0])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_the_type_of_voxels_does_not_matter(patients, originals, tmp_path, dtype):
    write_msd(tmp_path, patients, scan=lambda image: store(image, dtype=dtype))
    assert_same(look(tmp_path, cache="ram"), originals)
