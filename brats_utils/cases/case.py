"""A case: which files are whose."""

from dataclasses import dataclass
from pathlib import Path

from brats_utils.labels import CHANNELS, LabelSchema


class CaseError(ValueError):
    """Files of a case, a folder or a split that are missing, damaged or contradictory, with what to do."""


@dataclass(frozen=True)
class Case:
    """One patient on disk.

    Attributes:
        case_id: name of the patient, unique within a data set.
        images: one 4D NIfTI, or four 3D ones, in the order of `labels.CHANNELS`; None for one that is missing.
        label: integer labels; None without.
        numbering: which integer of the label stands for what; None where nobody has said so.
    """

    case_id: str
    images: tuple[Path | None, ...]
    label: Path | None = None
    numbering: LabelSchema | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the label last."""
        return tuple(path for path in (*self.images, self.label) if path)

    @property
    def missing(self) -> tuple[str, ...]:
        """The channels that are not there."""
        return tuple(name for name, path in zip(CHANNELS, self.images, strict=False) if path is None)
