"""nnU-Net v2 for a given wall time, then its predictions. `benchmarks.peers` starts this in an environment of its own.

Everything is nnU-Net's default for a data set with regions: the plan, its network, augmentation, loss and optimiser, and
mirroring when it predicts. Changed are the end, which is a time and no number of epochs, and with it the learning rate,
which falls as it does there, by the share of the time that has passed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

START = time.monotonic()


def main() -> None:
    """Plan, prepare, train until the time is up, predict; leave `times.json` beside the predictions."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    budget, out_dir = float(sys.argv[1]), Path(sys.argv[2])
    raw, preprocessed = (Path(os.environ[f"nnUNet_{kind}"]) / "Dataset001_Phantom" for kind in ("raw", "preprocessed"))
    torch.set_num_threads(os.cpu_count() or 1)  # as its own command does on a CPU
    program = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    subprocess.run([program, "-d", "1", "-c", "3d_fullres", "-np", str(os.cpu_count())], check=True)
    times = {"prepare": time.monotonic() - START}

    plans, dataset = (json.loads((preprocessed / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    trainer = nnUNetTrainer(plans | {"continue_training": False}, "3d_fullres", "all", dataset, torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    steps = 0
    while (share := (time.monotonic() - START) / budget) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** 0.9
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        steps += 1
        print(f"step {steps}, {time.monotonic() - START:.0f} s, loss {loss:.3f}", flush=True)
    trainer.on_train_end()
    times |= {"train": time.monotonic() - START, "steps": steps}

    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        dataset,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    predictor.predict_from_files(
        str(raw / "imagesTs"), str(out_dir), num_processes_preprocessing=1, num_processes_segmentation_export=1
    )
    times["predict"] = time.monotonic() - START
    (out_dir / "times.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
