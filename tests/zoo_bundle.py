"""A bundle with random weights in the layout of MONAI's model zoo, and a stand-in for its server."""

import functools
import hashlib
import json
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import torch

from brats_utils.model import build_model
from brats_utils.saving import zoo

TO_LABELS = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
LICENCE = "Apache License\n Version 2.0, January 2004\n"


def describe(*, filters, window, spacing_mm):
    """The parts of configs/inference.json and configs/metadata.json that say how the network is used."""
    inference = {
        "imports": ["$import glob", "$import numpy", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "device": "$torch.device('cpu')",
        "network_def": {
            "_target_": "SegResNet",
            **{"blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1], "init_filters": filters},
            **{"in_channels": 4, "out_channels": 3, "dropout_prob": 0.2},
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key", "image_only": False},
                {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True, "channel_wise": True},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": list(window), "sw_batch_size": 1, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
                {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
                {"_target_": "Lambdad", "keys": "pred", "func": TO_LABELS},
            ],
        },
    }
    edge = f"{spacing_mm:g}"
    metadata = {
        "version": "0.5.2",
        "monai_version": "1.4.0",
        "name": "BraTS MRI segmentation",
        "authors": "MONAI team",
        "data_source": "https://www.med.upenn.edu/sbia/brats2018/data.html",
        "image_classes": f"4 channel data, T1c, T1, T2, FLAIR at {edge}x{edge}x{edge} mm",
        "label_classes": "3 channel data, channel 0 for Tumor core, channel 1 for Whole tumor, channel 2 for Enhancing tumor",
        "eval_metrics": {"val_mean_dice": 0.8518},
        "network_data_format": {
            "inputs": {"image": {"channel_def": {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}}},
            "outputs": {"pred": {"channel_def": {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}}},
        },
    }
    return inference, metadata


def write_bundle(folder, *, filters=8, window=(64, 64, 64), spacing_mm=4.0):
    """Write a folder that holds a bundle; the network is drawn at random."""
    inference, metadata = describe(filters=filters, window=window, spacing_mm=spacing_mm)
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/inference.json").write_text(json.dumps(inference))
    (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    (folder / "LICENSE").write_text(LICENCE)
    torch.manual_seed(0)
    torch.save(build_model(init_filters=filters, dropout_prob=0.2).state_dict(), folder / "models/model.pt")
    return folder


def change(folder, name, *path, value):
    """Change one value in a file of the configs; the path leads to it."""
    file = folder / f"configs/{name}.json"
    content = json.loads(file.read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.asked.append(self.path)


@contextmanager
def serve_zoo(monkeypatch, folder, **settings):
    """Answer as the zoo does, with a random network; the cache is a folder of its own. Gives the server."""
    source = write_bundle(folder / "made" / zoo.NAME, **settings)
    archive = shutil.make_archive(folder / "served/bundle", "zip", source.parent, source.name)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=folder / "served"))
    server.asked = []
    with open(archive, "rb") as file:
        monkeypatch.setattr(zoo, "ARCHIVE_SHA1", hashlib.file_digest(file, "sha1").hexdigest())
    weights = (source / "models/model.pt").read_bytes()
    monkeypatch.setattr(zoo, "WEIGHTS_MD5", hashlib.md5(weights).hexdigest())
    monkeypatch.setattr(zoo, "URL", f"http://127.0.0.1:{server.server_port}/bundle.zip")
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
