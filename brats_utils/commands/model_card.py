"""The model card of a network: what it is, what it was trained on, how well it does, what it must not be used for.

Source: Mitchell 2019, Model Cards for Model Reporting, arXiv 1810.03993.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_utils.labels import CHANNELS, REGIONS, SCHEMAS
from brats_utils.metrics import format_interval
from brats_utils.post_processing import MIN_ENHANCING_ML, MIN_TUMOUR_ML
from brats_utils.saving.checkpoints import Checkpoint, CheckpointError


def write_model_card(checkpoint: Checkpoint, *, metrics: Mapping[str, Any] | None = None) -> str:
    """Say in Markdown what a network is, what it was trained on, how well it does and what it must not be used for.

    Without `metrics`, the content of notebook 04's `metrics.json`, the card gives the validation Dice alone.

    Raises:
        CheckpointError: the metrics are no test scores, or those of another checkpoint; or a setting is missing.
    """
    checkpoint.check_settings()
    config, schema = checkpoint.config, SCHEMAS[checkpoint.config["label_schema"]]
    data = Path(config["dataset_dir"]).name
    origin = "synthetic scans (phantoms)" if data.startswith("phantom") else "scans"
    scores = "Test scores were not given when this card was written."
    if metrics is not None:
        scores = _tabulate_scores(metrics, checkpoint)
    choice = f"The checkpoint was chosen by validation mean Dice, {checkpoint.mean_dice:.3f}."
    if math.isnan(checkpoint.mean_dice):
        choice = "The checkpoint was saved before the first validation."
    labels = ", ".join(f"{value} {tissue}" for value, tissue in schema.tissues.items())
    return f"""# Brain tumour segmentation with SegResNet

**Not for clinical use.** A teaching model from the tutorial that made this card.

## Model

SegResNet (Myronenko 2018, arXiv 1810.11654), {config["init_filters"]} filters in its first layer. Input: {len(CHANNELS)} skull-stripped MRI channels on one grid, in the order {", ".join(CHANNELS)}. They are reoriented to RAS, resampled to {config["spacing_mm"]:g} mm and z-scored per channel over non-zero voxels. Output: the regions {", ".join(r.name for r in REGIONS)}, written as labels: {labels}. Connected components of tumour below {MIN_TUMOUR_ML:g} mL are removed. Less than {MIN_ENHANCING_ML:g} mL of enhancing tumour in a scan becomes non-enhancing core.

## Training data

{origin} in `{data}`, voxels of {config["spacing_mm"]:g} mm; {checkpoint.epoch} epochs, seed {config["seed"]}. {choice}

## Scores on held-out test cases of the same data

{scores}

A region that is absent counts 1 if the prediction is empty too, else 0.

## Run it

```bash
pip install monai nibabel scipy fire
python -m monai.bundle run --config_file configs/inference.json --image scan.nii.gz --output_dir out
```

## Use and limits

For teaching and for trying out pipelines. The scores hold for the data above and for nothing else: other scanners, children, operated patients, other diseases and scans with a skull were not tested. Scores on phantoms say little about patients. Look at every prediction.
"""


def _tabulate_scores(metrics: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Lay the test scores out as a Markdown table; refuse metrics without whole ones, or of another checkpoint."""
    if not isinstance(metrics, Mapping) or "test" not in metrics:
        found = sorted(metrics) if isinstance(metrics, Mapping) else type(metrics).__name__
        raise CheckpointError(
            f"metrics: found {found}, expected the test scores of notebook 04 under 'test'. Give its metrics.json; "
            "summary.json and other files do not say which checkpoint they belong to."
        )
    name, rows = "test", ["| region | mean Dice | 95% interval | cases |", "|---|---|---|---|"]
    try:
        for name, scores in metrics["test"].items():
            rows.append(f"| {name} | {scores['dice']:.3f} | {format_interval(scores)} | {scores['cases']:d} |")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"metrics: found no complete scores of {name}, expected numbers for dice, low, high, cases by region. Give "
            "metrics.json as notebook 04 wrote it."
        ) from None
    dice = None if math.isnan(checkpoint.mean_dice) else checkpoint.mean_dice  # as notebook 04 writes it
    expected = {"checkpoint_epoch": checkpoint.epoch, "validation_mean_dice": dice}
    given = {key: metrics.get(key) for key in expected}
    if given != expected:
        raise CheckpointError(
            f"metrics: found the scores of another checkpoint, {given}, expected {expected}. Run notebook 04 with this "
            "checkpoint, or export the one that was scored."
        )
    return "\n".join(rows)
