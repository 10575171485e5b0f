"""Settings of a run: five presets and one validated model."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from brats_utils.labels import SCHEMAS, WHOLE_TUMOUR

Side = Annotated[int, Field(ge=16, multiple_of=8)]
"""Of a patch in voxels. SegResNet halves it three times (`blocks_down` in Myronenko 2018, arXiv 1810.11654)."""

COARSEST_MM = 8
"""Largest voxel size to work at: a lesion is then a voxel or two."""

RoiSize = tuple[Side, Side, Side]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


def name_phantom(spacing_mm: object, num_cases: object, seed: object) -> str:
    """Name the folder of a preset's phantom after what it is made with, so that two never mix."""
    return f"phantom-{spacing_mm}mm-{num_cases}cases-seed{seed}"


class ConfigError(ValueError):
    """A setting of a run, or a parameter of a notebook, that is unknown or impossible."""


class Config(BaseModel):
    """All settings of one run, as recorded in W&B and in every checkpoint.

    The first block keeps the names that users of the classic W&B + MONAI tutorial know. Build one
    with `load_config`, which turns pydantic's report into plain words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    roi_size: RoiSize
    """Training patch in voxels."""
    batch_size: Count = 1
    num_workers: Annotated[int, Field(ge=-1)] = -1
    """Loader processes. -1 goes by the machine: its cores beside a GPU, none where the CPU itself trains."""
    max_train_images_visualized: Annotated[int, Field(ge=0)] = 20
    max_val_images_visualized: Annotated[int, Field(ge=0)] = 20
    dice_loss_smoothen_numerator: NonNegative = 1e-5
    dice_loss_smoothen_denominator: NonNegative = 1e-5
    dice_loss_squared_prediction: bool = True
    dice_loss_target_onehot: bool = False
    dice_loss_apply_sigmoid: bool = True
    initial_learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: NonNegative = 1e-5
    max_train_epochs: Count
    validation_intervals: Count = 1
    dataset_dir: str = "phantom"
    """A folder in any of `cases.layouts.LAYOUTS`, or `phantom` or `msd` for the usual place of either."""
    checkpoint_dir: str = "runs/tutorial/checkpoints"
    inference_roi_size: RoiSize
    """Sliding window in voxels, for validation and prediction. Best near `roi_size`, since group norm takes its statistics
    from the whole window: one of 96³ costs `laptop` a fifth of its Dice on patients (docs/inference.md)."""
    max_prediction_images_visualized: Annotated[int, Field(ge=0)] = 20

    label_schema: str = "auto"
    """Convention of the labels, a key of `labels.SCHEMAS`; `auto` for what the data's dataset.json says."""
    spacing_mm: Annotated[float, Field(gt=0, le=COARSEST_MM)] = 1.0
    """Isotropic voxel size that the model works at."""
    bias_correction: bool = False
    """Correct the bias field of FLAIR with N4 before the z-score: see `bias_field`. It pays on patients, not on phantoms."""
    init_filters: Annotated[int, Field(ge=8, multiple_of=8)] = 16
    """Width of SegResNet's first layer. Multiples of 8: its group norm has 8 groups."""
    dropout_prob: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the first layer's channels dropped while training. A small network on little time is better without."""
    dice_loss_batch: bool = True
    """Dice over the whole batch, so that one patch without ET does not weigh as much as a full one."""
    bce_weight: NonNegative = 1.0
    """Weight of binary cross-entropy beside Dice."""
    init: str = ""
    """Where the weights start: empty for random ones, `pretrained`, or a checkpoint's file. See `FINE_TUNING`."""
    fold: Annotated[int, Field(ge=0, le=5)] = 0
    """Of a cross-validation, the fold that is held out as val: 1 to 5 of the split file. 0 takes its train and val."""
    appearance: Literal["strong", "classic"] = "strong"
    """Random changes of grey values in training: as another scanner would, or the classic scale and shift by up to .1."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    schedule: Literal["cosine", "one_cycle"] = "one_cycle"
    deterministic: bool = True
    """Same seed, same weights. Off lets cuDNN pick the fastest kernels."""
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where the outcome of the deterministic transforms is kept."""
    phantom_cases: Annotated[int, Field(ge=3)] = 40
    """Labelled cases to generate where `data` is the phantom."""

    @field_validator("label_schema")
    @classmethod
    def _known_schema(cls, name: str) -> str:
        if name == WHOLE_TUMOUR.name:
            raise ValueError(
                "expected one that tells the three regions apart. It outlines the whole tumour alone: `evaluate --schema "
                f"{name}` can score it, training cannot learn from it"
            )
        if name not in (*SCHEMAS, "auto"):
            raise ValueError(f"expected auto, or one of {', '.join(SCHEMAS)}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _name_the_data(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Give the data its folder; a phantom's is that of `name_phantom`."""
        seed, spacing, cases = (
            values.get(k, cls.model_fields[k].default) for k in ("seed", "spacing_mm", "phantom_cases")
        )
        usual = {"phantom": f"data/{name_phantom(spacing, cases, seed)}", "msd": "data/Task01_BrainTumour"}
        given = values.get("dataset_dir", "phantom")
        return {**values, "dataset_dir": usual.get(given, given)}

    @model_validator(mode="after")
    def _losses_are_possible(self) -> "Config":
        if self.dice_loss_target_onehot:
            raise ValueError("dice_loss_target_onehot: the regions overlap, so they cannot be one-hot; set it to false")
        if not self.dice_loss_apply_sigmoid:
            raise ValueError("dice_loss_apply_sigmoid: the network returns logits, so the loss must apply the sigmoid")
        if self.dice_loss_smoothen_denominator == 0:
            raise ValueError("dice_loss_smoothen_denominator: 0 divides by zero on an empty region; try 1e-5")
        return self


PRESETS: dict[str, dict[str, Any]] = {
    # small for testing efficiency: every notebook in seconds, on two cores
    "smoke": dict(
        roi_size=(32, 32, 32), inference_roi_size=(32, 32, 32), batch_size=2, spacing_mm=4.0, init_filters=8,
        max_train_epochs=2, initial_learning_rate=3e-3, dropout_prob=0.0, phantom_cases=8,
        max_train_images_visualized=1, max_val_images_visualized=1, max_prediction_images_visualized=1,
    ),
    "laptop": dict(
        roi_size=(48, 48, 48), inference_roi_size=(56, 56, 56), batch_size=4, spacing_mm=2.0, init_filters=8,
        max_train_epochs=45, initial_learning_rate=3e-3, dropout_prob=0.0, validation_intervals=5, phantom_cases=120,
        max_train_images_visualized=3, max_val_images_visualized=2, max_prediction_images_visualized=3,
    ),
    # one T4 with 16 GB, real MSD
    "colab": dict(
        roi_size=(128, 128, 128), inference_roi_size=(128, 128, 128), batch_size=1,
        max_train_epochs=30, initial_learning_rate=1e-3, validation_intervals=3, deterministic=False,
        dataset_dir="msd", max_train_images_visualized=5, max_val_images_visualized=5,
        max_prediction_images_visualized=5,
    ),
    # one large GPU, real MSD
    "full": dict(
        roi_size=(128, 160, 128), inference_roi_size=(128, 160, 128), batch_size=4, init_filters=32,
        max_train_epochs=100, initial_learning_rate=1e-3, validation_intervals=2, deterministic=False,
        dataset_dir="msd",
    ),
    # the classic tutorial's values to the letter, traps included
    "classic": dict(
        roi_size=(224, 224, 144), inference_roi_size=(128, 128, 64), batch_size=1, num_workers=4,
        max_train_epochs=50, initial_learning_rate=1e-4, dice_loss_smoothen_numerator=0.0, dice_loss_batch=False,
        bce_weight=0.0, appearance="classic", optimizer="adam", schedule="cosine", cache="none", dataset_dir="msd",
    ),
}  # fmt: skip

FINE_TUNING = dict(initial_learning_rate=3e-4, max_train_epochs=150, validation_intervals=25, bias_correction=True)
"""Of a training whose weights start from trained ones: with 8 cases for it and `laptop`'s batch of 4, 300 steps. The bias
field is corrected as for the pretrained network, so that both can be averaged."""


def read_yaml(name: str, text: str) -> Any:
    """Read the value of the setting or parameter `name` as papermill would; a `ConfigError` where it is no YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise ConfigError(
            f"{name}: found {text!r}, which is no YAML ({problem}). Expected a number, a text or {{name: value}}; put "
            "quotes around text with signs in it."
        ) from None


def load_config(
    preset: str,
    overrides: Mapping[str, Any] | str | None = None,
    *,
    data: str = "",
    output_dir: str = "",
    init: str = "",
) -> Config:
    """Build the validated, immutable settings of a preset, with some of them changed.

    Args:
        preset: a key of `PRESETS`.
        overrides: settings to change, those of `FINE_TUNING` too; or YAML of them, as `papermill -p` hands it over. Numbers
            may arrive as text, as from YAML's `1e-4`.
        data: `phantom`, `msd` or a folder; empty for the preset's own.
        output_dir: folder of the run, to hold the checkpoints; empty for the usual one.
        init: see `Config.init`.

    Raises:
        ConfigError: unknown preset, unknown setting or impossible value, each named.
    """
    if preset not in PRESETS:
        raise ConfigError(f"preset: found {preset!r}, expected one of {', '.join(PRESETS)}.")
    if isinstance(overrides, str):
        overrides = read_yaml("overrides", overrides)
    if not isinstance(overrides, Mapping | None):
        raise ConfigError(f"overrides: found {overrides!r}, expected settings such as {{max_train_epochs: 3}}.")
    named = {"dataset_dir": data, "checkpoint_dir": output_dir and f"{output_dir}/checkpoints", "init": init}
    given = {str(name): value for name, value in (overrides or {}).items()} | {k: v for k, v in named.items() if v}
    try:
        return Config(**PRESETS[preset] | (FINE_TUNING if given.get("init") else {}) | given)
    except ValidationError as error:
        raise ConfigError(f"Preset {preset!r} with these overrides is not valid:\n{_in_plain_words(error)}") from None


def _in_plain_words(error: ValidationError) -> str:
    """One line a fault: which setting, what was found, what was expected."""
    lines = []
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            close = [key for key in Config.model_fields if name.lower() in key or key in name.lower()]
            hint = f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(Config.model_fields)}."
            lines.append(f"- {name}: unknown setting.{hint}")
        elif name:
            lines.append(f"- {name}: found {json.dumps(fault['input'], default=str)}; {message}.")
        else:
            lines.append(f"- {message}.")
    return "\n".join(lines)
