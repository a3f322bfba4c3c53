"""``unfool evaluate`` under torchrun: two processes print and write what one does."""

import json
import os
import subprocess
import sys

import pytest

COMMON = ["--attacks", "autoattack:steps=4,queries=20", "--threat", "linf:4/255", "--images", "40", "--json"]
TIMES = {"cost", "seconds", "cpu_seconds"}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "UNFOOL_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment.pop("UNFOOL_DATA_DIR", None)
    train = ["train", "--data", "digits", "--trunk", "convnet", "--epochs", "1", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "unfool", *train], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder, environment


def run(folder, environment, launcher, *more):
    command = [sys.executable, "-m", *launcher, "unfool", "evaluate", "run", *COMMON, *more]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_two_processes_print_and_write_what_one_does(small_run):
    folder, environment = small_run
    alone = run(folder, environment, [], "--batch-size", "11", "--out", "one.json")
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611", "-m"]
    both = run(folder, environment, launcher, "--batch-size", "11", "--out", "two.json")
    assert len(both.strip().splitlines()) == 1
    assert without_times(json.loads(both)) == without_times(json.loads(alone))
    written = [json.loads((folder / name).read_text()) for name in ("one.json", "two.json")]
    assert without_times(written[0]) == without_times(written[1])
    assert not (folder / "two.state").exists()
