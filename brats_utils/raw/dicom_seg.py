"""The labels as a DICOM segmentation on the slices that they were made for: it opens in 3D Slicer and OHIF.

The patient's name and ids are copied into the file from the scan, as the standard wants it; they go nowhere else.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from brats_utils.cases.case import CaseError
from brats_utils.labels import REGIONS
from brats_utils.paths import display_path, replacing

SEGMENTS = {
    "Enhancing tumor": ("EnhancingLesion", "ET"),
    "Non-enhancing tumor core with necrosis": ("NonEnhancingLesion", "TC"),
    "Edema": ("Edema", "WT"),
}
"""Label of each segment, its code, and the region whose colour it has; segment 1 is the first.

Source: DICOM PS3.16, CID 7169 `Brain Lesion Segmentation Type Without Necrosis`: (79654002, SCT, Edema), (C113842, NCIt,
Enhancing Lesion), (C81175, NCIt, Non-Enhancing Lesion). SNOMED CT has no concept of enhancement, so that the standard takes
those two from the NCI Thesaurus. CID 7168 has a code for necrosis alone, which our core is not.
"""

ALGORITHM, NOTE = "brats_utils SegResNet", "Not for clinical use"
"""What made the segments, and what everyone who opens them should know; a content description has at most 64 characters."""


def write_dicom_seg(path: Path, *, regions: np.ndarray, series: Sequence[Path]) -> Path:
    """Write regions as a DICOM segmentation with three segments that do not overlap; give its path.

    Args:
        path: file to write, whole or not at all.
        regions: (3, Z, Y, X) bool, TC, WT and ET on the voxels of the series: slice by slice in the order of `series`, then
            its rows and columns, as `sitk.GetArrayFromImage` of `sitk.ReadImage(series)` has them.
        series: the DICOM files of the scan, one a slice; of any transfer syntax, for only their headers are read.

    Raises:
        CaseError: `highdicom` is not installed, the scan is one enhanced file, the regions do not fit the slices, or the files lack what the standard asks
            of a scan.
    """
    highdicom = _load_highdicom()
    from pydicom import dcmread

    sources = [dcmread(file, stop_before_pixels=True) for file in series]
    if int(sources[0].get("NumberOfFrames") or 1) > 1:
        raise CaseError(
            f"{display_path(series[0])}: found an enhanced file of many frames, expected one file a slice to make a DICOM "
            "segmentation of. Use the labels in native/, or export the series as classic DICOM."
        )
    expected = (len(REGIONS), len(sources), int(sources[0].Rows), int(sources[0].Columns))
    if regions.shape != expected:
        raise CaseError(
            f"{display_path(path)}: found regions of shape {regions.shape}, expected {expected} as the slices in "
            f"{display_path(series[0].parent)} have."
        )
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=_order_segments(regions),
            segmentation_type="BINARY",
            segment_descriptions=_describe_segments(highdicom),
            series_instance_uid=highdicom.UID(),
            series_number=1000 + int(sources[0].get("SeriesNumber") or 0),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="brats_utils",
            manufacturer_model_name=ALGORITHM,
            software_versions=version("brats-utils"),
            device_serial_number="none",
            content_description=NOTE,
            content_label="TUMOR",
            series_description=f"Tumor segmentation. {NOTE}.",
        )
    except (AttributeError, KeyError, ValueError) as error:
        raise CaseError(
            f"{display_path(series[0].parent)}: no DICOM segmentation can be made of these files ({error}). "
            "Export the series again with all of its header."
        ) from None
    with replacing(path) as temporary:
        segmentation.save_as(temporary)
    return path


def _order_segments(regions: np.ndarray) -> np.ndarray:
    """Numbers of `SEGMENTS`, 0 for none, (Z, Y, X) uint8: from the outside in, as `labels.regions_to_labels`."""
    core, whole, enhancing = regions
    numbers = np.zeros(whole.shape, dtype=np.uint8)
    for inside, number in ((whole, 3), (core, 2), (enhancing, 1)):
        numbers[inside] = number
    return numbers


def _describe_segments(highdicom: Any) -> list[Any]:
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        ALGORITHM, family=codes.cid7162.ArtificialIntelligence, version=version("brats-utils")
    )
    colors = {region.name: bytes.fromhex(region.color[1:]) for region in REGIONS}
    descriptions = []
    for number, (label, (code, region)) in enumerate(SEGMENTS.items(), start=1):
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=getattr(codes.cid7169, code),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            anatomic_regions=[codes.SCT.Brain],
            display_color=highdicom.color.CIELabColor.from_rgb(*colors[region]),
        )
        description.SegmentDescription = f"{label}. {NOTE}."
        descriptions.append(description)
    return descriptions


@cache
def _load_highdicom() -> Any:
    try:
        import highdicom
        import highdicom.seg
    except ImportError as error:
        raise CaseError(
            f"Found no highdicom ({error}), expected it: it writes the DICOM segmentation. Install it with `pip install '.[raw]'`."
        ) from None
    return highdicom
