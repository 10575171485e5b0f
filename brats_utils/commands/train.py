"""The training of notebook 03 as one function, for the command line, for `torchrun` and for `notebook_launcher`."""

import os
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from monai.utils import set_determinism
from torch.utils.data import DataLoader

from brats_utils.artifacts import log_checkpoint, log_dataset
from brats_utils.cases.layouts import find_cases
from brats_utils.cases.precheck import check_cases
from brats_utils.cases.split import prepare_dataset, split_cases, take_fold
from brats_utils.config import Config
from brats_utils.labels import SCHEMAS, LabelSchema
from brats_utils.loading import build_dataset, build_eval_loader, build_train_loader, choose_cache
from brats_utils.model import (
    RegionLoss,
    build_model,
    build_optimizer,
    build_schedule,
    choose_device,
    choose_layout,
    choose_precision,
)
from brats_utils.paths import resolve_path, write_text
from brats_utils.saving.resume import TrainingState, load_progress, load_start, save_on_interrupt, save_progress
from brats_utils.tracking import alert_divergence, finish_run, resolve_mode, start_run
from brats_utils.training import train_epochs
from brats_utils.transforms import build_cached_transform, build_eval_transform, build_train_transform


def train(config: Config, *, out_dir: str, wandb_mode: str = "auto", resume: bool = False) -> float:
    """Train as notebook 03 does, alone or as one of several processes; the first of them logs and writes to `out_dir`.

    One fold of a cross-validation writes to a folder of its own in it, `fold-K`; all five share the split and the cache.

    `wandb_mode` is one of `tracking.resolve_mode`; to resume is to go on from the last checkpoint in `out_dir`. Gives
    the best validation mean Dice.
    """
    processes = PartialState(cpu=choose_device().type == "cpu")
    shared = resolve_path(out_dir)
    folder = shared / f"fold-{config.fold}" if config.fold else shared
    recorded = config.model_dump(mode="json")
    set_determinism(config.seed if config.deterministic else None)
    torch.backends.cudnn.benchmark = not config.deterministic
    # one makes the files, the others find them
    with processes.main_process_first(), processes.local_main_process_first():
        train_loader, val_loader, schema = build_loaders(config, shared, processes=processes)
    recorded["label_schema"] = schema.name
    state = build_state(config, num_steps=config.max_train_epochs * len(train_loader))
    checkpoints = folder / "checkpoints"
    run_id = None
    if resume:
        last = load_progress(checkpoints, config=recorded)
        state.restore(last)
        run_id = last.run_id
    mode = resolve_mode(wandb_mode) if processes.is_main_process else "disabled"
    run = start_run(job_type="train", mode=mode, output_dir=folder, config=recorded, run_id=run_id)
    if processes.is_main_process:
        log_dataset(run, resolve_path(config.dataset_dir), split_path=shared / "split.json")
    with alert_divergence(run), save_on_interrupt(state, checkpoints, config=recorded, run_id=run.id):
        for result in train_epochs(
            state,
            train_loader,
            val_loader,
            max_epochs=config.max_train_epochs,
            validation_intervals=config.validation_intervals,
            roi_size=config.inference_roi_size,
            spacing_mm=config.spacing_mm,
            seed=config.seed,
        ):
            for row in result.metric_rows():
                run.log(row)
            path = save_progress(state, checkpoints, config=recorded, run_id=run.id, is_best=result.is_best)
            if processes.is_main_process:
                write_text(folder / "history.csv", pd.DataFrame(state.history).to_csv(index=False))
            if result.dice is not None:
                log_checkpoint(run, path, epoch=result.epoch, mean_dice=result.mean_dice, is_best=result.is_best)
            processes.print(result, flush=True)
    finish_run(run)
    return state.best_dice


def build_loaders(
    config: Config, out_dir: Path, *, processes: PartialState
) -> tuple[DataLoader, DataLoader, LabelSchema]:
    """Build the loaders of training patches and of validation cases, of this process's share; and the label convention.

    `out_dir` gets the split and the disk cache.
    """
    dataset_dir = prepare_dataset(
        resolve_path(config.dataset_dir), spacing_mm=config.spacing_mm, num_cases=config.phantom_cases, seed=config.seed
    )
    cases = find_cases(dataset_dir, schema=SCHEMAS.get(config.label_schema))
    (schema,) = {case.label_schema for case in cases if case.label_schema}
    check_cases(cases, remembered=out_dir / "cache" / "checked.json")
    parts = split_cases(cases, out_dir / "split.json", seed=config.seed)
    if config.fold:
        parts = take_fold(parts, out_dir / "split.json", fold=config.fold)
    prepare = partial(
        build_dataset,
        cached=build_cached_transform(config.spacing_mm, bias_correction=config.bias_correction),
        cache=choose_cache(
            config.cache,
            len(parts["train"]) + len(parts["val"]),
            spacing_mm=config.spacing_mm,
            processes=int(os.environ.get("LOCAL_WORLD_SIZE", processes.num_processes)),
        ),
        cache_dir=out_dir / "cache",
        seed=config.seed,
    )
    random_part = build_train_transform(config.roi_size, schema=schema, appearance=config.appearance)
    train_set = prepare(parts["train"], on_the_fly=random_part)
    val_set = prepare(parts["val"], on_the_fly=build_eval_transform(schema))
    share = {"rank": processes.process_index, "world_size": processes.num_processes, "num_workers": config.num_workers}
    return (
        build_train_loader(train_set, batch_size=config.batch_size, seed=config.seed, **share),
        build_eval_loader(val_set, **share),
        schema,
    )


def build_state(config: Config, *, num_steps: int) -> TrainingState:
    """Build network, loss, optimiser and schedule, before the first step of `num_steps` in the whole training."""
    device = choose_device()
    precision = choose_precision(device)
    if config.deterministic:
        torch.manual_seed(config.seed)  # the same initial weights, whatever was drawn before
    model = build_model(init_filters=config.init_filters, dropout_prob=config.dropout_prob)
    load_start(model, config.init, init_filters=config.init_filters, spacing_mm=config.spacing_mm)
    model = model.to(device, memory_format=choose_layout(device, precision))  # type: ignore[call-overload]
    optimizer = build_optimizer(
        model, name=config.optimizer, learning_rate=config.initial_learning_rate, weight_decay=config.weight_decay
    )
    return TrainingState(
        model=model,
        loss_fn=RegionLoss(
            smooth_nr=config.dice_loss_smoothen_numerator,
            smooth_dr=config.dice_loss_smoothen_denominator,
            squared_pred=config.dice_loss_squared_prediction,
            to_onehot_y=config.dice_loss_target_onehot,
            sigmoid=config.dice_loss_apply_sigmoid,
            batch=config.dice_loss_batch,
            bce_weight=config.bce_weight,
        ),
        optimizer=optimizer,
        schedule=build_schedule(optimizer, name=config.schedule, num_steps=num_steps),
        precision=precision,
    )
