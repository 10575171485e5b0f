"""A training of seconds, on four cases of noise with a bright box in it."""

import torch
from monai.data import Dataset
from monai.transforms import Compose, RandFlipd

from brats_utils.loading import CaseDataset, build_eval_loader, build_train_loader
from brats_utils.model import RegionLoss, build_model, build_optimizer, build_schedule
from brats_utils.saving.resume import TrainingState
from brats_utils.training import train_epochs

ROI = (16, 16, 16)


def make_cases(count=4):
    generator = torch.Generator().manual_seed(0)
    cases = []
    for index in range(count):
        core = torch.zeros(ROI, dtype=torch.bool)
        core[4:10, 4:10, 4 : 8 + index] = True
        image = torch.randn(4, *ROI, generator=generator) + 3 * core
        cases.append({"case_id": f"case{index}", "image": image, "label": torch.stack([core] * 3)})
    return cases


def make_loaders(cases):
    random_part = Compose([RandFlipd(("image", "label"), prob=0.5, spatial_axis=0)])
    train = CaseDataset(Dataset(cases), random_part, seed=0)
    val = CaseDataset(Dataset(cases[:2]), Compose([]), seed=0)
    return build_train_loader(train, batch_size=2, num_workers=0, seed=0), build_eval_loader(val, num_workers=0)


def make_state(num_steps=8, learning_rate=5e-3, precision=torch.float32, layout=torch.contiguous_format):
    torch.manual_seed(0)
    model = build_model(init_filters=8, dropout_prob=0.2).to(memory_format=layout)
    optimizer = build_optimizer(model, name="adamw", learning_rate=learning_rate, weight_decay=0.0)
    loss = {"smooth_nr": 1e-5, "smooth_dr": 1e-5, "squared_pred": True, "to_onehot_y": False, "sigmoid": True}
    return TrainingState(
        model=model,
        loss_fn=RegionLoss(**loss, batch=True, bce_weight=1.0),
        optimizer=optimizer,
        schedule=build_schedule(optimizer, name="one_cycle", num_steps=num_steps),
        precision=precision,
    )


def run(state, cases, *, max_epochs=4, validation_intervals=2):
    return list(
        train_epochs(
            state,
            *make_loaders(cases),
            max_epochs=max_epochs,
            validation_intervals=validation_intervals,
            roi_size=ROI,
            spacing_mm=4.0,
            seed=0,
        )
    )
