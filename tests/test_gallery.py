"""The static gallery: no request leaves it, nothing in it is broken."""

import base64
import importlib.util
import io
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from brats_utils.report.page import show_report

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", REPOSITORY / "docs/gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def index(gallery, tmp_path_factory):
    """The site made of our notebooks, each with a figure for its output and a report in a frame."""
    run_dir = tmp_path_factory.mktemp("run")
    figure = io.BytesIO()
    Image.new("RGB", (40, 20), "navy").save(figure, "PNG")
    (run_dir / "report.html").write_text("<!doctype html><title>Report</title><p id='inside'>the report</p>")
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        picture = {"image/png": base64.b64encode(figure.getvalue()).decode()}
        code[-1].outputs.append(nbformat.v4.new_output("display_data", picture))
        frame = {"text/html": show_report(run_dir / "report.html").data}
        code[-1].outputs.append(nbformat.v4.new_output("display_data", frame))
        nbformat.write(notebook, run_dir / path.name)
    return gallery.build(run_dir, tmp_path_factory.mktemp("site") / "site")


def visit(browser, path):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    return page, requests, errors


def test_index_has_a_card_for_each_notebook_and_the_report(browser, index):
    page, _, _ = visit(browser, index)
    links = page.eval_on_selector_all("li a", "links => links.map(a => a.getAttribute('href'))")
    expected = [f"{path.stem}.html" for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
    assert links == [*expected, "report.html"]
    assert all((index.parent / link).is_file() for link in links)
    page.close()


def test_no_page_asks_for_anything_outside_or_breaks(browser, index):
    for path in sorted(index.parent.glob("*.html")):
        page, requests, errors = visit(browser, path)
        outside = [url for url in requests if not url.startswith(("file:", "data:", "about:"))]
        assert not outside, path.name
        assert not errors, path.name
        broken = page.eval_on_selector_all("img", "all => all.filter(i => !i.naturalWidth).map(i => i.src)")
        assert not broken, path.name
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1") or path.name != "index.html"
        page.close()


def test_links_between_notebooks_lead_to_pages(browser, index):
    page, _, _ = visit(browser, index.parent / "05_evaluation.html")
    links = page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href')).filter(h => /^0\\d_/.test(h))")
    assert "06_your_scans.html" in links
    assert all((index.parent / link).is_file() for link in links)
    assert page.frame_locator("iframe").locator("#inside").inner_text() == "the report"
    page.close()


def test_a_folder_without_a_run_is_refused(gallery, tmp_path):
    with pytest.raises(SystemExit, match="found no executed notebooks"):
        gallery.build(tmp_path, tmp_path / "site")
