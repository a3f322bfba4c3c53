"""``unfool evaluate`` under torchrun: two processes print and write what one does."""

import json
import os
import subprocess
import sys

import pytest
import torch

from unfool import load_set
from unfool.core.parallel.local import LocalExecutor

OPTIONS = ("--attacks", "autoattack:steps=4,queries=20", "--threat", "linf:4/255", "--images", "40", "--json")
TIMES = {"run", "cost", "seconds", "cpu_seconds"}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_two_processes_print_and_write_what_one_does(cli, run, tmp_path):
    command = ["evaluate", str(run), *OPTIONS, "--batch-size", "11", "--out"]
    alone = cli(*command, tmp_path / "one.json")
    assert alone.code == 0, alone.err
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611", "-m", "unfool"]
    both = subprocess.run(
        [sys.executable, "-m", *launcher, *command, str(tmp_path / "two.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert both.returncode == 0, both.stderr[-2000:]
    assert len(both.stdout.strip().splitlines()) == 1
    assert without_times(json.loads(both.stdout)) == without_times(json.loads(alone.out))
    written = [json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json")]
    assert without_times(written[0]) == without_times(written[1])
    assert not (tmp_path / "two.state").exists()


def test_workers_print_and_write_what_one_process_does(cli, run, tmp_path):
    command = ["evaluate", str(run), *OPTIONS, "--batch-size", "11", "--out"]
    alone = cli(*command, tmp_path / "one.json")
    both = cli(*command, tmp_path / "two.json", "--workers", "2")
    assert both.code == 0, both.err
    assert without_times(json.loads(both.out)) == without_times(json.loads(alone.out))
    assert {path.name for path in tmp_path.iterdir()} == {"one.json", "two.json"}


@pytest.mark.parametrize("options", [("--json",), ()])
def test_a_set_that_workers_craft_is_that_of_one_process(cli, run, tmp_path, monkeypatch, options):
    # Workers one after the other in this process: the CPUs are few.
    monkeypatch.setattr("unfool.core.parallel.executor.LocalExecutor", lambda workers, device: LocalExecutor(1, device))
    command = [
        "attack",
        str(run),
        "--attack",
        "pgd-2",
        "--norm",
        "all",
        "--images",
        "24",
        "--batch-size",
        "7",
        *options,
    ]
    alone = cli(*command, "--out", tmp_path / "one.safetensors")
    both = cli(*command, "--out", tmp_path / "two.safetensors", "--workers", "2")
    assert (alone.code, both.code) == (0, 0), both.err
    for norm in ("linf", "l2", "l1"):
        one, two = (load_set(tmp_path / f"{name}-{norm}.safetensors") for name in ("one", "two"))
        assert torch.equal(one.images, two.images)
        assert one.model_images == two.model_images
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "0"), "give at least 1"),
        (("--workers", "2", "--cluster", "auto"), "leave it out beside --cluster"),
        (("--workers", "2", "--adaptive", "--defense", "reverse:task=rotation"), "not shared out"),
        (("--gpu-share", "0.5"), "is for --cluster"),
    ],
)
def test_workers_that_do_not_go_are_refused_in_one_line(cli, run, options, words):
    refused = cli("evaluate", str(run), "--attack", "fgsm", "--images", "10", *options)
    assert refused.code == 2, refused.err
    assert words in refused.err
    assert "Traceback" not in refused.err
