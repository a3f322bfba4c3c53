"""Values are named for what they hold: words that say nothing of that are refused as names."""

import ast
from pathlib import Path

import pytest

import unfool

ROOT = Path(unfool.__file__).parent
REFUSED = {"found", "told", "made", "asked", "one", "given", "there"}


def names_of_values(tree):
    """(line, name) of every variable, parameter, attribute and function that a file names."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            yield getattr(node, "lineno", 0), node.name or ""
        elif isinstance(node, ast.alias):
            yield node.lineno, node.asname or node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, node.arg


def refused(source):
    """Lines of a file that give a value a name that says nothing."""
    return sorted({f"line {line}: {name}" for line, name in names_of_values(ast.parse(source)) if name in REFUSED})


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_values_are_named_for_what_they_hold(path):
    assert refused(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "a, *told = x",
        "for made in x: pass",
        "[one for one in x]",
        "def f(asked): pass",
        "lambda one: 1",
        "with x as found: pass",
        "class A:\n    found: int = 0",
        "self.found = 1",
        "(made := 2)",
        "f(found=1)",
        "def found(): pass",
        "match x:\n    case [one, *_]: pass",
        "def f(*given): pass",
        "def f(**there): pass",
        "try: pass\nexcept X as found: pass",
    ],
)
def test_a_name_that_says_nothing_is_seen(source):
    assert len(refused(source)) == 1


@pytest.mark.parametrize("source", ["logits = model(found_images)", "x.made_on", "'found'", "# one"])
def test_other_names_pass(source):
    assert refused(source) == []
