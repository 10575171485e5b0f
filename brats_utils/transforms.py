"""From files to tensors: the part that never changes (done once and cached) and the random part."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.transforms import (
    Compose,
    DeleteItemsd,
    EnsureTyped,
    GaussianSmooth,
    Lambda,
    Lambdad,
    MapTransform,
    NormalizeIntensityd,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SelectItemsd,
    Spacingd,
    SpatialPadd,
)
from monai.transforms.utils import map_binary_to_indices
from torch.nn.functional import interpolate

from brats_utils.bias_field import CorrectBiasd
from brats_utils.cases.case import Case
from brats_utils.cases.reader import read_case
from brats_utils.labels import LabelSchema, labels_to_regions

IMAGE_LABEL = ("image", "label")
CENTRES = ("tumour_voxels", "other_voxels")
MAX_CENTRES = 10_000
"""Voxels of either kind to keep as possible centres of patches; all of them would weigh as much as the scan."""


def explain_failure(error: BaseException) -> str:
    """Say what went wrong, without what MONAI wraps around the error of a transform."""
    while str(error).startswith("applying transform") and error.__cause__:
        error = error.__cause__
    return str(error) or type(error).__name__


def read_tensors(case: Case) -> dict[str, Any]:
    """Read a case with all its checks, as dictionary transforms take it: `case_id`, `image` and `label`."""
    return {"case_id": case.case_id, **read_case(case).tensors}


def find_centres(case: Mapping[str, Any]) -> dict[str, Any]:
    """Remember where patches may be centred: flat indices of tumour and of other voxels, spread evenly.

    Done once and cached, because searching a whole label for each patch costs more than the patch. Adds both keys of
    `CENTRES`, (at most `MAX_CENTRES`,) int64 each, to a case with a (1, X, Y, Z) label.
    """
    found = map_binary_to_indices(case["label"])
    thin = [voxels[torch.linspace(0, len(voxels) - 1, min(len(voxels), MAX_CENTRES)).long()] for voxels in found]
    return {**case, **dict(zip(CENTRES, thin, strict=True))}


class RandAppearanced(MapTransform, Randomizable):
    """Change how each channel of a patch looks, and not what is in it: as if another scanner had taken it.

    Every channel gets a contrast curve, a brightness and a bias field of its own, now and then blur or noise; now and
    then one is attenuated (modality dropout), or all have been scanned in thick slices. Shapes, and what is brighter
    than what, are left to learn. In the spirit of SynthSeg (Billot 2023, arXiv 2107.09559).
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change (C, X, Y, Z) images, z-scored; the background stays 0. Gives float32."""
        return {**data, **{key: self._change(data[key].float()) for key in self.key_iterator(data)}}

    def _change(self, image: torch.Tensor) -> torch.Tensor:
        tissue = image != 0
        place = ((image + 3) / 9).clamp_(0, 1)  # z-scores lie between -3 and 6
        image = image + self._draw(6, image) * place * (1 - place)  # the ends stay, the middle bends
        lattice = torch.as_tensor(self.R.uniform(-0.33, 0.33, (len(image), 3, 3, 3)), dtype=torch.float32)
        image = image * self._draw(0.4, image).exp() + (self._draw(0.6, image) + _stretch(lattice, image.shape[1:]))
        if self.R.rand() < 0.3:
            image = _thicken(image, self.R.uniform(1.5, 3.5), axis=int(self.R.choice(3, p=(0.15, 0.15, 0.7))))
        for channel, (blurred, noisy, attenuated) in enumerate(self.R.rand(len(image), 3)):
            if blurred < 0.25:
                sigma = float(self.R.uniform(0.3, 0.9))  # voxels
                image[channel] = GaussianSmooth(sigma)(image[channel : channel + 1])[0]
            if noisy < 0.4:
                generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
                noise = torch.randn(image.shape[1:], generator=generator)
                image[channel] += float(self.R.uniform(0, 0.4)) * noise
            if attenuated < 0.08:
                image[channel] *= float(self.R.uniform(0, 0.5))
        return torch.where(tissue, image, 0.0)

    def _draw(self, most: float, image: torch.Tensor) -> torch.Tensor:
        """One number per channel, between minus and plus `most`: (C, 1, 1, 1)."""
        return torch.as_tensor(self.R.uniform(-most, most, (len(image), 1, 1, 1)), dtype=torch.float32)


def _thicken(image: torch.Tensor, factor: float, *, axis: int) -> torch.Tensor:
    """Average (C, X, Y, Z) over slices `factor` voxels thick, and interpolate back, as clinics' scans are in BraTS-Africa."""
    size = image.shape[axis + 1]
    few = max(round(size / factor), 2)
    thick = interpolate(torch.eye(size)[None], size=few, mode="area")
    back = interpolate(torch.eye(few)[None], size=size, mode="linear")
    return (image.movedim(axis + 1, -1) @ (thick[0] @ back[0])).movedim(-1, axis + 1)


def _stretch(lattice: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Interpolate (C, x, y, z) linearly to (C, *shape); axis by axis, which is ten times faster than torch's own."""
    x, y, z = (
        interpolate(torch.eye(few)[None], size=many, mode="linear", align_corners=True)[0]
        for few, many in zip(lattice.shape[1:], shape, strict=True)
    )
    return torch.einsum("cijk,ix,jy,kz->cxyz", lattice, x, y, z)


def build_resampling(spacing_mm: float) -> Compose:
    """Build the part of `build_preprocessing` that changes the grid and not the grey values."""
    return Compose(
        [
            EnsureTyped(IMAGE_LABEL, dtype=torch.float32, allow_missing_keys=True),
            Orientationd(IMAGE_LABEL, axcodes="RAS", labels=None, allow_missing_keys=True),
            Spacingd(IMAGE_LABEL, pixdim=(spacing_mm,) * 3, mode=("bilinear", "nearest"), allow_missing_keys=True),
        ]
    )


def build_normalisation() -> Compose:
    """Build the z-score of each channel over its non-zero voxels; it may write into the image that it is given."""
    return Compose([NormalizeIntensityd("image", nonzero=True, channel_wise=True)])


def build_preprocessing(spacing_mm: float, *, bias_correction: bool = False) -> Compose:
    """Build the deterministic part: orient to RAS, resample to isotropic voxels, z-score.

    The z-score comes before any random crop, so that training, validation and prediction see the
    same intensities and the outcome can be cached. With `bias_correction`, `CorrectBiasd` comes before it.

    Returns:
        A transform from `reader.Scan.tensors` (label may be missing) to MetaTensors
        `image` (4, X, Y, Z) float32, z-scored per channel over its non-zero voxels, 0 in the background, and
        `label` (1, X, Y, Z) float32 integers of the schema. Their affines know the way back.
    """
    corrections = [CorrectBiasd(spacing_mm)] if bias_correction else []
    return Compose([*build_resampling(spacing_mm).transforms, *corrections, *build_normalisation().transforms])


def build_cached_transform(spacing_mm: float, *, bias_correction: bool = False) -> Compose:
    """Build `read_tensors` and `build_preprocessing`, then a compact form for caching: float16 image, uint8 label, no metadata.

    With it come the voxels that training patches are centred on, see `find_centres`.
    """
    compact = [
        EnsureTyped(IMAGE_LABEL, track_meta=False, dtype=(torch.float16, torch.uint8)),
        Lambda(find_centres),
        SelectItemsd(("case_id", *IMAGE_LABEL, *CENTRES)),
    ]
    # a bare function instead of a `Lambda` would be the first step that `CacheDataset` does not keep
    preprocessing = build_preprocessing(spacing_mm, bias_correction=bias_correction)
    return Compose([Lambda(read_tensors), *preprocessing.transforms, *compact])


def build_train_transform(roi_size: tuple[int, int, int], *, schema: LabelSchema, appearance: str) -> Compose:
    """Build the random part: crop first, so that all else touches only the patch.

    One patch in two has a tumour voxel at its centre, the other a voxel without.

    Args:
        roi_size: patch size in voxels.
        schema: convention of the cached labels.
        appearance: `strong` for `RandAppearanced`; `classic` for a factor and an offset of up to .1 around 1 and 0, the
            same for all voxels and channels.

    Returns:
        A transform from a cached case to a list of one patch (`DataLoader` flattens it) with
        `image` (4, *roi_size) float32 and `label` (3, *roi_size) bool.
    """
    classic = (
        EnsureTyped("image", dtype=torch.float32),
        RandScaleIntensityd("image", factors=0.1, prob=1.0),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    )
    return Compose(
        [
            RandCropByPosNegLabeld(
                IMAGE_LABEL, "label", spatial_size=roi_size, pos=1, neg=1, num_samples=1, allow_smaller=True,
                fg_indices_key=CENTRES[0], bg_indices_key=CENTRES[1],
            ),
            DeleteItemsd(CENTRES),
            SpatialPadd(IMAGE_LABEL, spatial_size=roi_size),
            *(RandFlipd(IMAGE_LABEL, prob=0.5, spatial_axis=axis) for axis in range(3)),  # while it is small
            Lambdad("label", partial(labels_to_regions, schema=schema), track_meta=False),
            *(classic if appearance == "classic" else [RandAppearanced("image")]),  # both give float32
        ]
    )  # fmt: skip


def build_eval_transform(schema: LabelSchema) -> Compose:
    """Build the counterpart of `build_train_transform` for validation: whole volume, nothing random."""
    return Compose(
        [
            DeleteItemsd(CENTRES),
            Lambdad("label", partial(labels_to_regions, schema=schema), track_meta=False),
            EnsureTyped("image", dtype=torch.float32),
        ]
    )
