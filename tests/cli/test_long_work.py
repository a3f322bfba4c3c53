"""Where stderr is no terminal, every command that may take long writes a line of progress now and then."""

import re
import textwrap

import pytest
from PIL import Image

from unfool.core import progress_display

REVERSE = "reverse:task=contrast,temperature=0.1,bank=32,drawn=16,steps=1"
STUDY = """
    from unfool.core.config import configured
    from unfool.studies.framework import Clean, Images, NetworkSpec, Study
    from unfool.training import RunConfig, StageConfig, TaskConfig


    @configured
    class Scale:
        epochs: int


    class Digits(Study[Scale]):
        title = "One narrow network"
        scales = {"small": Scale(epochs=2)}

        def networks(self, scale):
            stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, epochs=scale.epochs, batch_size=64)
            trunk = {"name": "convnet", "widths": [4, 8, 8]}
            config = RunConfig(data="digits", stages=(stage,), trunk=trunk)
            return [NetworkSpec(key={"data": "digits", "model": "narrow"}, config=config)]

        def measurements(self, scale, networks):
            return [Clean(system=network, images=Images(data="digits").sample(40)) for network in networks]
"""


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch):
    """A clock of which half a minute passes in 30 milliseconds."""
    monkeypatch.setattr(progress_display, "LINE_SECONDS", 0.03)


def lines(told):
    assert told.code == 0, told.err
    assert told.out
    shown = told.err.splitlines()
    assert shown
    assert not any(line.startswith("unfool: unexpected") for line in shown)
    return shown


def test_training(cli, tiny, tmp_path):
    shown = lines(cli(*tiny, "--epochs", "1", "--out", tmp_path / "run"))
    assert shown[0].startswith(f"{tmp_path / 'run'}, ")
    assert any(re.search(r", \d+/\d+, .*loss [\d.]+", line) for line in shown)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("evaluate", "--attack", "pgd-20", "--images", "32", "--batch-size", "8"), "pgd-20"),
        (
            ("attack", "--attack", "pgd-20", "--images", "32", "--batch-size", "8", "--out", "set.safetensors"),
            "linf:8/255",
        ),
        (("probe", "--epochs", "3", "--drop-every", "2"), "/"),
        (("audit", "--defense", REVERSE, "--attack", "pgd-3", "--images", "32", "--batch-size", "8"), "audit"),
        (("reverse", "image.png", "--defense", REVERSE), ""),
    ],
)
def test_commands_on_a_run(cli, parity, tmp_path, monkeypatch, arguments, what):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("image.png")
    shown = lines(cli(arguments[0], parity, *arguments[1:]))
    assert any(what in line for line in shown), shown


def test_a_study_of_ones_own(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unfool.core.parallel.executor.workers_for", lambda device: 1)
    (tmp_path / "my_study.py").write_text(textwrap.dedent(STUDY))
    told = cli("study", "my_study.py", "--scale", "small")
    shown = lines(told)
    assert any("narrow" in line for line in shown), shown
    assert "narrow" in told.out
    assert told.out.splitlines()[-1] == "page: runs/my_study-small/report.html"
    assert (tmp_path / "runs/my_study-small/results/my-study/small.json").is_file()
    complaint = cli("study", "my_study.py").complaint()
    assert "unknown scale of study 'my-study': 'demo'" in complaint
    assert "allowed: small" in complaint


def test_a_fault_of_a_study_s_file_is_shown_as_its_own(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = textwrap.dedent(STUDY).replace("epochs=scale.epochs", "epochs=scale.epoch")
    (tmp_path / "wrong_study.py").write_text(source)
    told = cli("study", "wrong_study.py", "--scale", "small")
    assert told.code == 2
    line = source[: source.index("scale.epoch,")].count("\n") + 1
    assert re.search(rf"wrong_study\.py, line {line}: AttributeError: .*epoch", told.complaint())
