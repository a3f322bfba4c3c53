"""Two processes that share a batch give every task the losses and gradients that one process gives it."""

from pathlib import Path

import pytest
import torch
from programs import run_program
from task_cases import CASES

from unfool.models.weights import load_tensors
from unfool.training.adversarial.methods import ADVERSARIAL_METHODS

BOUND = 1e-10
"""In float64, as a share of a tensor's largest value."""
NAMES = [f"task {number}" for number in range(len(CASES))] + [f"method {name}" for name in ADVERSARIAL_METHODS]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("two processes")
    done = run_program(Path(__file__).with_name("two_processes.py"), out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("name", NAMES, ids=[f"{task} {values}" for task, values in CASES] + list(ADVERSARIAL_METHODS))
def test_losses_gradients_and_memory_over_two_processes_are_those_of_one(results, name):
    alone, first, second = (
        load_tensors(results / name / f"{share}.safetensors")[0] for share in ("0 of 1", "0 of 2", "1 of 2")
    )
    assert alone.keys() == first.keys() == second.keys()
    assert any(key.startswith("gradient network.trunk") for key in alone)
    assert any(key.startswith("gradient network.heads") for key in alone)
    for key, value in alone.items():
        shares = [torch.cat([first[key], second[key]])] if key.startswith("loss ") else [first[key], second[key]]
        for share in shares:
            off = float((share - value).abs().max()) if value.numel() else 0.0
            # Against zeros too: the gradient of a bias before batch norm is nothing but rounding.
            assert off <= BOUND * max(float(value.abs().max()) if value.numel() else 0.0, 0.01), (key, off)
