"""A sweep with early stopping on three nodes: the runs, to the step, of one process."""

import subprocess
import sys
from pathlib import Path

import pytest
from three_nodes import ADDRESS

import unfool
from unfool.core.parallel.local import LocalExecutor
from unfool.training import SweepResult, read_config, sweep

pytestmark = pytest.mark.cluster

CONFIG = """
data: digits
trunk: "convnet:widths=4-8-8,stem=strided"
fraction: 0.1
stages:
- tasks: {labels: {task: labels, settings: {augmentation: none}}}
  epochs: 4
  batch_size: 30
  optimizer: sgd
  held_out: 40
  stop_attack: fgsm
"""
VARY = {"learning_rate": [0.001, 0.05, 0.1, 0.4], "seed": [0, 1]}


def facts(result):
    """What a sweep found, without its costs."""
    return [(run.values, run.folder, run.state, run.steps, run.score, run.curve) for run in result.runs]


def test_a_sweep_on_nodes_is_that_of_one_process(nodes, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    words = [f"{name}={','.join(map(str, values))}" for name, values in VARY.items()]
    command = [
        sys.executable,
        "-m",
        "unfool",
        "sweep",
        str(config),
        *(word for text in words for word in ("--vary", text)),
    ]
    command += ["--stop-early", "2", "--cluster", ADDRESS, "--out", str(tmp_path / "cluster")]
    source = Path(unfool.__file__).parents[1]
    asker = nodes.popen(command, source=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = asker.communicate(timeout=240)
    assert asker.returncode == 0, errors
    assert "the one of 4 settings that was trained to the end" in " ".join(out.split())
    executor = LocalExecutor(1)
    local = sweep(read_config(config), VARY, tmp_path / "local", stop_early=2, executor=executor)
    on_nodes = SweepResult.load(tmp_path / "cluster")
    assert facts(on_nodes) == facts(local)
    best = local.best.runs[0].folder
    logs = [(tmp_path / where / best / "metrics.csv").read_bytes() for where in ("local", "cluster")]
    assert logs[0] == logs[1]
