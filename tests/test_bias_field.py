import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from brats_utils.bias_field import CorrectBiasd, estimate_bias_field, find_deep_tumour
from brats_utils.labels import CHANNELS
from brats_utils.transforms import build_preprocessing

SIZE = 48


@pytest.fixture(scope="module")
def brain():
    """A ball of 144 mm in voxels of 4 mm, of two tissues with noise: (X, Y, Z) float32, 0 in the background."""
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(SIZE) - SIZE / 2] * 3, indexing="ij"))
    tissue = np.where(generator.random((SIZE,) * 3) < 0.5, 300.0, 400.0) + generator.normal(0, 10, (SIZE,) * 3)
    return np.where((grid**2).sum(0) < 18**2, tissue, 0).astype(np.float32)


@pytest.fixture(scope="module")
def ramp():
    """A coil on one side: logarithms from -.3 to .3 along the first axis."""
    return np.broadcast_to(np.linspace(-0.3, 0.3, SIZE, dtype=np.float32)[:, None, None], (SIZE,) * 3)


def slope(values, brain):
    """Change per voxel along the first axis."""
    place = np.broadcast_to(np.arange(SIZE)[:, None, None], brain.shape)
    return np.polyfit(place[brain > 0], values[brain > 0], 1)[0]


def test_a_known_field_is_found(brain, ramp):
    field = estimate_bias_field(brain * np.exp(ramp), spacing_mm=4.0)
    assert field.dtype == np.float32
    assert slope(field, brain) == pytest.approx(0.6 / (SIZE - 1), rel=0.3)
    assert abs(field[brain > 0].mean()) < 0.01


def test_voxels_near_zero_do_not_hide_the_field(brain, ramp):
    """Interpolation leaves such at the edge of a stripped brain; N4 finds nothing while they are in its mask."""
    shaded = brain * np.exp(ramp)
    shaded[(brain > 0) & (np.random.default_rng(1).random(brain.shape) < 0.01)] = 1e-3
    assert slope(estimate_bias_field(shaded, spacing_mm=4.0), brain) == pytest.approx(0.6 / (SIZE - 1), rel=0.3)


def test_a_tumour_that_is_left_out_changes_nothing(brain):
    tumour = np.zeros(brain.shape, bool)
    tumour[18:30, 18:30, 18:30] = True
    bright = np.where(tumour, 2 * brain, brain)
    with_it, without = (
        estimate_bias_field(bright, spacing_mm=4.0, left_out=left_out)[tumour].mean() for left_out in (None, tumour)
    )
    assert abs(without) < 0.5 * abs(with_it)


def test_an_empty_channel_has_no_field(brain):
    assert not estimate_bias_field(np.zeros_like(brain), spacing_mm=4.0).any()
    assert not estimate_bias_field(brain, spacing_mm=4.0, left_out=brain > 0).any()


def test_only_tumour_away_from_the_surface_is_left_out():
    brain = torch.ones(21, 21, 21, dtype=torch.bool)
    tumour = torch.zeros_like(brain)
    tumour[10, 10, 10] = tumour[1, 10, 10] = True
    found = find_deep_tumour(tumour, brain, spacing_mm=2.0)
    assert found[10, 10, 10]
    assert found[10, 10, 12]  # 4 mm away
    assert not found[10, 10, 13]
    assert not found[1, 10, 10]


def test_the_preprocessing_corrects_flair_alone_and_only_when_asked(brain, ramp):
    shaded = np.stack([brain * np.exp(ramp)] * len(CHANNELS))
    image = MetaTensor(torch.from_numpy(shaded), affine=np.diag([4.0, 4.0, 4.0, 1.0]))
    plain = build_preprocessing(4.0)({"image": image.clone()})["image"]
    corrected = build_preprocessing(4.0, bias_correction=True)({"image": image.clone()})["image"]
    torch.testing.assert_close(plain[1:], corrected[1:])
    before, after = (slope(image[0].numpy(), brain) for image in (plain, corrected))
    assert abs(after) < 0.5 * abs(before)


def test_background_stays_exactly_zero(brain, ramp):
    image = MetaTensor(torch.from_numpy(np.stack([brain * np.exp(ramp)] * 4)), affine=np.eye(4))
    corrected = CorrectBiasd(4.0)({"image": image})["image"]
    assert torch.equal(corrected != 0, image != 0)
