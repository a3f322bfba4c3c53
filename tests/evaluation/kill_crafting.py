"""Run as a program: crafts once whole, and again under kill -9 at odd moments until it is done; compares the bits."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from tiny_systems import make_network, make_table

from unfool.attacks import ProxySettings, make_attack
from unfool.evaluation import craft, load_set, save_set
from unfool.evaluation.crafting import batches, plan

DEATHS = 5
ATTACK = "autoattack:steps=8,queries=120"
TENSORS = ("images", "labels", "ids", "distances", "zero_gradient", "fooled_by_part")


def crafted(folder):
    network, table = make_network(), make_table(24)
    return craft(
        network,
        table,
        make_attack(ATTACK, "linf:8/255"),
        folder=folder,
        proxy=ProxySettings(dtype="bf16"),
    )


def child(folder, out):
    """Fork a process that crafts and saves."""
    process = os.fork()
    if process:
        return process
    try:
        save_set(crafted(folder), out)
        os._exit(0)
    finally:
        os._exit(1)


def main(out):
    torch.set_num_threads(1)
    # Three pieces, of two batches each.
    plan.fitting, batches.PIECES = lambda model, image: 5, 2
    started = time.monotonic()
    process = child(out / "whole", out / "whole.safetensors")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    whole = time.monotonic() - started
    deaths, turn = 0, 0
    while True:
        process = child(out / "killed", out / "killed.safetensors")
        if deaths < DEATHS:
            time.sleep(whole * (0.15 + 0.13 * (turn % 3)))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        turn += 1
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        deaths += 1
    first, second = load_set(out / "whole.safetensors"), load_set(out / "killed.safetensors")
    for name in TENSORS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.model_images == second.model_images
    print(f"{deaths} deaths, {int((first.fooled_by_part >= 0).sum())} fooled of {len(first)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
