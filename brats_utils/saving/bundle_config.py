"""The configs of a MONAI bundle as plain values: parsed, and neither evaluated nor built.

They are programs: what begins with `$` is evaluated, and `_target_` may name any function (MONAI's advisory
GHSA-873f-pvrv-4x83). Here an expression stays a text and a component a dictionary.

Source: the MONAI Bundle Specification, docs.monai.io/en/stable/mb_specification.html.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigItem, ConfigParser


class BundleError(ValueError):
    """A bundle that is damaged, or asks for something that cannot be done here with the same result."""


def load_config(folder: Path, name: str) -> dict[str, Any]:
    """Read one file of the configs, JSON or YAML; what would be code or another file in it stays plain text."""
    path = next((path for path in sorted((folder / "configs").glob(f"{name}.*")) if path.is_file()), None)
    if path is None:
        raise BundleError(
            f"found no configs/{name}.json, expected a MONAI bundle. Give the folder that holds `configs`."
        )
    return ConfigParser.load_config_file(path)


def read_section(config: Mapping[str, Any], name: str) -> Any:
    """Parse one section with its references, `@name`, filled in; a component stays a dictionary, an expression a text."""
    sections = {key: value for key, value in config.items() if key != "imports"}
    if name not in sections:
        raise BundleError(f"its inference config has no {name}, expected one.")
    macros = [text for text in list_texts(sections[name]) if text.startswith("%")]
    if macros:
        raise BundleError(f"{name}: found {macros[0]!r}, which reads another file, expected values.")
    parser = ConfigParser({key: value for key, value in sections.items() if not _has_macro(value)})
    return _to_plain(parser.get_parsed_content(name, instantiate=False, eval_expr=False))


def _has_macro(value: Any) -> bool:
    return any(text.startswith("%") for text in list_texts(value))


def list_texts(value: Any) -> list[str]:
    """All texts in nested lists and dictionaries."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for member in value for text in list_texts(member)]
    return [value] if isinstance(value, str) else []


def _to_plain(value: Any) -> Any:
    """Turn MONAI's wrappers of components and expressions back into dictionaries and texts."""
    if isinstance(value, ConfigItem):
        return _to_plain(value.get_config())
    if isinstance(value, Mapping):
        return {key: _to_plain(member) for key, member in value.items()}
    return [_to_plain(member) for member in value] if isinstance(value, list) else value


def name_target(section: Mapping[str, Any]) -> str:
    """The class that a component names, if it is one of MONAI's own; else the whole name."""
    target = str(section["_target_"])
    return target.rpartition(".")[2] if target.startswith("monai.") else target
