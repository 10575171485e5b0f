"""Pictures of scans: upright axial slices, one colour per region, orientation stated.

Images are (4, X, Y, Z) float in RAS orientation; regions, true or predicted, (3, X, Y, Z) bool. The
uncertainty of a prediction is (3, X, Y, Z) float, the standard deviation of its probability.
"""

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from brats_utils.labels import CHANNELS, REGIONS, LabelSchema, labels_to_regions
from brats_utils.report.drawing import DARK, ERROR_COLORS, REGION_COLORS, TISSUE_COLORS, blend_masks, show_row
from brats_utils.report.slices import NESTING, ORIENTATION, largest_slice, upright_slice, window_volume

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
    figure, axes = show_row(channels, title=title, slice_idx=slice_idx, orientation=orientation)
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
        pictures[name] = blend_masks(flair, upright_slice(regions.numpy(), slice_idx))
    return show_row(pictures, title=title, slice_idx=slice_idx)[0]


def plot_prediction(image: torch.Tensor, prediction: torch.Tensor, *, title: str = "") -> Figure:
    """Show the slice with the most predicted tumour, four channels and the prediction: for scans without a truth."""
    slice_idx = largest_slice(prediction)
    grey = upright_slice(window_volume(image), slice_idx)
    pictures = dict(zip(CHANNELS, grey, strict=True))
    pictures["prediction"] = blend_masks(grey[0], upright_slice(prediction.numpy(), slice_idx))
    return show_row(pictures, title=title, slice_idx=slice_idx)[0]


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
    return show_row(pictures, title=title, slice_idx=slice_idx, legend={})[0]


def plot_uncertainty(
    image: torch.Tensor, uncertainty: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor, *, title: str = ""
) -> Figure:
    """Show where a prediction is unsure beside where it is wrong: the region and the slice with the most errors."""
    region = int((truth ^ prediction).sum((1, 2, 3)).argmax())
    true, found = truth[region], prediction[region]
    errors = torch.stack([true & found, true & ~found, found & ~true])
    slice_idx = largest_slice(errors[1:] if errors[1:].any() else errors)
    flair = upright_slice(window_volume(image), slice_idx)[0]
    painted = blend_masks(flair, upright_slice(errors.numpy(), slice_idx), ERROR_COLORS.values())
    name = REGIONS[region].name
    pictures = {"FLAIR": flair, f"errors in {name}": painted, f"uncertainty of {name}": flair}
    figure, axes = show_row(pictures, title=title, slice_idx=slice_idx, legend=ERROR_COLORS)
    unsure, head = (upright_slice(v.numpy(), slice_idx) for v in (uncertainty[region], (image != 0).any(0)))
    heat = axes[2].imshow(np.ma.masked_where((unsure < 0.02) | ~head, unsure), cmap="plasma", vmin=0, vmax=0.25)
    figure.colorbar(heat, ax=axes[2], shrink=0.7, label="standard deviation")
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
    figure, axes = show_row(pictures, title="T1gd", slice_idx=slice_idx, charts=1)
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
    pictures = {"labels": blend_masks(flair, upright_slice(tissues.numpy(), slice_idx), TISSUE_COLORS.values())}
    for index in NESTING:
        alone = torch.zeros_like(regions)
        alone[index] = regions[index]
        pictures[REGIONS[index].name] = blend_masks(flair, upright_slice(alone.numpy(), slice_idx))
    values = {tissue: getattr(schema, tissue) for tissue in TISSUE_COLORS}
    names = {f"label {value}: {schema.tissues[value]}": TISSUE_COLORS[tissue] for tissue, value in values.items()}
    legend: dict[str, str] = {}
    for of_label, of_region in zip(names.items(), REGION_COLORS.items(), strict=True):  # it is filled column by column
        legend |= dict([of_label, of_region])
    return show_row(pictures, title="FLAIR, from labels to regions", slice_idx=slice_idx, legend=legend)[0]
