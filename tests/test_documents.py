"""The examples of README, CONTRIBUTING and the pages of docs do what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from pages import blocks_of, run_page, unprinted

from unfool.cli import main
from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import TASKS, make_task
from unfool.training.stage import Stage
from unfool.training.stage_config import StageConfig, TaskConfig

ROOT = Path(__file__).parents[1]


def python_block(document: str, heading: str = "") -> str:
    """The only Python example of a document, or of the section under a heading."""
    text = (ROOT / document).read_text(encoding="utf-8").partition(heading)[2] if heading else ""
    text = text.partition("\n## ")[0] or (ROOT / document).read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


def test_the_readme_example_runs_and_prints_a_white_box_accuracy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = python_block("README.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    namespace: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), namespace)
    protocol, accuracy, low, high = re.fullmatch(
        r"(\S+) ([\d.]+) \(([\d.]+), ([\d.]+)\)\n", capsys.readouterr().out
    ).groups()
    assert protocol == "white-box"
    assert 0 <= float(low) <= float(accuracy) <= float(high) <= 1
    assert (tmp_path / "runs/example/weights.safetensors").is_file()


@pytest.fixture
def mirror(monkeypatch):
    """The task of CONTRIBUTING, registered for one test."""
    name = "mirror"
    list(TASKS)
    block = python_block("CONTRIBUTING.md", "## A new task, whole")
    module = types.ModuleType("contributed")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)
    yield name
    TASKS._items.pop(name)


def test_the_contributed_task_has_forty_lines_and_learns(mirror):
    assert len(python_block("CONTRIBUTING.md", "## A new task, whole").splitlines()) <= 50
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), {})
    config = StageConfig(tasks={mirror: TaskConfig(task=mirror)})
    stage = Stage(config, network, {}, Streams(0))
    # Bright above, dark below: upright and turned images are told apart at a glance.
    images = torch.linspace(1, 0, 32)[None, None, :, None].expand(64, 3, 32, 32).contiguous()
    batch = Batch(images=images, ids=torch.arange(64))
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.01)
    losses = []
    for step in range(30):
        found, _ = stage(batch, Streams(0).at(step))
        losses.append(float(stage.total(found).detach()))
        optimizer.zero_grad()
        stage.total(found).backward()
        optimizer.step()
    assert losses[-1] < 0.1 < losses[0]
    assert make_task(mirror).views(batch, None).images.equal(images)


def test_the_readme_names_every_command_and_the_make_targets_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("study", "train", "evaluate", "attack", "report", "doctor"):
        assert f"unfool {command}" in readme
    for target in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def shell_commands(document: str) -> list[list[str]]:
    """The arguments of each ``unfool`` command of a document's shell examples, comments and redirections left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "\n".join(block for language, block in blocks if language != "python").replace("\\\n", " ")
    matches = [re.match(r"\s*(?:\$ )?(?:torchrun \S+ \S+ -m )?unfool (.+)", line) for line in lines.splitlines()]
    return [shlex.split(match[1].partition(" > ")[0], comments=True) for match in matches if match is not None]


@pytest.mark.parametrize("document", ["README.md"])
def test_every_command_of_the_documents_is_understood(document):
    from unfool.cli.usage import parse

    commands = shell_commands(document)
    assert len(commands) >= 20
    for arguments in commands:
        assert parse(arguments) is not None, arguments


def test_the_contributed_study_is_trained_attacked_and_judged(tmp_path, monkeypatch, capsys):
    """Its worker processes find it by its file alone; a second call makes nothing again."""
    source = python_block("CONTRIBUTING.md", "## A study of your own, whole")
    assert len(source.splitlines()) <= 60
    file, out = tmp_path / "my_study.py", tmp_path / "out"
    file.write_text(source)
    environment = {**os.environ, "UNFOOL_DATA_DIR": ""}
    command = ["study", str(file), "--out", str(out), "--device", "cpu", "--json"]
    first = subprocess.check_output([sys.executable, "-m", "unfool", *command], env=environment, timeout=300)
    monkeypatch.setenv("UNFOOL_DATA_DIR", "")
    assert main(command) == 0
    results = [json.loads(first), json.loads(capsys.readouterr().out)]
    assert results[0] == results[1]
    rows, claims, (chart,) = (results[0][key] for key in ("rows", "claims", "charts"))
    assert (results[0]["study"], len(rows)) == ("my-study", 2 * 2 * 3)
    assert {(row["model"], row["seed"]) for row in rows} == {(m, s) for m in ("narrow", "wide") for s in (0, 1)}
    assert [claim["id"] for claim in claims] == ["wider-fgsm", "wider-pgd-20"]
    assert all("over 2 training seeds" in claim["evidence"] for claim in claims)
    assert [series["name"] for series in chart["series"]] == ["fgsm", "pgd-20"]
    assert "Is a wider network more robust?" in (out / "report.html").read_text()


PAGES = sorted((ROOT / "docs").glob("**/*.md"))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """An empty folder to work in; modules that are imported from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("UNFOOL_DATA_DIR", raising=False)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_shows(page, scratch):
    """Every block is run and prints what is shown, unless the page says why it is not run."""
    run_page(page)


def test_the_hardened_weights_are_loaded_by_ten_lines_without_unfool():
    blocks = blocks_of((ROOT / "docs/harden.md").read_text(encoding="utf-8"))
    (script,) = [block.text for block in blocks if block.text.startswith("# predict.py")]
    assert "unfool" not in script
    assert len([line for line in script.splitlines()[1:] if line.strip()]) <= 10


def test_shown_output_is_compared_line_by_line_but_for_numbers():
    printed = "none   98.0  [93.0, 99.4]\n\nRobust accuracy 48.0 %, believed\nlast"
    assert unprinted("none 12 [1, 2.5]\n...\nRobust accuracy 3.5 %, believed", printed) is None
    assert unprinted("Robust accuracy 48.0 %, doubted", printed) == "Robust accuracy 48.0 %, doubted"
    assert unprinted("last\nnone 98.0 [93.0, 99.4]", printed) == "none 98.0 [93.0, 99.4]"
