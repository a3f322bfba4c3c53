"""The house rules that a parser can check: imports point down, files are small, nothing forbidden is called."""

import ast
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

import unfool
from unfool.cli.commands import COMMANDS

ROOT = Path(unfool.__file__).parent
ROOMS = [
    "core",
    "data",
    "models",
    "tasks",
    "attacks",
    "defenses",
    "training",
    "evaluation",
    "report",
    "studies",
    "demo",
    "playground",
    "cli",
]
FILES = sorted(ROOT.rglob("*.py"))
FORBIDDEN_FILES = {"utils.py", "helpers.py", "misc.py", "common.py"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "torch.load", "torch.jit.load", "torch.hub.load"}
CHECKPOINTS = Path("unfool/models/checkpoints/archive.py")
"""The one file that may open a checkpoint of another program, and only so that no code in it runs."""
PROGRAMS = Path("unfool/models/outside/program_files.py")
"""The one file that may open a TorchScript program, which a user names as the model to run, as a Python file is."""
SEEDING = {
    "torch.manual_seed",
    "torch.seed",
    "torch.random.manual_seed",
    "torch.random.seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "np.random.seed",
    "numpy.random.seed",
    "random.seed",
    "accelerate.utils.set_seed",
    "set_seed",
}


def imported(tree, package):
    """The absolute names of everything imported anywhere in a file, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def dotted(node):
    """``torch.cuda.manual_seed`` for that expression, '' for anything that is no plain dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and dotted(node.value):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def safe_load(node):
    """Whether a call is ``torch.load`` with the literal ``weights_only=True``."""
    literal = any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords)
    return dotted(node.func) == "torch.load" and literal


def room_of(parts):
    """'attacks' for unfool.attacks.pgd; None for the package's own file and for other packages."""
    return parts[1] if len(parts) > 1 and parts[0] == "unfool" else None


def faults(source, path):
    """Every broken rule of one file, in words; ``path`` is relative to the package's parent."""
    tree = ast.parse(source)
    parts = list(Path(path).with_suffix("").parts)
    package = parts[:-1]
    own = room_of(parts) if parts[1:] != ["__init__"] and parts[1:] != ["__main__"] else None
    found = []
    if Path(path).name in FORBIDDEN_FILES:
        found.append("a file name that says nothing")
    if len(parts) > 4:
        found.append("deeper than three levels")
    if len(source.splitlines()) > 400:
        found.append("longer than 400 lines")
    if own is not None and own not in ROOMS:
        found.append(f"{own} is no room of the house")
    for name in imported(tree, package):
        other = room_of(name.split("."))
        if name.split(".")[0] in FORBIDDEN_MODULES:
            found.append(f"imports {name}")
        if own in ROOMS and other in ROOMS and ROOMS.index(other) > ROOMS.index(own):
            found.append(f"{own} imports upwards: {name}")
    forked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(
            isinstance(i.context_expr, ast.Call) and dotted(i.context_expr.func).endswith("fork_rng")
            for i in node.items
        )
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in FORBIDDEN_CALLS and not (
                (Path(path) == CHECKPOINTS and safe_load(node)) or (Path(path) == PROGRAMS and name == "torch.jit.load")
            ):
                found.append(f"line {node.lineno}: {name}")
            if name in SEEDING and id(node) not in forked:
                found.append(f"line {node.lineno}: {name} seeds the global generator")
            if any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False for k in node.keywords):
                found.append(f"line {node.lineno}: allow_pickle")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_keeps_the_house_rules(path):
    assert faults(path.read_text(encoding="utf-8"), path.relative_to(ROOT.parent)) == []


FEW = 15


def test_folders_hold_few_files():
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in FILES if path.name != "__init__.py")
    # the commands are a list that is read by name: one file each, and nothing beside them
    allowed = {"cli/commands": len(COMMANDS)}
    assert {name: n for name, n in counts.items() if n > allowed.get(name, FEW)} == {}


def test_a_file_is_short_as_a_rule():
    assert median(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= 120


def test_every_room_says_what_it_is_for():
    for folder in {path.parent for path in FILES}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), folder


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("import unfool.cli", "unfool/core/x.py"),
        ("from unfool import studies", "unfool/core/x.py"),
        ("from ..attacks import pgd", "unfool/tasks/x.py"),
        ("from .. import attacks", "unfool/tasks/__init__.py"),
        ("from ...training import loop", "unfool/data/readers/x.py"),
        ("def f():\n    from unfool.report import page", "unfool/models/x.py"),
        ("import pickle", "unfool/data/x.py"),
        ("from pickle import loads", "unfool/data/x.py"),
        ("import torch\ntorch.load('x')", "unfool/models/x.py"),
        ("import torch\ntorch.load('x', weights_only=True)", "unfool/models/x.py"),
        ("import torch\ntorch.load('x')", "unfool/models/checkpoints/archive.py"),
        ("import torch\ntorch.load('x', weights_only=False)", "unfool/models/checkpoints/archive.py"),
        ("import torch\ntorch.load('x', weights_only=safe)", "unfool/models/checkpoints/archive.py"),
        ("import torch\ntorch.jit.load('x', weights_only=True)", "unfool/models/checkpoints/archive.py"),
        ("import torch\ntorch.load('x', weights_only=True)", "unfool/models/outside/program_files.py"),
        ("eval('1')", "unfool/core/x.py"),
        ("exec('1')", "unfool/core/x.py"),
        ("assert True", "unfool/core/x.py"),
        ("import torch\ntorch.manual_seed(0)", "unfool/training/x.py"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "unfool/data/x.py"),
        ("", "unfool/core/utils.py"),
        ("", "unfool/core/a/b/x.py"),
        ("", "unfool/attic/x.py"),
        ("pass\n" * 401, "unfool/core/x.py"),
    ],
)
def test_a_file_that_breaks_a_rule_is_found(source, path):
    assert len(faults(source, path)) == 1


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("from unfool.core.spec import unknown", "unfool/core/x.py"),
        ("from unfool.data import catalog\nfrom ..core import spec", "unfool/attacks/x.py"),
        ("network.eval()\nimport safetensors", "unfool/models/x.py"),
        ("import torch\ntorch.Generator().manual_seed(3)", "unfool/data/x.py"),
        ("import torch\nwith torch.random.fork_rng():\n    torch.manual_seed(3)", "unfool/models/x.py"),
        ("import torch\ntorch.load('x', weights_only=True)", "unfool/models/checkpoints/archive.py"),
        ("from unfool.cli import main", "unfool/__main__.py"),
    ],
)
def test_a_file_that_keeps_the_rules_passes(source, path):
    assert faults(source, path) == []
