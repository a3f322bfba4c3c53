"""A model out of a file of the user's: it runs as it is, leaves no trace, and its faults are one line."""

import sys
import textwrap
from pathlib import Path

import pytest
import torch

import unfool
from unfool.core.errors import SpecError, UnfoolError
from unfool.core.user_code import _of_a_library, content_digest
from unfool.evaluation import identity
from unfool.models.python_file import load_module

LINEAR = """
import torch

import unfool
from torch import nn

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images):
        return images.mean((2, 3)) * self.scale

def build(classes=3, *rest, **more):
    return Linear()

ready = Linear()
number = 3
def needy(classes, depth): return Linear()
def nothing(): return "a text"
"""


@pytest.fixture
def write(tmp_path):
    def written(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(text))
        return path

    return written


@pytest.mark.parametrize("name", ["build", "Linear", "ready"])
def test_a_function_a_class_or_a_module(write, name):
    module = load_module(f"{write(LINEAR)}:{name}")
    assert module(torch.ones(2, 3, 4, 4)).tolist() == [[1.0, 1.0, 1.0]] * 2


def test_the_file_finds_its_neighbours_and_leaves_no_trace(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("from torch import nn\nmade = nn.Identity", "neighbour_of_mine.py")
    write(
        "from neighbour_of_mine import made\nprint('hello')\n"
        "def build():\n    import neighbour_of_mine\n    return made()"
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = list(sys.path)
    assert isinstance(load_module("mine.py:build"), torch.nn.Identity)
    assert (sys.path, sys.dont_write_bytecode) == (before, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "neighbour_of_mine.py"]
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "hello\n")
    assert "mine" not in sys.modules


def test_the_identity_follows_the_content_and_not_the_folder(write):
    here = identity(load_module(f"{write(LINEAR)}:build"))
    assert identity(load_module(f"{write(LINEAR, 'elsewhere/other.py')}:build")) == here
    assert identity(load_module(f"{write(LINEAR.replace('* self', '+ self'))}:build")) != here


@pytest.mark.parametrize(
    ("text", "name", "pieces"),
    [
        (LINEAR, "biuld", ["'biuld'", "did you mean 'build'?"]),
        (LINEAR, "needy", ["needs arguments (classes, depth)"]),
        (LINEAR, "nothing", ["gave a str"]),
        (LINEAR, "number", ["gave a int"]),
        ("import torch\n\n1 / 0\n", "build", ["mine.py:3", "ZeroDivisionError: division by zero"]),
        ("def build():\n    x = {}\n    return x['a\\nb']\n", "build", ["mine.py:3", "KeyError"]),
        ("def build(:\n", "build", ["mine.py:1", "SyntaxError"]),
        ("import sys\nsys.exit('usage')\n", "build", ["mine.py:2", "SystemExit: usage"]),
        ("import json\njson.loads('{')\n", "build", ["mine.py:2", "JSONDecodeError"]),
        ("import no_such_package\n", "build", ["mine.py:1", "no_such_package"]),
        ("import torch\ndef build():\n    return torch.nn.Linear(-1, 2)\n", "build", ["mine.py:3"]),
    ],
)
def test_faults_of_the_file_are_one_line_with_the_place(write, text, name, pieces):
    path = write(text)
    with pytest.raises(SpecError) as caught:
        load_module(f"{path}:{name}")
    assert all(piece in str(caught.value) for piece in pieces), caught.value
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_leaves_no_module(write):
    path, known = write("import torch\nraise ValueError('no')\n"), set(sys.modules)
    with pytest.raises(SpecError):
        load_module(f"{path}:build")
    assert set(sys.modules) == known


def test_an_error_of_this_library_is_told_as_it_is(write):
    path = write("from unfool import load_network\ndef build():\n    return load_network('nowhere.safetensors')\n")
    with pytest.raises(UnfoolError, match=r"^there is no weights file nowhere.safetensors; check the path$"):
        load_module(f"{path}:build")


@pytest.mark.parametrize("text", ["", "mine.py", "mine.py:", ":build", "mine.py:a b", "mine.py:a.b"])
def test_what_is_no_name_of_a_model(text):
    with pytest.raises(SpecError, match=r"path/to/file.py:NAME"):
        load_module(text)


def test_a_bare_name_leads_to_the_hubs_that_know_it():
    with pytest.raises(SpecError, match="or timm:resnet18, torchvision:resnet18, hf:OWNER/NAME"):
        load_module("resnet18")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SpecError, match=r"no file .*nowhere.py"):
        load_module(f"{tmp_path / 'nowhere.py'}:build")
    (tmp_path / "model.txt").write_text("")
    with pytest.raises(SpecError, match=r"no Python file"):
        load_module(f"{tmp_path / 'model.txt'}:build")


def test_a_version_of_a_file_is_named_by_sixteen_digits_of_its_content(tmp_path):
    names = []
    for number, source in enumerate(("a = 1", "a = 2", "a = 1")):
        path = tmp_path / f"m{number}.py"
        path.write_text(source)
        names.append(content_digest(path))
    assert names[0] == names[2] != names[1]
    assert {len(name) for name in names} == {16}


def test_a_folder_whose_name_begins_as_that_of_a_library_is_the_users():
    package = Path(unfool.__file__).resolve().parent
    assert _of_a_library(package / "core" / "errors.py")
    assert not _of_a_library(package.with_name("unfool_mine") / "net.py")
