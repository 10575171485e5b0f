"""A run as one HTML page that needs no account, no network and no server: scores, curves and a viewer.

The viewer is a small canvas of our own. NiiVue inlined would bring 3D, but takes 5.2 MB before the first voxel and
WebGL; a full-size case with all four channels takes about 2 MB here, because the slices travel as JPEG.
"""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from PIL import Image

from brats_utils.cases.geometry import find_box
from brats_utils.labels import CHANNELS, REGIONS
from brats_utils.metrics import Summary, format_interval
from brats_utils.paths import write_text
from brats_utils.report.slices import NESTING, upright_slice, window_volume

JPEG_QUALITIES = (80, 65, 50, 35, 20)
MAX_IMAGE_CHARACTERS = 2_600_000
"""Of a case's four channels: the best quality that fits is taken, so that a full-size case stays below 3 MB."""
RULE = (
    "° The case does not have this region: 1 if the prediction is empty too, else 0 (BraTS 2023). "
    "Intervals are 95%, from resampling the cases."
)


@dataclass(frozen=True)
class ReportCase:
    """One case for the viewer, or for a W&B table; channels and regions in the order of `CHANNELS` and `REGIONS`."""

    case_id: str  # as in the table of scores
    image: torch.Tensor  # (4, X, Y, Z) float, RAS, any scale; 0 is background
    truth: torch.Tensor  # (3, X, Y, Z) bool
    prediction: torch.Tensor | None  # (3, X, Y, Z) bool; None without
    spacing_mm: tuple[float, float, float]  # size of a voxel along X, Y and Z
    note: str = ""  # a few words beside its name, e.g. `worst`

    def __post_init__(self) -> None:
        for name, count in (("image", 4), ("truth", 3), ("prediction", 3)):
            volume, expected = getattr(self, name), (count, *self.image.shape[1:])
            if volume is not None and volume.shape != expected:
                raise ValueError(
                    f"{self.case_id}: found {name} of shape {tuple(volume.shape)}, expected {expected}. "
                    "Give image, truth and prediction on one grid."
                )


def build_report(
    path: Path,
    *,
    title: str,
    facts: Sequence[str],
    scores: pd.DataFrame,
    summary: Mapping[str, Summary],
    cases: Sequence[ReportCase],
    history: pd.DataFrame | None = None,
    figures: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the page, whole or not at all; the same content gives the same bytes.

    Under the title stand the `facts`: short statements of where the numbers come from. `scores` has a row per case, as in
    `cases.csv`; `summary` is that of `metrics.summarise_scores`; `history` has a row per epoch, as in `history.csv`. The
    viewer opens with the first of the `cases`. `figures` are PNG pictures by title, e.g. of `figures.render_png`.
    """
    content = {
        "title": title,
        "facts": list(facts),
        "tiles": [_describe_score(name, score) for name, score in summary.items()],
        "rule": RULE,
        "scores": [_describe_row(row) for row in scores.to_dict("records")],
        "history": [] if history is None else json.loads(history.to_json(orient="records")),
        "figures": {name: _to_url(picture, "png") for name, picture in (figures or {}).items()},
    }
    write_text(path, _fill_page(cases, scores, content))
    return path


def show_report(path: Path) -> HTML:
    """Show a report inside a notebook, where it stays when the notebook is published."""
    return _frame(path.read_text(encoding="utf-8"), height=860)


def show_viewer(case: ReportCase) -> HTML:
    """Show the viewer of the report inside a notebook, where it stays when that is published.

    For a case without a prediction there are no buttons for it.
    """
    empty = {"title": "", "facts": [], "tiles": [], "rule": "", "scores": [], "history": [], "figures": {}}
    return _frame(_fill_page([case], pd.DataFrame({"case_id": []}), empty), height=620)


def _frame(page: str, *, height: int) -> HTML:
    style = f"width:100%;height:{height}px;border:0"
    return HTML(f'<div><iframe srcdoc="{html.escape(page)}" style="{style}" title="Report"></iframe></div>')


def _fill_page(cases: Sequence[ReportCase], scores: pd.DataFrame, content: Mapping[str, Any]) -> str:
    """Put cases and `content`, what stands around the viewer, into the page."""
    fixed = {
        "regions": [{"name": region.name, "title": region.title, "color": region.color} for region in REGIONS],
        "nesting": NESTING,
        "channels": CHANNELS,
        "cases": [_encode_case(case, scores) for case in cases],
        "predicted": any(case.prediction is not None for case in cases),
    }
    page = files("brats_utils.report").joinpath("page.html").read_text(encoding="utf-8")
    safe = json.dumps({**content, **fixed}, separators=(",", ":")).replace("<", "\\u003c")  # no name can end the script
    return page.replace("__DATA__", safe)


def _describe_score(name: str, score: Summary) -> dict[str, Any]:
    region = next((region for region in REGIONS if region.name == name), None)
    notes = [f"{format_interval(score)}, n = {score['cases']}"]
    if region and score["dice_where_present"] is not None:
        notes.append(f"{score['dice_where_present']:.3f} where the region is present, n = {score['cases_with_region']}")
    title = f"{region.title.replace('-', ' ')} ({name})" if region else "Mean Dice"
    return {"name": title, "dice": score["dice"], "notes": notes, "color": region.color if region else None}


def _describe_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    dice = {region.name: float(row[f"dice_{region.name}"]) for region in REGIONS}
    absent = [region.name for region in REGIONS if not row[f"has_{region.name}"]]
    means = {**dice, "mean": sum(dice.values()) / len(dice)}
    shown = {name: None if math.isnan(value) else value for name, value in means.items()}  # JSON has no NaN
    return {"case_id": str(row["case_id"]), **shown, "absent": absent}


def _encode_case(case: ReportCase, scores: pd.DataFrame) -> dict[str, Any]:
    """Crop a case to the brain and pack it: a JPEG mosaic per channel, one PNG for all masks."""
    predicted = torch.zeros_like(case.truth) if case.prediction is None else case.prediction
    box = find_box((case.image != 0).any(0) | case.truth.any(0) | predicted.any(0))
    image = case.image[:, *box]
    masks = torch.cat([case.truth, predicted])[:, *box].cpu().numpy()
    bits = 4 * np.packbits(masks, axis=0, bitorder="little")[0]  # apart, whatever the decoder rounds
    width, height, depth = image.shape[1:]
    busiest = [int(masks.sum(axis=(0, *axes)).argmax()) for axes in ((2, 3), (1, 3), (1, 2))]
    row = scores[scores["case_id"].astype(str) == case.case_id]
    scored = {r.name: float(row[f"dice_{r.name}"].iloc[0]) for r in REGIONS} if len(row) else {}
    dice = " · ".join(f"{name} {value:.3f}" for name, value in scored.items() if not math.isnan(value))
    size = " × ".join(f"{spacing:g}" for spacing in case.spacing_mm)
    return {
        "id": case.case_id,
        "note": case.note,
        "about": f"Dice {dice} · voxels of {size} mm" if dice else f"voxels of {size} mm",
        "width": width,
        "height": height,
        "depth": depth,
        "columns": math.ceil(math.sqrt(depth)),
        "spacing": case.spacing_mm,
        "start": {"axial": busiest[2], "coronal": height - 1 - busiest[1], "sagittal": width - 1 - busiest[0]},
        "images": _encode_channels(window_volume(image)),
        "layers": _encode_mosaic(bits, "PNG", optimize=True),
    }


def _encode_channels(channels: np.ndarray) -> list[str]:
    for quality in JPEG_QUALITIES:
        images = [_encode_mosaic(channel, "JPEG", quality=quality) for channel in channels]
        if sum(map(len, images)) < MAX_IMAGE_CHARACTERS:
            break
    return images


def _encode_mosaic(volume: np.ndarray, kind: str, **settings: Any) -> str:
    """Lay all upright axial slices of a (X, Y, Z) uint8 volume side by side, as a data URL."""
    depth = volume.shape[-1]
    columns = math.ceil(math.sqrt(depth))
    tiles = [upright_slice(volume, index) for index in range(depth)]
    tiles += [np.zeros_like(tiles[0])] * (-depth % columns)
    mosaic = np.block([tiles[first : first + columns] for first in range(0, depth, columns)])
    buffer = io.BytesIO()
    Image.fromarray(mosaic).save(buffer, kind, **settings)
    return _to_url(buffer.getvalue(), kind.lower())


def _to_url(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
