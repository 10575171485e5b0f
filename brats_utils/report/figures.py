"""Pictures of scans: upright axial slices, one colour per region, orientation stated.

Images are (4, X, Y, Z) float in RAS orientation; regions, true or predicted, (3, X, Y, Z) bool. The
uncertainty of a prediction is (3, X, Y, Z) float, the standard deviation of its probability.
"""

import copy
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.lines import Line2D
from monai.networks.nets import SegResNet
from PIL import Image

from brats_utils.cases.geometry import find_box
from brats_utils.labels import CHANNELS, REGIONS, LabelSchema, labels_to_regions
from brats_utils.report.slices import NESTING, ORIENTATION, largest_slice, upright_slice, window_volume

DARK = "#333333"
"""Background of all that shows region colours: the yellow vanishes on white."""

REGION_COLORS = {f"{region.name} ({region.title.replace('-', ' ').lower()})": region.color for region in REGIONS}
ERROR_COLORS = {"true positive": "#009E73", "false negative": "#E69F00", "false positive": "#CC79A7"}
TISSUE_COLORS = {"edema": "#009E73", "necrotic": "#CC79A7", "enhancing": "#E69F00"}
"""The rest of Okabe and Ito's colours, for what must not be taken for a region."""

FIELD_LIMIT = 0.4
"""Of a bias field, where its colours end."""


def plot_regions(
    image: torch.Tensor, regions: torch.Tensor, *, title: str = "", orientation: str = ORIENTATION
) -> Figure:
    """Show the four channels of the slice with the most tumour, with the outline of every region on each.

    `orientation` is what the picture says of its sides: a training patch, mirrored at random, has none.
    """
    slice_idx = largest_slice(regions)
    grey = upright_slice(window_volume(image), slice_idx)
    outlines = upright_slice(regions.numpy(), slice_idx)
    channels = dict(zip(CHANNELS, grey, strict=True))
    figure, axes = _show_row(channels, title=title, slice_idx=slice_idx, orientation=orientation)
    for axis in axes:
        for index in NESTING:
            if outlines[index].any():
                axis.contour(outlines[index], levels=[0.5], colors=[REGIONS[index].color], linewidths=1.2)
    return figure


def plot_comparison(
    image: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, slice_idx: int | None = None, title: str = ""
) -> Figure:
    """Show one slice along Z, by default the one with the most true tumour: FLAIR and T1gd, then both masks on FLAIR."""
    if slice_idx is None:
        slice_idx = largest_slice(truth if truth.any() else prediction)
    flair, _, t1gd, _ = upright_slice(window_volume(image), slice_idx)
    pictures = {"FLAIR": flair, "T1gd": t1gd}
    for name, regions in (("ground truth", truth), ("prediction", prediction)):
        pictures[name] = _fill(flair, upright_slice(regions.numpy(), slice_idx))
    return _show_row(pictures, title=title, slice_idx=slice_idx)[0]


def plot_prediction(image: torch.Tensor, prediction: torch.Tensor, *, title: str = "") -> Figure:
    """Show the slice with the most predicted tumour, four channels and the prediction: for scans without a truth."""
    slice_idx = largest_slice(prediction)
    grey = upright_slice(window_volume(image), slice_idx)
    pictures = dict(zip(CHANNELS, grey, strict=True))
    pictures["prediction"] = _fill(grey[0], upright_slice(prediction.numpy(), slice_idx))
    return _show_row(pictures, title=title, slice_idx=slice_idx)[0]


def plot_bias_field(channel: np.ndarray, field: np.ndarray, *, title: str = "") -> Figure:
    """Show a channel before and after its bias field is taken away, and the field between, in the largest slice of the brain.

    Args:
        channel: (X, Y, Z) float in RAS orientation, 0 in the background.
        field: likewise, the logarithm of the factor by which a voxel is too bright, see `bias_field`.
        title: stands above.
    """
    brain = channel != 0
    slice_idx = largest_slice(torch.from_numpy(brain)[None])
    both = np.stack([channel, channel / np.exp(field)])
    before, after = upright_slice(window_volume(torch.from_numpy(both)), slice_idx)
    share = upright_slice(np.where(brain, field, np.nan), slice_idx)
    colored = matplotlib.colormaps["coolwarm"](np.clip(share / (2 * FIELD_LIMIT) + 0.5, 0, 1), bytes=True)[..., :3]
    colored[np.isnan(share)] = 0
    name = f"field, blue -{100 * FIELD_LIMIT:.0f}% to red +{100 * FIELD_LIMIT:.0f}%"
    pictures = {"before": before, name: colored, "corrected": after}
    return _show_row(pictures, title=title, slice_idx=slice_idx, legend={})[0]


def plot_uncertainty(
    image: torch.Tensor, uncertainty: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, title: str = ""
) -> Figure:
    """Show where a prediction is unsure beside where it is wrong: the region and the slice with the most errors."""
    region = int((truth ^ prediction).sum((1, 2, 3)).argmax())
    true, found = truth[region], prediction[region]
    errors = torch.stack([true & found, true & ~found, found & ~true])
    slice_idx = largest_slice(errors[1:] if errors[1:].any() else errors)
    flair = upright_slice(window_volume(image), slice_idx)[0]
    painted = _fill(flair, upright_slice(errors.numpy(), slice_idx), ERROR_COLORS.values())
    name = REGIONS[region].name
    pictures = {"FLAIR": flair, f"errors in {name}": painted, f"uncertainty of {name}": flair}
    figure, axes = _show_row(pictures, title=title, slice_idx=slice_idx, legend=ERROR_COLORS)
    unsure, head = (upright_slice(v.numpy(), slice_idx) for v in (uncertainty[region], (image != 0).any(0)))
    heat = axes[2].imshow(np.ma.masked_where((unsure < 0.02) | ~head, unsure), cmap="plasma", vmin=0, vmax=0.25)
    figure.colorbar(heat, ax=axes[2], shrink=0.7, label="standard deviation of the probability")
    return figure


def plot_label_evidence(image: torch.Tensor, labels: torch.Tensor, *, schema: LabelSchema) -> Figure:
    """Show T1gd with each label value outlined on its own, beside the distribution of T1gd in each.

    The slice is the one with the most enhancing tumour. `image` is (4, X, Y, Z) float, z-scored, in RAS orientation,
    `labels` (X, Y, Z) integers of the schema.
    """
    slice_idx = largest_slice(labels[None] == schema.enhancing)
    t1gd = image[CHANNELS.index("T1gd")]
    grey = upright_slice(window_volume(t1gd[None]), slice_idx)[0]
    colors = {getattr(schema, tissue): color for tissue, color in TISSUE_COLORS.items()}
    names = {value: f"label {value}: {schema.tissues[value]}" for value in sorted(colors)}
    pictures = dict.fromkeys(("T1gd", *names.values()), grey)
    figure, axes = _show_row(pictures, title="T1gd", slice_idx=slice_idx, charts=1)
    for axis, value in zip(axes[1:4], names, strict=True):
        mask = upright_slice((labels == value).numpy(), slice_idx)
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=[colors[value]], linewidths=1.4)
        values = t1gd[labels == value].numpy()
        if values.size:
            axes[4].hist(
                values, bins=np.linspace(-3, 5, 60).tolist(), density=True, histtype="step", lw=1.8,
                color=colors[value], label=str(value),
            )  # fmt: skip
    axes[4].set(title="T1gd by label", xlabel="z-score", yticks=[], facecolor=DARK)
    axes[4].legend(title="label", labelcolor="white", facecolor=DARK, fontsize=8).get_title().set_color("white")
    return figure


def plot_nesting(image: torch.Tensor, labels: torch.Tensor, *, schema: LabelSchema) -> Figure:
    """Show the labels of the slice with most tumour, a colour per tissue, beside the three regions that are made of them.

    `labels` are (X, Y, Z) integers of the schema.
    """
    regions = labels_to_regions(labels, schema)
    core, whole, enhancing = regions
    slice_idx = largest_slice(regions)
    flair = upright_slice(window_volume(image[:1]), slice_idx)[0]
    tissues = torch.stack([whole & ~core, core & ~enhancing, enhancing])
    pictures = {"labels": _fill(flair, upright_slice(tissues.numpy(), slice_idx), TISSUE_COLORS.values())}
    for index in NESTING:
        alone = torch.zeros_like(regions)
        alone[index] = regions[index]
        pictures[REGIONS[index].name] = _fill(flair, upright_slice(alone.numpy(), slice_idx))
    values = {tissue: getattr(schema, tissue) for tissue in TISSUE_COLORS}
    names = {f"label {value}: {schema.tissues[value]}": TISSUE_COLORS[tissue] for tissue, value in values.items()}
    pairs = zip(names.items(), REGION_COLORS.items(), strict=True)  # a legend is filled column by column
    title, legend = "FLAIR, from labels to regions", dict(entry for pair in pairs for entry in pair)
    return _show_row(pictures, title=title, slice_idx=slice_idx, legend=legend)[0]


def plot_network(model: SegResNet, roi_size: Sequence[int]) -> Figure:
    """Draw the U of a SegResNet: at each level the channels and the voxels that a patch of `roi_size` has there."""
    shadow = copy.deepcopy(model).to("meta")  # knows shapes, computes nothing
    shapes: dict[str, list[tuple[int, ...]]] = {"encoder": [], "decoder": []}
    for side, layers in (("encoder", shadow.down_layers), ("decoder", shadow.up_layers)):
        for layer in layers:
            layer.register_forward_hook(lambda _, __, out, seen=shapes[side]: seen.append(tuple(out.shape[1:])))
    logits = shadow(torch.zeros(1, len(CHANNELS), *roi_size, device="meta"))
    depth = len(shapes["encoder"])
    # how far each level stands from the sides; the lowest is in the middle
    inwards = [*(0.55 * n for n in range(depth - 1)), 3.0]
    boxes = [("patch", "#eeeeee", -1.3, depth, (len(CHANNELS), *roi_size))]
    boxes += [("encoder", "#cfe2f3", inwards[n], depth - n, shape) for n, shape in enumerate(shapes["encoder"])]
    boxes += [("decoder", "#d9ead3", 6 - inwards[n], depth - n, s) for n, s in enumerate(shapes["decoder"][::-1])]
    boxes += [("logits", "#eeeeee", 7.3, depth, tuple(logits.shape[1:]))]
    figure, axis = plt.subplots(figsize=(10, 3.6), layout="constrained")
    for name, color, x, y, shape in boxes:
        text, frame = f"{name}\n{' × '.join(map(str, shape))}", {"boxstyle": "round", "facecolor": color}
        axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=frame)
    for n in range(depth - 1):
        left, right = (inwards[n], depth - n), (6 - inwards[n], depth - n)
        down, up = (inwards[n + 1], depth - n - 1), (6 - inwards[n + 1], depth - n - 1)
        gap = 16 if n < depth - 2 else 44  # the way to the lowest is flat
        for start, end, line, room in ((left, right, ":", 46), (left, down, "-", gap), (up, right, "-", gap)):
            style = {"arrowstyle": "->", "linestyle": line, "shrinkA": room, "shrinkB": room}
            axis.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)
    axis.set(xlim=(-2, 8), ylim=(0.5, depth + 0.5), title="channels × voxels at each level; dotted: skip connections")
    axis.set_axis_off()
    return figure


def choose_fonts(title: str) -> tuple[str, list[str]]:
    """Give a title with `?` for what no installed font can draw, and fonts for the rest: the usual, then what they lack."""
    fonts, lacking = list(plt.rcParams["font.family"]), set(title := unicodedata.normalize("NFC", title))
    usual = [(name, findfont(FontProperties(family=[name]))) for name in fonts]
    for name, path in (*usual, *sorted((font.name, font.fname) for font in fontManager.ttflist)):
        if lacking and not re.search("resort|emoji|^cm", name, re.IGNORECASE):  # boxes, bitmaps, TeX's own numbering
            with suppress(OSError, RuntimeError):
                found = lacking.intersection(map(chr, get_font(path).get_charmap()))
                lacking, fonts = lacking - found, [*fonts, name] if found else fonts
    return "".join("?" if sign in lacking else sign for sign in title), list(dict.fromkeys(fonts))


def render_png(figure: Figure) -> bytes:
    """Draw a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return buffer.getvalue()


def stack_figures(pictures: Sequence[bytes]) -> Image.Image:
    """Put PNG pictures under each other, on one white page."""
    opened = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    page = Image.new("RGB", (max(p.width for p in opened), sum(p.height for p in opened)), "white")
    for index, picture in enumerate(opened):
        page.paste(picture, ((page.width - picture.width) // 2, sum(p.height for p in opened[:index])))
    return page


def _show_row(
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
    figure.suptitle(f"{title}  slice {slice_idx}".strip() + f"\n{orientation}", size=10, family=fonts, parse_math=False)
    seen = np.any([picture.reshape(*picture.shape[:2], -1).any(-1) for picture in pictures.values()], axis=0)
    rows, columns = find_box(torch.from_numpy(seen))
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


def _fill(grey: np.ndarray, masks: np.ndarray, colors: Iterable[str] = REGION_COLORS.values()) -> np.ndarray:
    """Blend masks into a grey slice, by default regions: (Y, X) and (3, Y, X) to (Y, X, 3) uint8."""
    picture, colors = np.repeat(grey[..., None], 3, axis=-1).astype(float), list(colors)
    for index in NESTING:
        mask, color = masks[index], 255 * np.array(to_rgb(colors[index]))
        picture[mask] = 0.45 * grey[mask, None] + 0.55 * color
    return picture.astype(np.uint8)
