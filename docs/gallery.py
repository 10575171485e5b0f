"""`make docs`: the executed notebooks of a finished run as a small static site that asks for nothing outside itself."""

import base64
import html
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode

REPOSITORY = Path(__file__).resolve().parents[1]
BADGE = re.compile(r"\[!\[(Open in \w+)\]\([^)]*\)\]\(([^)]*)\)")
STYLE = """
:root { color-scheme: light dark; --card: #fff; --page: #f5f6f8; --ink: #1b1f24; --soft: #59636e; --line: #d8dde3 }
@media (prefers-color-scheme: dark) {
  :root { --card: #1c2128; --page: #0f1318; --ink: #e6eaef; --soft: #9aa4af; --line: #333b45 }
}
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: auto; padding: 32px 20px }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
a { color: inherit; text-decoration: none; display: block; height: 100%; background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden }
a:hover, a:focus-visible { outline: 2px solid #0b5fd8 }
img { display: block; width: 100%; height: 150px; object-fit: cover; object-position: center; background: #fff }
h2 { font-size: 1.05rem; margin: 14px 16px 4px } p { margin: 0 16px 16px; color: var(--soft) } header p { margin: 0 0 24px }
"""


def build(run_dir: Path, site: Path) -> Path:
    """Write the site.

    Args:
        run_dir: output folder of a finished `python -m brats_utils run`.
        site: folder to write; replaced.

    Returns:
        The index page.
    """
    notebooks = sorted(run_dir.glob("0*.ipynb"))
    if not notebooks:
        sys.exit(f"error: {run_dir}: found no executed notebooks, expected some. `make run` makes them.")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    cards = []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        (site / f"{path.stem}.html").write_text(convert(notebook), encoding="utf-8")
        first = notebook.cells[0].source
        title, goal = re.search(r"# (.+)", first), re.search(r"\*\*You will do\*\* (.+)", first)
        picture = write_picture(notebook, site / f"{path.stem}.png")
        cards.append(card(f"{path.stem}.html", title[1] if title else path.stem, goal[1] if goal else "", picture))
    if (run_dir / "report.html").is_file():
        shutil.copy(run_dir / "report.html", site)
        shutil.copy(REPOSITORY / "docs/images/report.png", site)
        cards.append(card("report.html", "Report", "scores, curves and the scans, in a viewer.", "report.png"))
    index = site / "index.html"
    index.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Brain tumours in 3D</title><style>{STYLE}</style><main><header><h1>Segment brain tumours in 3D</h1>"
        f"<p>The notebooks as they ran. Not for clinical use.</p></header><ul>{''.join(cards)}</ul></main></html>",
        encoding="utf-8",
    )
    return index


def convert(notebook: NotebookNode) -> str:
    """Turn an executed notebook into one HTML page without scripts from elsewhere; links lead to the other pages."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((0\d_\w+)\.ipynb\)", r"](\1.html)", BADGE.sub(r"[\1](\2)", cell.source))
    exporter = HTMLExporter(embed_images=True, mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="")
    page, _ = exporter.from_notebook_node(notebook)
    # the template loads its scripts for mathematics and diagrams in any case; there is neither here
    page = re.sub(r'<script[^>]*\bsrc="[^"]*"[^>]*></script>', "", page)
    return re.sub(r'<script type="module">.*?</script>', "", page, flags=re.DOTALL)


def write_picture(notebook: NotebookNode, path: Path) -> str:
    """Save the last figure of a notebook; its name, or nothing where there is none."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    if not pictures:
        return ""
    path.write_bytes(base64.b64decode(pictures[-1]))
    return path.name


def card(link: str, title: str, goal: str, picture: str) -> str:
    """One notebook on the index page."""
    image = f'<img src="{picture}" alt="">' if picture else ""
    return f'<li><a href="{link}">{image}<h2>{html.escape(title)}</h2><p>{html.escape(goal[:1].upper() + goal[1:])}</p></a></li>'


if __name__ == "__main__":
    made = build(REPOSITORY / (sys.argv[1] if len(sys.argv) > 1 else "runs/tutorial"), REPOSITORY / "build/docs")
    print(f"Gallery: {made.relative_to(REPOSITORY)}")
