"""Every public name says what it takes, gives and raises, and shows it in an example that runs."""

import ast
import contextlib
import doctest
import inspect
import io
import re
from pathlib import Path

import pytest
import torch

import unfool
from unfool.core.registry import Registry

SOURCE = Path(unfool.__file__).parent
SECTIONS = re.compile(r"^( *)(Args|Returns|Yields|Raises|Example|Attributes):$", re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


ROOMS = ("attacks", "data", "defenses", "evaluation", "models", "studies", "tasks", "training")


def public_objects():
    """Name → object, for the names of unfool and of the rooms that users type, one entry an object."""
    rooms = {"": unfool, **{f"{room}.": getattr(unfool, room) for room in ROOMS}}
    objects = {}
    for prefix, room in rooms.items():
        for name in room.__all__:
            value = getattr(room, name)
            plain = inspect.ismodule(value) or isinstance(value, (str, Registry))
            if not plain and not any(value is other for other in objects.values()):
                objects[prefix + name] = value
    return objects


OBJECTS = public_objects()


def documented(path):
    """``MODULE:NAME.NAME`` of every docstring of a file that holds an example, and the example."""
    module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    waiting = [("", ast.parse(path.read_text(encoding="utf-8")))]
    while waiting:
        name, node = waiting.pop()
        text = ast.get_docstring(node) or ""
        if ">>>" in text:
            yield f"{module}:{name}", text
        inner = (ast.ClassDef, ast.FunctionDef)
        waiting += [(f"{name}.{other.name}".lstrip("."), other) for other in node.body if isinstance(other, inner)]


EXAMPLES = {name: text for path in sorted(SOURCE.rglob("*.py")) for name, text in documented(path)}


def sections(text):
    """Section → its text, of a Google-style docstring; the summary is under ''."""
    parts = SECTIONS.split(inspect.cleandoc(text))
    return {"": parts[0], **dict(zip(parts[2::3], parts[3::3], strict=True))}


def parameters(value):
    """The names that a caller may give."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in signature.parameters.values() if p.name != "self" and p.kind not in kinds]


def faults(name, value):
    """What a docstring lacks, in words."""
    text = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
    if not text:
        return [f"{name} has no docstring"]
    held = sections(text)
    result = []
    summary = held[""].strip().split("\n\n")[0]
    if not summary.endswith("."):
        result.append(f"{name}: the first sentence ends without a full stop")
    takes = [] if isinstance(value, type) and issubclass(value, BaseException) else parameters(value)
    if takes and "Args" not in held:
        result.append(f"{name} has no Args")
    described = set(re.findall(r"^ {4}\**(\w+)(?: \([^)]*\))?:", held.get("Args", ""), re.MULTILINE))
    result += [f"{name} does not describe its argument {p!r}" for p in takes if "Args" in held and p not in described]
    result += [f"{name} describes {p!r}, which it does not take" for p in sorted(described - set(takes) - {"settings"})]
    returns = inspect.isfunction(value) and inspect.signature(value).return_annotation not in (None, "None")
    if returns and not {"Returns", "Yields"} & held.keys():
        result.append(f"{name} has no Returns")
    if ">>>" not in held.get("Example", ""):
        result.append(f"{name} has no Example")
    return result


def run_example(name, text):
    """Run the example of a docstring, which knows torch and the names of unfool; what differs is returned as text."""
    report = io.StringIO()
    known_names = {"torch": torch, "unfool": unfool, **{name: getattr(unfool, name) for name in unfool.__all__}}
    example = doctest.DocTestParser().get_doctest(text, known_names, name, None, 0)
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(example, out=report.write)
    return report.getvalue()


@pytest.mark.parametrize("name", OBJECTS)
def test_a_public_name_is_documented(name):
    assert faults(name, OBJECTS[name]) == []


@pytest.mark.usefixtures("plugins_undone")
@pytest.mark.parametrize("name", EXAMPLES)
def test_its_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stderr(io.StringIO()):
        assert run_example(name, EXAMPLES[name]) == ""


def test_examples_of_modules_classes_and_methods_are_seen():
    names = {"unfool.attacks:", "unfool.attacks.pgd:PGD", "unfool.data.table:Table.from_tensors"}
    assert names <= EXAMPLES.keys()
    assert len(EXAMPLES) >= len(OBJECTS)


def test_pyright_reads_every_module_with_a_public_name_strictly():
    tomllib = pytest.importorskip("tomllib")
    root = SOURCE.parents[1]
    patterns = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pyright"]["strict"]
    strict = {path for pattern in patterns for path in root.glob(pattern)}
    files = {
        Path(inspect.getfile(inspect.unwrap(value))) for value in OBJECTS.values() if hasattr(value, "__qualname__")
    }
    assert [str(path) for path in files if not strict & {path, *path.parents}] == []


def test_what_a_docstring_lacks_is_seen():
    def undescribed(images, labels):
        """Do something

        Args:
            images: (B, C, H, W).
            other: Not there.
        """
        return images

    assert faults("f", undescribed) == [
        "f: the first sentence ends without a full stop",
        "f does not describe its argument 'labels'",
        "f describes 'other', which it does not take",
        "f has no Returns",
        "f has no Example",
    ]


def test_an_example_that_is_wrong_is_seen():
    assert "Expected:\n    3\nGot:\n    2" in run_example("wrong", "Do it.\n\n>>> 1 + 1\n3\n")
