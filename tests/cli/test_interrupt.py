"""Ctrl-C and worse: one line where there is time for it, and the same command goes on where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from unfool import load_network


def started(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "unfool", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        # Tests that run in a shell's background are deaf to Ctrl-C, and so would be what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_while_training_and_resume(cli, tiny, tmp_path):
    out = tmp_path / "run"
    long = [*tiny, "--epochs", "8", "--out", out]
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


def test_kill_while_evaluating_and_resume(cli, run, tmp_path):
    attacks = ("--attacks", "pgd-60:restarts=3", "--attacks", "apgd-ce:steps=30")
    same = (
        "evaluate",
        run,
        *attacks,
        "--threat",
        "linf:2/255",
        "--images",
        "24",
        "--batch-size",
        "4",
        "--no-reliability",
    )
    out, state = tmp_path / "killed.json", tmp_path / "killed.state"
    process = started(*same, "--out", out)
    deadline = time.monotonic() + 300
    while len(list(state.glob("*/batch-*.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in state.glob("*/batch-*.safetensors")}
    assert len(kept) < 10
    resumed = cli(*same, "--out", out, "--state", state)
    assert resumed.code == 0, resumed.err
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert cli(*same, "--out", tmp_path / "whole.json").code == 0
    assert not (tmp_path / "whole.state").exists()
    first, second = (json.loads(path.read_text())["rows"] for path in (out, tmp_path / "whole.json"))
    for row in (*first, *second):
        row["cost"].pop("cpu_seconds")
    assert first == second


def killed(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--json",), "nothing was kept; give --out FILE or --state DIR, and run the command again"),
        (("--out", "-"), "nothing was kept; give --out FILE or --state DIR, and run the command again"),
        (("--out", "here.json"), "run the same command again to resume"),
        (("--state", "here"), "run the same command again to resume"),
    ],
)
def test_ctrl_c_says_whether_anything_was_kept(cli, run, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unfool.cli.run_evaluation.evaluate", killed)
    done = cli("evaluate", run, "--attack", "fgsm", "--images", "4", *options)
    assert (done.code, done.complaint()) == (130, f"unfool: interrupted; {said}")


def test_ctrl_c_on_a_command_that_keeps_nothing(cli, run, monkeypatch):
    monkeypatch.setattr("unfool.cli.parsing.probed.open_probed", killed)
    assert cli("probe", run).complaint() == "unfool: interrupted; nothing was kept; run the command again"


@pytest.mark.parametrize("command", ["attack", "evaluate"])
def test_what_is_done_is_kept_until_it_is_printed(cli, run, tmp_path, monkeypatch, command):
    from unfool.cli import run_evaluation

    at = ("--attack", "pgd-2", "--threat", "linf:2/255", "--images", "4", "--json")
    out = tmp_path / ("set.safetensors" if command == "attack" else "results.json")
    more = () if command == "attack" else ("--no-reliability",)
    arguments = (command, run, *at, *more, "--out", out)
    monkeypatch.setattr("unfool.cli.printing.print_json", killed)
    monkeypatch.setattr(run_evaluation, "print_json", killed)
    assert cli(*arguments).code == 130
    kept = {path: path.stat().st_mtime_ns for path in out.with_suffix(".state").rglob("batch-*.safetensors")}
    assert kept
    monkeypatch.undo()
    crafted = []
    monkeypatch.setattr("unfool.evaluation.crafting.attack_folder.BatchCheckpoint.finish", lambda *_: crafted.append(1))
    assert cli(*arguments).code == 0
    assert crafted == []
    assert not out.with_suffix(".state").exists()


def test_batches_without_their_description_are_not_believed(cli, run, tmp_path):
    state = tmp_path / "state"
    same = ("evaluate", run, "--attack", "fgsm", "--images", "40", "--no-reliability", "--json", "--state", state)
    assert cli(*same, "--threat", "linf:0").code == 0
    (folder,) = [path.parent for path in state.rglob("crafting.json")]
    (folder / "crafting.json").unlink()
    folder.rename(folder.with_name("fgsm_linf_80_255"))
    told = cli(*same, "--threat", "linf:80/255")
    assert told.code == 0, told.err
    assert json.loads(told.out)["rows"][1]["accuracy"] < json.loads(told.out)["rows"][0]["accuracy"]


@pytest.mark.parametrize("said", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_memory_that_runs_out_is_one_line(cli, run, monkeypatch, said):
    def full(*_, **__):
        raise said

    monkeypatch.setattr("unfool.cli.run_evaluation.evaluate", full)
    told = cli("evaluate", run, "--attack", "fgsm", "--images", "4")
    assert told.code == 8
    assert "memory ran out" in told.err
    assert "--batch-size" in told.err
