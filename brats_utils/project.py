"""What notebook 01 has prepared, found again by the others from the same parameters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from brats_utils.cases.case import Case, CaseError
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.split import split_cases
from brats_utils.colab import choose_preset
from brats_utils.config import Config, ConfigError, load_config
from brats_utils.labels import SCHEMAS, LabelSchema
from brats_utils.paths import display_path, resolve_path


@dataclass(frozen=True)
class Project:
    """Settings, data and split of one output folder."""

    preset: str  # the one chosen, never `auto`
    cfg: Config  # its settings
    out_dir: Path  # where everything of this run lies
    dataset_dir: Path  # the folder of the cases
    schema: LabelSchema  # the convention of their labels
    parts: dict[str, list[Case]]  # the labelled cases by `split.PARTS`

    @property
    def test_cases(self) -> list[Case]:
        """The test part, which must not be empty."""
        if not self.parts["test"]:
            raise CaseError(
                f"{display_path(self.out_dir)}: found no test case among {len(self.parts['train'])}, expected one at least. "
                "Give data with three labelled cases or more, and another output_dir."
            )
        return self.parts["test"]


def open_project(*, preset: str, data: str, output_dir: str, overrides: Any, init: str = "") -> Project:
    """Check the parameters of a notebook and find what they name; prints what was found.

    They are those of `colab.choose_preset` and `config.load_config`, also as text, as `papermill -p` hands them over.

    Raises:
        ConfigError: a setting that is unknown or impossible.
        CaseError: no data, or a split that was made for other data.
    """
    preset = choose_preset(preset)
    cfg = load_config(preset, overrides, data=data, output_dir=output_dir, init=init)
    out_dir, dataset_dir = resolve_path(output_dir), resolve_path(cfg.dataset_dir)
    cases = find_cases(dataset_dir, schema=SCHEMAS.get(cfg.label_schema))
    (schema,) = {case.label_schema for case in cases if case.label_schema}
    parts = split_cases(cases, out_dir / "split.json", seed=cfg.seed)
    sizes = ", ".join(f"{len(members)} {part}" for part, members in parts.items())
    print(f"{display_path(out_dir)}: {len(cases)} cases of {dataset_dir.name} ({sizes}), {schema.name} convention.")
    return Project(preset, cfg, out_dir, dataset_dir, schema, parts)


def read_switch(name: str, value: Any) -> bool:
    """Read a parameter that is on or off; `papermill -p` hands `false` over as text, which Python takes for true."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        raise ConfigError(f"{name}: found {value!r}, expected true or false.") from None
