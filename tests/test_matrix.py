"""Each cell of the table in docs/models.md is run, and is what the page says."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "docs/matrix.py"


def _imported():
    spec = importlib.util.spec_from_file_location("matrix", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = module
    spec.loader.exec_module(module)
    return module


matrix = _imported()
KINDS = matrix.kinds()
STORED = matrix.stored(matrix.PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def place():
    cache = os.environ.get("UNFOOL_CACHE_DIR")
    with matrix.workplace():
        yield
    os.environ.pop("UNFOOL_CACHE_DIR") if cache is None else os.environ.update(UNFOOL_CACHE_DIR=cache)


def test_the_page_has_each_kind_once():
    assert list(STORED) == [kind.name for kind in KINDS]
    assert len(STORED) >= 20


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*LeafSpec", "ignore:None of the inputs")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_row_is_what_the_page_says(kind):
    if not matrix.installed(kind):
        pytest.skip(f"{kind.needs} is not installed")
    assert matrix.cells(kind) == STORED[kind.name]


def test_a_page_keeps_the_rows_that_are_written_into_it():
    rows = {"a": dict.fromkeys(matrix.COLUMNS, "yes"), "b": dict.fromkeys(matrix.COLUMNS, "no; give 1. more")}
    page = f"{matrix.BEGIN}\n\n{matrix.markdown(rows)}\n\n{matrix.END}"
    assert matrix.stored(page) == rows
