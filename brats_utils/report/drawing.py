"""What all pictures share: colours, a row of slices under one title, fonts for any name, PNG."""

import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.lines import Line2D
from PIL import Image

from brats_utils.cases.geometry import find_box
from brats_utils.labels import REGIONS
from brats_utils.report.slices import NESTING, ORIENTATION

DARK = "#333333"
"""Background of all that shows region colours: the yellow vanishes on white."""

REGION_COLORS = {f"{region.name} ({region.title.replace('-', ' ').lower()})": region.color for region in REGIONS}
ERROR_COLORS = {"true positive": "#009E73", "false negative": "#E69F00", "false positive": "#CC79A7"}
TISSUE_COLORS = {"edema": "#009E73", "necrotic": "#CC79A7", "enhancing": "#E69F00"}
"""The rest of Okabe and Ito's colours, for what must not be taken for a region."""


def choose_fonts(title: str) -> tuple[str, list[str]]:
    """Give a title with `?` for what no installed font can draw, and fonts for the rest: the usual, then what they lack."""
    title = unicodedata.normalize("NFC", title)
    fonts = list(plt.rcParams["font.family"])
    undrawn = set(title)
    usual = [(name, findfont(FontProperties(family=[name]))) for name in fonts]
    installed = sorted((font.name, font.fname) for font in fontManager.ttflist)
    for name, path in (*usual, *installed):
        if not undrawn:
            break
        if re.search("resort|emoji|^cm", name, re.IGNORECASE):  # boxes, bitmaps, TeX's own order of signs
            continue
        with suppress(OSError, RuntimeError):
            drawn = undrawn & {chr(code) for code in get_font(path).get_charmap()}
            if drawn:
                undrawn -= drawn
                fonts.append(name)
    drawable = "".join("?" if sign in undrawn else sign for sign in title)
    return drawable, list(dict.fromkeys(fonts))


def render_png(figure: Figure) -> bytes:
    """Draw a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()


def stack_figures(pictures: Sequence[bytes]) -> Image.Image:
    """Put PNG pictures under each other, on one white page."""
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    width = max(picture.width for picture in opened)
    height = sum(picture.height for picture in opened)
    page = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in opened:
        page.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height
    return page


def show_row(
    pictures: Mapping[str, np.ndarray],
    *,
    title: str,
    slice_idx: int,
    orientation: str = ORIENTATION,
    legend: Mapping[str, str] = REGION_COLORS,
    charts: int = 0,
) -> tuple[Figure, Sequence[Axes]]:
    """Show pictures of one slice side by side under their names, above a legend; or leave room for `charts` on the right.

    All are cut to one box, which holds what any of them shows.
    """
    count = len(pictures) + charts
    figure, axes = plt.subplots(1, count, figsize=(2.8 * count, 3.6), layout="constrained")
    title, fonts = choose_fonts(title)
    heading = f"{title}  slice {slice_idx}".strip()
    figure.suptitle(f"{heading}\n{orientation}", size=10, family=fonts, parse_math=False)
    rows, columns = _find_content(pictures.values())
    for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.set(xlim=(columns.start - 1.5, columns.stop + 0.5), ylim=(rows.stop + 0.5, rows.start - 1.5))
        axis.set_title(name if picture.any() else f"{name} (empty)", fontsize=10)
        axis.set_axis_off()
    if legend and not charts:
        lines = [Line2D([], [], color=color, lw=3) for color in legend.values()]
        style = {"facecolor": DARK, "labelcolor": "white"}
        figure.legend(lines, list(legend), loc="outside lower center", ncols=3, fontsize=9, **style)
    return figure, axes


def _find_content(pictures: Iterable[np.ndarray]) -> tuple[slice, ...]:
    """The rows and columns that hold what any of some pictures shows; each is (Y, X) or, in colour, (Y, X, 3)."""
    masks = []
    for picture in pictures:
        colours = picture.reshape(*picture.shape[:2], -1)
        masks.append(colours.any(axis=-1))
    return find_box(torch.from_numpy(np.any(masks, axis=0)))


def blend_masks(grey: np.ndarray, masks: np.ndarray, colors: Iterable[str] = REGION_COLORS.values()) -> np.ndarray:
    """Blend masks into a grey slice, by default regions: (Y, X) and (3, Y, X) to (Y, X, 3) uint8."""
    colors = list(colors)
    picture = np.repeat(grey[..., None], 3, axis=-1).astype(float)
    for index in NESTING:
        mask = masks[index]
        color = 255 * np.array(to_rgb(colors[index]))
        picture[mask] = 0.45 * grey[mask, None] + 0.55 * color
    return picture.astype(np.uint8)
