"""The connection to the W&B server: whether there is one, with a key that is valid, and the client's own process."""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

import wandb

LOGIN_SECONDS = 60
LOG_IN = """
import inspect, os, wandb
try:
    if "prompt" in inspect.signature(wandb.login).parameters:
        found = wandb.login(prompt=False, verify=True)
    else:  # wandb 0.28, as Colab ships it
        found = bool(wandb.api.api_key) and wandb.login(verify=True)
    answer, code = ("", 0) if found else ("no key", 1)
except Exception as error:
    answer, code = type(error).__name__, 1
print(answer, flush=True)
os._exit(code)  # without waiting for W&B's service
"""
"""Logs in with a key that is there already, verified; never prompts."""


def find_obstacle() -> str:
    """Say what keeps runs from the server and what to do about it; an empty text if nothing does.

    The key is verified in a process of its own, because W&B's service keeps the settings and folders it starts with,
    and without a network may take minutes to end.
    """
    if wandb.run is not None:  # beside an open run W&B does not log in
        return "" if is_online(wandb.run) else "a run without connection is still open; finish it first"
    with TemporaryDirectory() as folder:
        here = {**os.environ, "WANDB_MODE": "online", "WANDB_CACHE_DIR": folder, "WANDB_DATA_DIR": folder}
        command = [sys.executable, "-c", LOG_IN]
        try:
            check = subprocess.run(command, env=here, capture_output=True, text=True, timeout=LOGIN_SECONDS)
        except subprocess.TimeoutExpired:
            return f"the server did not answer in {LOGIN_SECONDS} s; check the network"
    if check.returncode == 0:
        return ""
    if check.stdout.strip() == "no key":
        return "no key found; `wandb login` or WANDB_API_KEY sets one"
    return (
        f"the key was not accepted or the server not reached ({check.stdout.strip() or 'W&B failed'}); "
        "check the network, or renew the key with `wandb login --relogin`"
    )


def end_service() -> None:
    """End W&B's service, which keeps the settings and folders it was started with; the next call starts another."""
    wandb.teardown()
    if hasattr(wandb, "api"):
        wandb.api = type(wandb.api)()  # in wandb 0.28 it would go on talking to the service that has ended


def is_online(run: wandb.Run) -> bool:
    """Tell whether a run is recorded on the server."""
    return not (run.offline or run.disabled)
