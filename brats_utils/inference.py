"""Prediction: sliding window, then regions and integer labels in the scan's own geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import ResampleToMatch
from nibabel.filebasedimages import ImageFileError
from torch import nn

from brats_utils.labels import CHANNELS, LabelSchema, regions_to_labels
from brats_utils.paths import display_path, replacing
from brats_utils.transforms import build_preprocessing

MIN_ENHANCING_ML = 1.0
"""Less enhancing tumour than this in a whole scan is taken for noise and becomes non-enhancing core.

Under the BraTS rule a single false voxel in a scan without ET costs the whole score. Source: the
post-processing of Isensee 2018 (No New-Net, arXiv 1809.10483); chosen on the phantom's validation cases.
"""


class ScanError(ValueError):
    """Scans that cannot be predicted on, with what was found and what to do."""


@dataclass(frozen=True)
class Prediction:
    """A prediction on the voxel grid of the scan it was made from.

    Attributes:
        probabilities: (3, X, Y, Z) float32, channels in the order of `REGIONS`; 0 outside the brain's box.
        labels: (X, Y, Z) uint8, nested by construction.
        regions: (3, X, Y, Z) bool, nested: ET lies in TC and TC in WT.
    """

    probabilities: torch.Tensor
    labels: torch.Tensor
    regions: torch.Tensor


def predict_logits(
    model: nn.Module, image: torch.Tensor, *, roi_size: tuple[int, int, int], precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Run the network over whole volumes, in overlapping windows weighted towards their centres.

    Args:
        model: network in evaluation mode.
        image: (B, 4, X, Y, Z) float32, z-scored, on the model's device.
        roi_size: window in voxels; one that is larger than the volume means a single, padded pass.
        precision: dtype for autocast; float32 means none.

    Returns:
        (B, 3, X, Y, Z) float32 logits; above 0 means a probability above .5.
    """
    with torch.inference_mode(), torch.autocast(image.device.type, precision, enabled=precision != torch.float32):
        logits: torch.Tensor = sliding_window_inference(  # type: ignore[assignment]  # one output, so no tuple
            image, roi_size, sw_batch_size=1, predictor=model, overlap=0.25, mode="gaussian"
        )
    return logits.float()


def predict_scan(
    model: nn.Module,
    scan: Path | Sequence[Path],
    *,
    spacing_mm: float,
    roi_size: tuple[int, int, int],
    schema: LabelSchema,
    precision: torch.dtype = torch.float32,
) -> Prediction:
    """Predict one patient, from files to labels on the files' own voxel grid.

    The affine of the preprocessed image leads back: the probabilities are resampled to the
    original grid in one step, whatever was cropped, turned or rescaled, and only then thresholded.

    Args:
        model: network in evaluation mode.
        scan: one 4D NIfTI, or four 3D ones in the order of `CHANNELS`.
        spacing_mm: voxel size the model was trained at.
        roi_size: sliding window in voxels.
        schema: numbering wanted for the labels.
        precision: dtype for autocast.

    Raises:
        ScanError: missing or unreadable file, differing grids, NaN or empty channel.
        ValueError: wrong number of channels.
    """
    reference = _check_scan(scan)
    files = [str(path) for path in scan] if isinstance(scan, Sequence) else str(scan)
    case = build_preprocessing(spacing_mm, schema=schema)({"image": files})
    device = next(model.parameters()).device
    image: MetaTensor = case["image"]
    logits = predict_logits(model, image.as_tensor()[None].to(device), roi_size=roi_size, precision=precision)[0].cpu()
    grid = MetaTensor(torch.zeros(1, *reference.shape[:3]), affine=torch.as_tensor(reference.affine))
    resample = ResampleToMatch(mode="bilinear", padding_mode="zeros")
    probabilities = torch.Tensor(resample(MetaTensor(logits.sigmoid(), affine=image.affine), img_dst=grid))
    voxel_ml = abs(float(np.linalg.det(reference.affine[:3, :3]))) / 1000
    regions = clean_regions(probabilities > 0.5, voxel_ml=voxel_ml)
    return Prediction(probabilities, regions_to_labels(regions, schema), regions)


def clean_regions(regions: torch.Tensor, *, voxel_ml: float) -> torch.Tensor:
    """Nest the regions, and drop the enhancing tumour where there is less than `MIN_ENHANCING_ML` of it.

    Args:
        regions: (3, X, Y, Z) bool, each thresholded by itself.
        voxel_ml: volume of a voxel in mL.

    Returns:
        (3, X, Y, Z) bool, ET within TC within WT. A voxel called ET but not WT still counts as tumour, and small ET as
        core that does not enhance. Source: region-based training in nnU-Net (Isensee 2021, arXiv 2011.00848).
    """
    core, whole, enhancing = regions
    core = core | enhancing
    if float(enhancing.sum()) * voxel_ml < MIN_ENHANCING_ML:
        enhancing = torch.zeros_like(enhancing)
    return torch.stack([core, whole | core, enhancing])


def save_labels(labels: torch.Tensor, path: Path, *, like: Path) -> Path:
    """Write integer labels as NIfTI with the affine, codes and units of the scan.

    Args:
        labels: (X, Y, Z) uint8.
        path: to write, `.nii.gz`; whole or not at all.
        like: the scan (3D or 4D) whose geometry the labels share.
    """
    source = nib.load(like)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_xyzt_units(*source.header.get_xyzt_units())
    image = nib.Nifti1Image(labels.numpy().astype(np.uint8), source.affine, header)
    image.set_qform(source.get_qform(), int(source.header["qform_code"]))
    image.set_sform(source.get_sform(), int(source.header["sform_code"]))
    with replacing(path) as temporary:
        nib.save(image, temporary)
    return path


def _check_scan(scan: Path | Sequence[Path]) -> nib.Nifti1Image:
    """Refuse unreadable or inconsistent files; return the one whose grid the prediction gets."""
    paths = list(scan) if isinstance(scan, Sequence) else [scan]
    if len(paths) not in (1, len(CHANNELS)):
        raise ScanError(f"Found {len(paths)} files, expected one 4D file or {len(CHANNELS)}: {', '.join(CHANNELS)}.")
    first: nib.Nifti1Image | None = None
    for path in paths:
        name = display_path(path)
        try:
            image = nib.load(path)
            values = np.asanyarray(image.dataobj)
        except FileNotFoundError:
            raise ScanError(f"{name}: not found.") from None
        except (ImageFileError, OSError, EOFError, ValueError) as error:
            raise ScanError(
                f"{name}: cannot be read ({error}). Expected a NIfTI file; copy or export it again."
            ) from None
        if not np.isfinite(values).all():
            raise ScanError(
                f"{name}: found NaN or infinite voxels, expected numbers. Export it again or set them to 0."
            )
        channels = values if values.ndim == 4 else values[..., None]
        constant = [c for c in range(channels.shape[-1]) if channels[..., c].min() == channels[..., c].max()]
        if constant:
            raise ScanError(f"{name}: channel {constant} holds one value everywhere. Check that the scan is there.")
        first = first or image
        if image.shape[:3] != first.shape[:3] or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise ScanError(
                f"{name}: found a grid of {image.shape[:3]} with another position or size than "
                f"{display_path(paths[0])} ({first.shape[:3]}). Resample all scans to one grid first."
            )
    assert first is not None
    return first
