import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from brats_utils.labels import REGIONS
from brats_utils.metrics import score_row, summarise_scores
from brats_utils.report.page import ReportCase, build_report, show_report

HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "mean_train_loss": [1.2, 0.8], "mean_dice": [float("nan"), 0.5]}
    | {f"dice_{region.name}": [float("nan"), 0.5] for region in REGIONS}
)


def make_case(case_id="CASE_1", shape=(20, 24, 16), **changes):
    image = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)) + 0.1
    truth = torch.zeros(3, *shape, dtype=torch.bool)
    for region, (low, high) in enumerate([(6, 12), (4, 14), (8, 10)]):  # TC, WT, ET: boxes in boxes
        truth[region, low:high, low:high, low:high] = True
    content = {"image": image, "truth": truth, "prediction": truth.roll(3, 1), "spacing_mm": (1.0, 1.0, 1.0)}
    return ReportCase(case_id, **(content | changes))


def build(path, cases, **changes):
    scored = [*cases, make_case("BEST")]
    rows = [score_row(case.case_id, case.prediction, case.truth, spacing_mm=case.spacing_mm) for case in scored]
    rows[-1] |= {f"dice_{r.name}": 0.9 for r in REGIONS}
    content = {
        "title": "A run",
        "facts": ["2 test cases"],
        "scores": pd.DataFrame(rows),
        "summary": summarise_scores(rows),
    }
    return build_report(path, **(content | {"cases": cases, "history": HISTORY} | changes))


def read_data(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def test_same_content_gives_the_same_bytes(tmp_path):
    first, second = (build(tmp_path / name, [make_case()]).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_names_cannot_break_out_of_the_page(tmp_path):
    path = build(tmp_path / "a.html", [make_case("</script><script>alert(1)</script>")], title="<b>&")
    assert path.read_text().count("<script") == 2
    assert read_data(path)["cases"][0]["id"] == "</script><script>alert(1)</script>"


def test_case_whose_masks_have_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"CASE_1: found prediction of shape .*expected \(3, 20, 24, 16\)"):
        make_case(prediction=torch.zeros(3, 20, 24, 15, dtype=torch.bool))


def test_page_asks_for_nothing_outside_itself(tmp_path):
    page = build(tmp_path / "a.html", [make_case()]).read_text()
    assert not re.findall(r'(?:src|href)="?http|@import|url\((?!data:)', page)


@pytest.mark.slow
def test_full_size_case_stays_below_three_megabytes(tmp_path):
    # noise smoothed to the sharpness of a scan, in an ellipsoid the size of a brain
    shape, generator = (240, 240, 155), np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    brain = (grid**2 / np.array([0.57, 0.71, 0.88])[:, None, None, None] ** 2).sum(0) < 1
    noise = torch.nn.functional.avg_pool3d(torch.from_numpy(generator.normal(size=(4, *shape))).float(), 3, 1, 1)
    image = (noise + 3) * torch.from_numpy(brain)
    truth = torch.from_numpy(np.stack([brain & (np.abs(grid[0] - 0.2) < width) for width in (0.1, 0.2, 0.05)]))
    path = build(tmp_path / "a.html", [make_case(image=image, truth=truth, prediction=truth.roll(2, 1))])
    assert path.stat().st_size < 3_000_000


def test_notebook_frame_holds_the_whole_page(tmp_path):
    shown = show_report(build(tmp_path / "a.html", [make_case()])).data
    assert shown.startswith("<div><iframe srcdoc=")
    assert "&lt;canvas" not in shown.split('title="Report"')[1]
    assert "Not for clinical use" in shown


# ---- in a browser ----


@pytest.fixture(scope="module")
def report_path(tmp_path_factory):
    cases = [make_case(), make_case("CASE_2", note="typical")]
    return build(tmp_path_factory.mktemp("report") / "report.html", cases)


@pytest.fixture
def page(browser, report_path):
    """The report from the disk, watched: it must neither complain nor ask for anything."""
    page = browser.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url) if request.url.startswith("http") else None)
    page.goto(Path(report_path).as_uri())
    page.wait_for_selector("body[data-ready]")
    yield page
    assert not noise
    page.close()


def read_pixels(page):
    """The four canvases as an array (4, Y, X, 3)."""
    urls = page.evaluate("[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())")
    images = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB") for url in urls]
    return np.stack([np.asarray(image, dtype=int) for image in images])


def find_changes(before, after):
    """The box of pixels that differ, the same in all four channels, as shares of the picture."""
    changed = (before != after).any(-1)
    assert all(np.array_equal(changed[0], other) for other in changed[1:])
    rows, columns = (np.flatnonzero(changed[0].any(axis)) for axis in (1, 0))
    return [
        round(float(v), 2)
        for v in (
            rows[0] / changed.shape[1],
            (rows[-1] + 1) / changed.shape[1],
            columns[0] / changed.shape[2],
            (columns[-1] + 1) / changed.shape[2],
        )
    ]


@pytest.mark.parametrize(("region", "low", "high"), [("TC", 6, 12), ("WT", 4, 14), ("ET", 8, 10)])
def test_ground_truth_toggle_changes_the_outline_of_its_region_alone(page, region, low, high):
    before = read_pixels(page)
    page.click(f'[data-layer="truth-{region}"]')
    assert page.get_attribute(f'[data-layer="truth-{region}"]', "aria-pressed") == "false"
    # seen from below and from the front: rows are 24 - y, columns 20 - x
    expected = [(24 - high) / 24, (24 - low) / 24, (20 - high) / 20, (20 - low) / 20]
    assert find_changes(before, read_pixels(page)) == pytest.approx(expected, abs=0.02)
    page.click(f'[data-layer="truth-{region}"]')
    assert np.array_equal(read_pixels(page), before)


def test_prediction_toggle_changes_the_inside_of_its_region(page):
    for region in REGIONS:
        page.click(f'[data-layer="truth-{region.name}"]')  # outlines off
    before = read_pixels(page)
    page.click('[data-layer="prediction-WT"]')
    expected = [
        (24 - 14) / 24,
        (24 - 4) / 24,
        (20 - 17) / 20,
        (20 - 7) / 20,
    ]  # the prediction lies 3 voxels to the side
    assert find_changes(before, read_pixels(page)) == pytest.approx(expected, abs=0.02)


def test_outline_and_fill_have_the_colours_of_the_regions(page):
    pixels = read_pixels(page)[0].reshape(-1, 3)
    for region in REGIONS:
        colour = [int(region.color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - colour).max(axis=1) < 30).any(), region.name


@pytest.mark.parametrize(
    ("key", "layer"),
    list(zip("123456", [f"{k}-{r.name}" for k in ("truth", "prediction") for r in REGIONS], strict=True)),
)
def test_number_keys_toggle_the_layers(page, key, layer):
    page.keyboard.press(key)
    assert page.get_attribute(f'[data-layer="{layer}"]', "aria-pressed") == "false"


def test_arrow_keys_slider_wheel_and_drag_go_through_the_slices(page):
    shown = [page.inner_text("#where")]
    page.keyboard.press("ArrowRight")
    shown.append(page.inner_text("#where"))
    page.fill("#slice", "2")
    shown.append(page.inner_text("#where"))
    page.hover("canvas")
    page.mouse.wheel(0, -100)
    shown.append(page.inner_text("#where"))
    page.mouse.down()
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - 20)  # up by 20 pixels: 5 slices
    page.mouse.up()
    shown.append(page.inner_text("#where"))
    assert shown == ["9 of 16", "10 of 16", "3 of 16", "4 of 16", "9 of 16"]


@pytest.mark.parametrize(
    ("key", "sides", "size"), [("a", "axial", "16"), ("c", "coronal", "24"), ("s", "sagittal", "20")]
)
def test_planes_have_their_slices(page, key, sides, size):
    page.keyboard.press(key)
    assert page.get_attribute(f'[data-plane="{sides}"]', "aria-pressed") == "true"
    assert page.inner_text("#where").endswith(f"of {size}")


def test_window_and_level_change_the_brightness_until_reset(page):
    before = read_pixels(page)
    page.fill("#level", "40")
    assert read_pixels(page).mean() > before.mean() + 20
    page.click("#reset")
    assert np.array_equal(read_pixels(page), before)


def test_scores_are_sorted_by_the_column_clicked(page):
    read = "[...document.querySelectorAll('#scores tbody tr td:first-child')].map(cell => cell.innerText)"
    assert page.evaluate(read)[-1] == "BEST"  # by mean, the worst first
    page.click("#scores th:last-child button")
    assert page.evaluate(read)[0] == "BEST"
    page.click("#scores th:first-child button")
    assert page.evaluate(read) == ["BEST", "CASE_1", "CASE_2"]


def test_case_opens_from_the_table_and_by_key(page):
    page.click("#scores .open >> text=CASE_2")
    page.wait_for_selector('body[data-ready="CASE_2"]')
    page.keyboard.press("n")
    page.wait_for_selector('body[data-ready="CASE_1"]')


def test_figures_are_shown_under_their_titles(tmp_path, browser):
    pixel = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(pixel, "PNG")
    path = build(tmp_path / "a.html", [make_case()], figures={"Spread of the scores": pixel.getvalue()})
    page = browser.new_page()
    page.goto(path.as_uri())
    picture = page.locator("#figures img")
    assert page.locator("#figures h2").inner_text() == "Spread of the scores"
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [8, 4]
    page.close()


def test_page_without_cases_or_history_still_shows_the_scores(browser, tmp_path):
    path = build(tmp_path / "a.html", [], history=None)
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.inner_text("#scores tbody") != ""
    assert not page.is_visible("#viewer-card")
    assert not page.is_visible("#history")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_light_of_the_system_and_fits_a_phone(browser, report_path, scheme):
    page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    page.goto(Path(report_path).as_uri())
    page.wait_for_selector("body[data-ready]")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (sum(int(v) for v in re.findall(r"\d+", ink)) > 384) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
