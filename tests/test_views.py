import numpy as np
import pytest
import torch
from matplotlib import font_manager

from brats_utils.report.drawing import choose_fonts, render_png
from brats_utils.report.figures import plot_comparison, plot_prediction, plot_regions
from brats_utils.report.slices import largest_slice, tumour_slices, upright_slice, window_volume


def test_one_window_serves_all_slices_of_a_volume():
    image = torch.ones(1, 8, 8, 8)
    image[..., 4:] = 3.0
    image[0, 0] = 0
    grey = window_volume(image)
    assert grey[0, 1, 1, 0] == 0
    assert grey[0, 1, 1, 7] == 255
    assert not grey[0, 0].any()


def test_upright_slice_has_anterior_on_top_and_the_patients_right_on_the_left():
    volume = np.zeros((3, 4, 2))  # RAS: x grows to the right, y to the front
    volume[2, 3, 0] = 1  # right, anterior
    picture = upright_slice(volume, 0)
    assert picture.shape == (4, 3)
    assert picture[0, 0] == 1


def test_tumour_slices_keep_a_margin_inside_the_volume():
    regions = torch.zeros(3, 4, 4, 10, dtype=torch.bool)
    regions[1, 0, 0, [1, 4]] = True
    assert tumour_slices(regions, margin=2) == [0, 1, 2, 3, 4, 5, 6]
    assert tumour_slices(regions, margin=0, stride=2) == [1, 3]


def test_without_tumour_the_middle_slice_is_shown():
    empty = torch.zeros(3, 4, 4, 10, dtype=torch.bool)
    assert tumour_slices(empty) == [5]
    assert largest_slice(empty) == 5


def test_largest_slice_has_the_most_tumour():
    regions = torch.zeros(3, 4, 4, 6, dtype=torch.bool)
    regions[1, :2, 0, 2] = True
    regions[1, :, 0, 3] = True
    assert largest_slice(regions) == 3


NAMES = ("患者1", "a$b$c", "a_{1}^", "tab\tand\nline", "\udcff", "😀", "\N{COMBINING ACUTE ACCENT}")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("plot", [plot_regions, plot_prediction, plot_comparison])
def test_a_patient_may_have_any_name_in_a_picture(plot, name):  # a glyph that is missing is a warning, so an error
    mask = torch.zeros(3, 16, 16, 8, dtype=torch.bool)
    mask[:, 4:8, 4:8, 4] = True
    masks = (mask, mask) if plot is plot_comparison else (mask,)
    figure = plot(torch.rand(4, 16, 16, 8), *masks, title=name)
    assert "$" not in name or figure.get_suptitle().startswith("a$b$c  slice 4")
    assert render_png(figure)


def test_what_no_font_has_is_a_question_mark(monkeypatch):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    assert choose_fonts("患者1 é")[0] == "??1 é"
    assert choose_fonts("e\N{COMBINING ACUTE ACCENT}")[0] == "é", "as macOS spells it"


def test_what_the_usual_font_lacks_is_drawn_in_one_that_has_it():
    title, fonts = choose_fonts("の")  # STIXGeneral, which comes with matplotlib, has this one
    assert title == "の"
    assert fonts[0] == "sans-serif"
    assert len(fonts) == 2
