"""A study on three nodes: rows equal those of one process, whatever is killed meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from three_nodes import ADDRESS, until

import unfool
from unfool.studies import run_study

pytestmark = pytest.mark.cluster

STUDY = Path(__file__).with_name("small_study.py")


def rows_of(out):
    """A study's rows without times."""
    rows = json.loads((out / "results" / "small-study" / "tiny.json").read_text())["rows"]
    for row in rows:
        row["cost"].pop("cpu_seconds", None)
    return rows


def test_rows_are_those_of_one_and_eight_processes_after_the_asker_and_a_node_were_killed(nodes, tmp_path):
    out = tmp_path / "cluster"
    command = [sys.executable, "-m", "unfool", "study", str(STUDY), "--scale", "tiny", "--cluster", ADDRESS]
    source = Path(unfool.__file__).parents[1]

    def asker():
        return nodes.popen([*command, "--out", str(out)], source=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def landed():
        return len(list(out.glob("models/*/*/weights.safetensors")))

    first = asker()
    until(lambda: landed() >= 1, of=first)
    first.kill()
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("models/*/*/weights.safetensors")}
    assert 1 <= len(kept) < 6
    second = asker()
    until(lambda: landed() > len(kept), of=second)
    nodes.kill("c")
    _, told = second.communicate(timeout=120)
    assert second.returncode == 0, told
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "Traceback" not in told
    for workers in (1, 8):
        local = tmp_path / f"local-{workers}"
        run_study(str(STUDY), "tiny", local, workers=workers)
        assert rows_of(out) == rows_of(local)
    assert not list(Path("/tmp").glob(f"unfool-cluster-{os.getuid()}/*/worker-*"))
