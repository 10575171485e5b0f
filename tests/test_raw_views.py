"""Pictures of raw scans."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import SimpleITK as sitk

from brats_utils.raw.views import plot_raw, plot_tiles


def image_of(values):
    return sitk.GetImageFromArray(np.asarray(values, dtype=np.float32))


def test_the_slice_with_most_of_the_label_is_shown_and_outlined() -> None:
    label = np.zeros((5, 8, 8))
    label[3, 2:6, 2:6] = 1
    figure = plot_raw({"FLAIR": image_of(np.ones((5, 8, 8)))}, {"FLAIR": image_of(label)})
    assert figure.axes[0].get_title() == "FLAIR, slice 3 of 5"
    assert figure.axes[0].collections, "the outline"
    plt.close(figure)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR"])
def test_whatever_the_axes_anterior_is_up_and_the_right_on_the_left(axes) -> None:
    values = np.zeros((3, 6, 8))
    values[1, 0, 1] = 1  # z, y, x in LPS: in the middle, anterior, on the right
    figure = plot_raw({"T1w": sitk.DICOMOrient(image_of(values), axes)})
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert np.argwhere(shown > 0.5).tolist() == [[0, 1]]
    plt.close(figure)


def test_without_a_label_it_is_the_middle_slice() -> None:
    figure = plot_raw({"T1w": image_of(np.zeros((6, 8, 8)))})
    assert figure.axes[0].get_title() == "T1w, slice 3 of 6"
    plt.close(figure)


def test_tiles_alternate_between_both_scans() -> None:
    bright, dark = image_of(np.ones((3, 12, 12))), image_of(np.zeros((3, 12, 12)))
    figure = plot_tiles({"after": bright}, dark)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert (shown[0, 0], shown[0, 2], shown[2, 0], shown[2, 2]) == (1, 0, 0, 1)
    plt.close(figure)
