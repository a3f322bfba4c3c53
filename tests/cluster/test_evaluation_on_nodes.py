"""Evaluations and attacks on three nodes that share no disk: what they print and write is that of one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from three_nodes import ADDRESS

import unfool
from unfool import load_set

pytestmark = pytest.mark.cluster

SOURCE = Path(unfool.__file__).parents[1]
TIMES = {"run", "cost", "seconds", "cpu_seconds", "out"}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def both(nodes, tmp_path):
    """Run a command on the cluster, and in one process; give what both print."""

    def ran(*words):
        command = [sys.executable, "-m", "unfool", *map(str, words), "--json"]
        told = {}
        for name, more in (("cluster", ("--cluster", ADDRESS)), ("alone", ())):
            (tmp_path / name).mkdir(exist_ok=True)
            process = nodes.popen(
                [*command, *more], source=SOURCE, cwd=tmp_path / name, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors
            told[name] = without_times(json.loads(out))
        return told

    return ran


@pytest.fixture
def mine(tmp_path):
    """A classifier in a file of its own, with its weights: both must travel."""
    file, weights = tmp_path / "mine.py", tmp_path / "mine.safetensors"
    file.write_text(
        "import torch\n\n\ndef build():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.ReLU(), torch.nn.Flatten(),\n"
        "                               torch.nn.Linear(64, 10))\n"
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 8, 8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 10)
    )
    import safetensors.torch

    safetensors.torch.save_file(model.state_dict(), weights)
    return ["--model", f"{file}:build", "--weights", weights, "--data", "digits", "--images", "24", "--batch-size", "8"]


def test_a_classifier_of_ones_own_is_evaluated_and_attacked_there_as_here(both, mine, tmp_path):
    told = both("evaluate", *mine, "--attack", "pgd-2", "--attack", "fgsm", "--no-reliability")
    assert told["cluster"] == told["alone"]
    told = both("attack", *mine, "--attack", "pgd-2", "--out", "set.safetensors")
    assert told["cluster"] == told["alone"]
    one, other = (load_set(tmp_path / name / "set.safetensors") for name in told)
    assert torch.equal(one.images, other.images)
    assert one.crafted_on == other.crafted_on
    assert not list((tmp_path / "cluster").glob("*.state"))
