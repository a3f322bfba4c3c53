"""Results that may not change unless a change says so: commands, one training run, and the demos of all studies.

They are equal bit for bit on one kind of machine; where the training run's weights differ, the machine rounds
differently and nothing can be said. The studies take minutes: ``make golden`` runs them (``-m golden``).
"""

import json
from pathlib import Path

import pytest
from capture import COMMANDS, FOLDER, STUDIES, capture


def golden(name: str) -> object:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def comparable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is run; skips where this machine rounds otherwise than the one that made the files."""
    if rounding() != golden("machine"):
        pytest.skip(f"this machine rounds otherwise than that of the golden files: {rounding()}")
    return tmp_path_factory.mktemp("golden")


def rounding() -> dict[str, str]:
    """What decides how a network's sums are rounded."""
    import platform

    import torch

    return {
        "machine": platform.machine(),
        "torch": torch.__version__.split("+")[0],
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


@pytest.mark.parametrize("name", ["train", *COMMANDS])
def test_a_command_gives_what_it_gave(name: str, comparable: Path) -> None:
    assert capture(name, comparable) == golden(name)


@pytest.mark.golden
@pytest.mark.parametrize("name", STUDIES)
def test_a_demo_gives_the_rows_that_it_gave(name: str, comparable: Path) -> None:
    result, expected = capture(name, comparable), golden(name)
    for part in ("rows", "verdicts", "charts"):
        assert result[part] == expected[part]
