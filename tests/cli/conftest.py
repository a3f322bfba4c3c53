"""Fixtures of the command line's tests: a way to call it, and two tiny runs that all of them share."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from unfool.cli import main

TINY = [
    *("train", "--data", "digits", "--trunk", "convnet", "--widths", "4", "8", "8"),
    *("--batch-size", "128", "--optimizer", "sgd", "--learning-rate", "0.1"),
]


@dataclass
class Told:
    code: int
    out: str
    err: str

    def complaint(self) -> str:
        """The one line on stderr, with nothing on stdout."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("unfool: "), self.err
        assert "Traceback" not in self.err
        assert self.out == ""
        return lines[0]


def call(*arguments: object) -> Told:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Told(code, out.getvalue(), err.getvalue())


@pytest.fixture
def cli() -> Callable[..., Told]:
    return call


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No variable of the user's shell and no file outside the test's own folders takes part."""
    for name in ("UNFOOL_DATA_DIR", "UNFOOL_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNFOOL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """The arguments of a training command that takes a second; --out is missing."""
    return list(TINY)


def _trained(folder: Path, *more: str) -> Path:
    told = call(*TINY, "--out", folder, *more)
    assert told.code == 0, told.err
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits."""
    return _trained(tmp_path_factory.mktemp("runs") / "first", "--epochs", "2")


@pytest.fixture(scope="session")
def parity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, that tells even digits from odd ones, with a contrastive task beside."""
    tasks = ("--task", "labels:column=parity", "--task", "contrast:temperature=0.1,weight=0.5")
    return _trained(tmp_path_factory.mktemp("runs") / "parity", "--seed", "1", *tasks)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """Two adversarial images, crafted on the first run."""
    path = tmp_path_factory.mktemp("sets") / "set.safetensors"
    told = call("attack", run, "--attack", "fgsm", "--images", "2", "--out", path)
    assert told.code == 0, told.err
    return path
