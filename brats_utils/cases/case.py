"""A case: which files are whose."""

from dataclasses import dataclass
from pathlib import Path

from brats_utils.labels import CHANNELS, LabelSchema


class CaseError(ValueError):
    """Files of a case, a folder or a split that are missing, damaged or contradictory, with what to do."""


@dataclass(frozen=True)
class Case:
    """One patient on disk."""

    case_id: str  # name of the patient, unique within a data set
    images: tuple[Path | None, ...]  # one 4D NIfTI, or four 3D ones in the order of `CHANNELS`; None for a missing one
    label: Path | None = None  # integer labels; None without
    label_schema: LabelSchema | None = None  # which integer of the label stands for what; None where it is not known

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the label last."""
        return tuple(path for path in (*self.images, self.label) if path)

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that are there, in the order of `CHANNELS`."""
        return tuple(name for name in CHANNELS if name not in self.missing)

    @property
    def missing(self) -> tuple[str, ...]:
        """The channels that are not there."""
        return tuple(name for name, path in zip(CHANNELS, self.images, strict=False) if path is None)


def stamp_files(case: Case) -> list[tuple[int, int] | None]:
    """Size and time of change of each file of a case: what was remembered of it holds as long as they do."""
    files = (*case.images, case.label)
    return [(path.stat().st_size, path.stat().st_mtime_ns) if path and path.is_file() else None for path in files]
