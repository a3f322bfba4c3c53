"""The notebooks of the documentation run, and become its pages."""

import importlib.util
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.py"))


@pytest.fixture(scope="module")
def percent():
    spec = importlib.util.spec_from_file_location("percent", ROOT / "docs/percent.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("UNFOOL_DATA_DIR", raising=False)
    values = runpy.run_path(str(path))
    if path.stem == "engineer":
        gained = values["hardened"].comparisons["pgd-10 at linf:16/255"]
        assert gained.low > 0
        assert values["settled"].claim.verdict == "holds"
        assert values["before"].doubts == []
    elif path.stem == "researcher":
        assert values["ladder"].verdict in ("helps", "fails", "undecided")
        assert len(values["audit"].to_frame())
    else:
        assert values["borrowed"].accuracy > values["own"].rows[1].accuracy + 0.5
        assert any(doubt.startswith("vanishing-gradients") for doubt in values["masked"].doubts)
    assert capsys.readouterr().out


def test_every_notebook_has_a_page_with_all_its_cells(percent):
    assert [path.stem for path in NOTEBOOKS] == ["engineer", "researcher", "teacher"]
    for path in NOTEBOOKS:
        page = percent.filled(path.with_suffix(".md").read_text(encoding="utf-8"))
        cells = percent.cells(path.read_text(encoding="utf-8"))
        assert page.startswith("# The ")
        assert cells[0][0] == "markdown"
        assert page.count("```python\n") == sum(kind == "python" for kind, _ in cells) >= 4
        assert all(text in page for _, text in cells)


def test_cells_of_the_percent_format(percent):
    text = "# %% [markdown]\n# # Title\n#\n# prose\n\n# %%\nx = 1  # %% no cell\n\n# a comment\n"
    assert percent.cells(text) == [
        ("markdown", "# Title\n\nprose"),
        ("python", "x = 1  # %% no cell\n\n# a comment"),
    ]
