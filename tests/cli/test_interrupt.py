"""Ctrl-C while training: one line, exit code 130, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time

from unfool import load_network


def started(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "unfool", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_ctrl_c_while_training_and_resume(cli, tiny, tmp_path):
    out = tmp_path / "run"
    long = [*tiny, "--epochs", "20", "--out", out]
    process = started(*long)
    deadline = time.monotonic() + 120
    log = out / "metrics.csv"
    while not (log.is_file() and len(log.read_text().splitlines()) > 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert told == ""
    assert complaint == "unfool: interrupted; run the same command again to resume\n"
    assert not (out / "weights.safetensors").exists()
    assert not list(tmp_path.rglob("*.part"))
    again = cli(*long)
    assert again.code == 0, again.err
    load_network(out / "weights.safetensors")
    assert not list(tmp_path.rglob("*.part"))
    assert not (out / "checkpoint").exists()
