"""What `test_together.py` starts: the recipe of the tutorial in one or several processes, and what came of it."""

import json
import socket
import sys
from pathlib import Path

from accelerate import PartialState, notebook_launcher
from accelerate.utils import gather_object

from brats_utils.commands.train import train
from brats_utils.config import load_config


def train_and_report(data: str, out_dir: str, batch_size: int) -> None:
    """Train for two epochs; the first process writes down how many there were."""
    # dropout draws other numbers in each process, and Dice over a batch is not the mean of Dice over its parts
    settings = {"dropout_prob": 0.0, "dice_loss_batch": False, "batch_size": batch_size}
    config = load_config("smoke", settings, data=data, output_dir=out_dir)
    best = train(config, out_dir=out_dir, wandb_mode="offline")
    processes = PartialState()
    ranks = gather_object([processes.process_index])
    if processes.is_main_process:
        report = {"world_size": processes.num_processes, "ranks": ranks, "best_dice": best}
        (Path(out_dir) / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    data, out_dir, batch_size, launcher = sys.argv[1:]
    if launcher == "notebook_launcher":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        notebook_launcher(train_and_report, (data, out_dir, int(batch_size)), num_processes=2, use_port=str(port))
    else:
        train_and_report(data, out_dir, int(batch_size))
