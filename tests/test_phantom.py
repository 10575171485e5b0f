"""The phantom: layout of MSD, reproducible, and like the real thing where it matters."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.phantom import REAL, collect, measure
from brats_utils.cases.dataset_json import read_channels, read_label_schema
from brats_utils.labels import CHANNELS, MSD
from brats_utils.phantom import dataset as phantom
from brats_utils.phantom.anatomy import draw_head, field_grid
from brats_utils.phantom.dataset import PhantomCase, generate_case, generate_dataset
from brats_utils.phantom.tumour import grow_tumour

SPACING_MM = 4.0  # coarse for testing efficiency
FLAIR, T1GD = CHANNELS.index("FLAIR"), CHANNELS.index("T1gd")


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [generate_case(0, i, spacing_mm=SPACING_MM) for i in range(6)]


@pytest.fixture(scope="module")
def statistics() -> dict[str, np.ndarray]:
    """Of cases that no notebook trains on."""
    return collect([measure(generate_case(50, i, spacing_mm=2)) for i in range(24)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantom"
    return generate_dataset(root, num_training=2, num_test=1, spacing_mm=SPACING_MM)


def contrast(case: PhantomCase, channel: int, value: int) -> float:
    """Mean of a tissue in SD of normal brain."""
    image = case.image[..., channel].astype(float)
    normal = image[(image > 0) & (case.label == 0)]
    return float((image[(case.label == value) & (image > 0)].mean() - normal.mean()) / normal.std())


def test_layout_and_dataset_json_are_those_of_msd(root: Path) -> None:
    document = json.loads((root / "dataset.json").read_text())
    assert read_channels(document, source="phantom") == list(CHANNELS)
    assert read_label_schema(document, MSD, source="phantom") == MSD
    assert document["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert (
        (document["numTraining"], document["numTest"]) == (len(document["training"]), len(document["test"])) == (2, 1)
    )
    image, label = (nib.load(root / document["training"][0][key]) for key in ("image", "label"))
    assert image.shape == (60, 60, 39, 4)
    assert label.shape == (60, 60, 39)
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    np.testing.assert_array_equal(image.affine, label.affine)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert sorted(p.name for p in root.parent.iterdir()) == ["phantom"]


def test_a_case_depends_on_seed_and_index_but_not_on_the_number_of_workers(root: Path) -> None:
    written = np.asarray(nib.load(root / "imagesTr" / "PHANTOM_002.nii.gz").dataobj)  # by one of two processes
    np.testing.assert_array_equal(written, generate_case(0, 1, spacing_mm=SPACING_MM).image)
    assert (written != generate_case(1, 1, spacing_mm=SPACING_MM).image).any()
    assert (written != generate_case(0, 0, spacing_mm=SPACING_MM).image).any()


@pytest.mark.parametrize(("spacing_mm", "shape"), [(1, (240, 240, 155)), (2, (120, 120, 78)), (3, (80, 80, 52))])
def test_any_spacing_covers_the_field_of_view_of_msd(spacing_mm: float, shape: tuple[int, int, int]) -> None:
    assert field_grid(spacing_mm).shape == shape


def test_a_case_is_the_same_patient_at_every_spacing(cases: list[PhantomCase]) -> None:
    finer = generate_case(0, 1, spacing_mm=2)
    coarse_ml, fine_ml = (cases[1].label > 0).sum() * 0.064, (finer.label > 0).sum() * 0.008
    assert fine_ml == pytest.approx(coarse_ml, rel=0.1)


def test_every_case_has_a_tumour_and_every_third_does_not_enhance(cases: list[PhantomCase]) -> None:
    assert all({MSD.edema, MSD.necrotic} <= set(np.unique(case.label)) <= {0, 1, 2, 3} for case in cases)
    assert [MSD.enhancing in case.label for case in cases] == [True, True, False] * 2


def test_the_background_is_zero_and_the_tumour_lies_inside_the_brain(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert case.image.min() == 0
        assert (case.image[case.label > 0] > 0).any(axis=-1).all()
        assert 0.12 < (case.image > 0).any(axis=-1).mean() < 0.2  # real scans: 0.14 to 0.19


def test_enhancing_tumour_is_the_brightest_part_on_t1gd(cases: list[PhantomCase]) -> None:
    for case in cases[0], cases[1], cases[3], cases[4]:
        enhancing = contrast(case, T1GD, MSD.enhancing)
        assert enhancing > max(contrast(case, T1GD, MSD.necrotic), contrast(case, T1GD, MSD.edema)) + 0.3


def test_edema_is_bright_on_flair(cases: list[PhantomCase]) -> None:
    contrasts = [contrast(case, FLAIR, MSD.edema) for case in cases]
    assert min(contrasts) > 0.5  # patients go beyond the 16 that were measured: 1.2 to 4.7
    assert np.median(contrasts) > 1.2


@pytest.mark.slow
def test_edema_keeps_mostly_to_white_matter_and_out_of_the_ventricles(cases: list[PhantomCase]) -> None:
    shares = []
    for i, case in enumerate(cases):
        rng = [np.random.default_rng([0, i, part]) for part in range(2)]  # as `generate_case` seeds them
        _, head = grow_tumour(rng[1], draw_head(rng[0]), enhances=i % 3 != 2)
        tissues = head.tissues(field_grid(SPACING_MM))
        edema = case.label == MSD.edema
        shares.append(tissues.wm[edema].mean())
        assert tissues.ventricle[edema].mean() < 0.05
    assert min(shares) > 0.42  # white matter is .36 of the whole brain
    assert np.mean(shares) > 0.6


def test_a_break_leaves_nothing_that_could_be_taken_for_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_at_second(seed: int, case_idx: int, *, spacing_mm: float) -> PhantomCase:
        if case_idx == 1:
            raise KeyboardInterrupt
        return generate_case(seed, case_idx, spacing_mm=spacing_mm)

    monkeypatch.setattr(phantom, "generate_case", fail_at_second)
    monkeypatch.setattr(phantom, "cpu_count", lambda: 1)  # other processes would not know of it
    with pytest.raises(KeyboardInterrupt):
        generate_dataset(tmp_path / "p", num_training=2, spacing_mm=SPACING_MM)
    assert list(tmp_path.iterdir()) == []


def test_the_same_phantom_is_reused_and_anything_else_refused(root: Path) -> None:
    before = (root / "dataset.json").stat().st_mtime_ns
    same = {"num_training": 2, "num_test": 1, "spacing_mm": SPACING_MM}
    generate_dataset(root, **same)
    assert (root / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match=r"found .*'seed': 0.* expected .*'seed': 1.* move this one elsewhere"):
        generate_dataset(root, **same, seed=1)
    with pytest.raises(FileExistsError, match=r"no readable dataset\.json"):
        generate_dataset(root.parent, **same)


FAINTER = {"contrast of enhancing, T1gd": 0.7}
"""Least median where it may lie below that of real scans: what a network misses in patients is faint enhancement."""


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_typical_phantom_lies_in_the_range_of_real_scans(statistics: dict[str, np.ndarray], name: str) -> None:
    """docs/phantom.md has the statistics, and where those of real scans come from."""
    assert FAINTER.get(name, REAL[name].low) <= np.median(statistics[name]) <= REAL[name].high
