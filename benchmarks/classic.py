"""The training recipe of the classic W&B + MONAI tutorial, written anew, to be measured against.

Its choices are kept: every file is read and every transform done at each visit, whole-brain crops, one case a
step, float32, Adam, Dice without smoothing. Its labels are put right, because they are no question of speed.
"""

from collections.abc import Sequence
from functools import partial

import torch
from monai.data import Dataset
from monai.data.utils import list_data_collate
from monai.losses import DiceLoss
from monai.networks.nets import SegResNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    Spacingd,
    SpatialPadd,
)
from torch.utils.data import DataLoader

from brats_utils.cases.case import Case
from brats_utils.labels import LabelSchema, labels_to_regions

BOTH = ("image", "label")
ROI_SIZE_MM = (224, 224, 144)


def scale_roi(spacing_mm: float) -> tuple[int, ...]:
    """Express the classic crop in voxels of another size, as a multiple of 8."""
    return tuple(round(size / spacing_mm / 8) * 8 for size in ROI_SIZE_MM)


def build_transform(spacing_mm: float, roi_size: Sequence[int], *, schema: LabelSchema, random: bool) -> Compose:
    """Build everything from files to a patch (or to the whole scan where not random), in the classic order."""
    load = [
        LoadImaged(BOTH),
        EnsureChannelFirstd("image"),
        EnsureChannelFirstd("label"),
        EnsureTyped(BOTH),
        Lambdad("label", partial(labels_to_regions, schema=schema)),
        Orientationd(BOTH, axcodes="RAS", labels=None),
        Spacingd(BOTH, pixdim=(spacing_mm,) * 3, mode=("bilinear", "nearest")),
    ]
    normalise = NormalizeIntensityd("image", nonzero=True, channel_wise=True)
    if not random:
        return Compose([*load, normalise, EnsureTyped(BOTH, track_meta=False)])
    return Compose(
        [
            *load,
            RandSpatialCropd(BOTH, roi_size=roi_size, random_size=False),
            SpatialPadd(BOTH, spatial_size=roi_size),
            *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(3)),
            normalise,
            RandScaleIntensityd("image", factors=0.1, prob=1.0),
            RandShiftIntensityd("image", offsets=0.1, prob=1.0),
            EnsureTyped(BOTH, track_meta=False),
        ]
    )


def name_files(case: Case) -> dict[str, str]:
    """What MONAI's own reader takes of a case with a 4D file."""
    return {"image": str(case.images[0]), "label": str(case.label)}


def build_loader(
    cases: Sequence[Case], spacing_mm: float, roi_size: Sequence[int], *, schema: LabelSchema
) -> DataLoader:
    """Build the loader: nothing cached, one case a batch."""
    transform = build_transform(spacing_mm, roi_size, schema=schema, random=True)
    dataset = Dataset([name_files(case) for case in cases], transform)
    return DataLoader(dataset, batch_size=1, shuffle=True, collate_fn=list_data_collate)


class Trainer:
    """The classic optimiser step, on a given network."""

    def __init__(self, model: SegResNet, *, num_epochs: int) -> None:
        self.model = model.train()
        self.loss_fn = DiceLoss(smooth_nr=0, smooth_dr=1e-5, squared_pred=True, to_onehot_y=False, sigmoid=True)
        self.optimizer = torch.optim.Adam(model.parameters(), 1e-4, weight_decay=1e-5)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=num_epochs)

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """Train on one batch; the loss is read at once, as the classic loop does for its progress bar."""
        self.optimizer.zero_grad()
        loss = self.loss_fn(self.model(batch["image"]), batch["label"].float())
        loss.backward()
        self.optimizer.step()
        return loss.item()
