"""``unfool evaluate`` under torchrun: two processes print and write what one does."""

import json
import os
import subprocess
import sys

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
