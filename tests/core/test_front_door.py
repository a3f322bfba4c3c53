"""The names of ``import unfool``: one list for users, editors and type checkers; nothing is imported before its use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unfool


def test_editors_see_the_names_that_exist():
    tree = ast.parse(Path(unfool.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    assert seen == {**unfool._HOMES, **dict.fromkeys(unfool._ROOMS, "unfool")}
    assert list(unfool._HOMES) == sorted(unfool._HOMES, key=lambda name: (unfool._HOMES[name], name))


@pytest.mark.parametrize("name", unfool.__all__)
def test_every_name_is_there(name):
    assert getattr(unfool, name) is not None
    assert name in dir(unfool)
    assert getattr(unfool, name) == getattr(unfool, name)


@pytest.mark.parametrize("room", [unfool.attacks, unfool.defenses])
def test_completion_shows_what_a_user_needs_and_no_module(room):
    shown = [name for name in dir(room) if not name.startswith("__")]
    assert sorted(shown) == sorted(room.__all__)


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'tabel'"):
        unfool.tabel  # noqa: B018


def test_a_former_name_leads_to_todays():
    with pytest.warns(DeprecationWarning, match="unfool.judge is unfool.classify now"):
        assert unfool.judge is unfool.classify
    assert "judge" not in dir(unfool)


def test_importing_it_imports_no_torch():
    program = (
        "import sys, unfool; assert 'torch' not in sys.modules; assert 'numpy' not in sys.modules; "
        "from unfool import attacks, Table; print(unfool.__version__, unfool.attacks is attacks)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "True"
