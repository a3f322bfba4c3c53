"""Programs of the folder ``benchmarks``, for the tests of them."""

import importlib
import sys
from pathlib import Path

import pytest
from tiny_systems import make_network, table_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program():
    """Imports a benchmark by its name, as if it were started in its folder."""
    pytest.importorskip("pyautoattack")
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def subject(program, tmp_path):
    """A small network and 24 images that it classifies correctly, as `lean.py` attacks them."""
    network = make_network()
    table = table_of(network, 24)
    return program("lean_subjects").Subject("tiny", network, table, "linf:0.01", tmp_path, adversarial=True)
