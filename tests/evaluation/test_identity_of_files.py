"""The identity of models from files: whatever is edited, replaced or read at run time counts, or it cannot be told."""

import functools
import importlib
import linecache
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unfool import identity
from unfool.models.python_file import load_module

BASE = """
import functools, os
import torch
from torch import nn
from torch.nn import functional as F
class Base(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0)
        self.body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 4))
    def forward(self, x): return self.body(x)
"""
NET = "class Net(Base):\n    def forward(self, x): return {}\ndef build(): return Net().eval()\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A model of a source text and its helper module, each time from a new folder that stays on the path."""
    numbers = iter(range(100))

    def load_it(source, helper="", name="helping"):
        folder = tmp_path / str(next(numbers))
        place = folder.joinpath(*name.split(".")).with_suffix(".py")
        place.parent.mkdir(parents=True)
        for package in [name.partition(".")[0]] if "." in name else []:
            (folder / package / "__init__.py").touch()
        place.write_text(helper)
        (folder / "m.py").write_text(BASE + source)
        for module in [module for module in sys.modules if module.partition(".")[0] == name.partition(".")[0]]:
            monkeypatch.delitem(sys.modules, module)
        importlib.invalidate_caches()
        linecache.clearcache()
        monkeypatch.syspath_prepend(str(folder))
        return load_module(f"{folder / 'm.py'}:build")

    return load_it


FUNCTION = ("def f(x): return x * 2", "def f(x): return x * 3")
VALUE = ("K = 2", "K = 3")


@pytest.mark.parametrize(
    ("source", "helpers"),
    [
        ("from helping import *\n" + NET.format("f(self.body(x))"), FUNCTION),
        ("import helping\n" + NET.format("getattr(helping, 'f')(self.body(x))"), FUNCTION),
        ("import helping as h\n" + NET.format("self.body(x) * h.__dict__['K']"), VALUE),
        ("import helping\n" + NET.format("self.body(x) * getattr(helping, '__K')"), ("__K = 2", "__K = 3")),
        (
            "import helping\n" + NET.format("self.body(x) * helping.K"),
            ("def __getattr__(name): return 2", "def __getattr__(name): return 3"),
        ),
        (
            "from helping import K\n" + NET.format("self.body(x) * K.inner.size"),
            ("class I: size = 2\nclass K: inner = I", "class I: size = 3\nclass K: inner = I"),
        ),
        (NET.format("__import__('helping').f(self.body(x))"), FUNCTION),
        ("import importlib\n" + NET.format("importlib.import_module('helping').f(self.body(x))"), FUNCTION),
        (NET.format("self.g(self.body(x))\n    def g(self, x):\n        from helping import f; return f(x)"), FUNCTION),
        (
            NET.format("self.g(self.body(x))\n    def g(self, x):\n        import helping; return helping.f(x)"),
            ("from more import f", "from more import f  # edited below"),
        ),
        ("from helping import K\n" + NET.format("self.body(x) * eval('K')"), VALUE),
        ("from helping import K\n" + NET.format("self.body(x) * globals()['K']"), VALUE),
        (
            "from helping import K\n@torch.no_grad()\ndef f(x): return x * K\n" + NET.format("f(self.body(x))"),
            VALUE,
        ),
        (
            "from helping import K\n@functools.wraps(F.relu)\ndef relu(x): return x * K\n"
            + NET.format("relu(self.body(x))"),
            VALUE,
        ),
        (
            "from helping import K\nclass Odd(nn.Module):\n    __module__ = 'torch.nn.modules.activation'\n"
            "    size = K\n" + NET.format("self.body(x) * Odd.size"),
            VALUE,
        ),
        (
            "from helping import K\nclass Meta(type):\n    def __getattr__(cls, name): return K\n"
            "class Odd(metaclass=Meta): pass\n" + NET.format("self.body(x) * Odd.size"),
            VALUE,
        ),
        (
            "from helping import K\ndef by(k):\n    def wrap(f):\n        @functools.wraps(f)\n"
            "        def g(*a): return f(*a) * k\n        return g\n    return wrap\n"
            "class Net(Base):\n    @by(K)\n    def forward(self, x): return self.body(x)\ndef build(): return Net()\n",
            VALUE,
        ),
        (
            "from helping import K\ndef build():\n    net = Base(); net.forward = lambda x: net.body(x) * K\n"
            "    return net\n",
            VALUE,
        ),
        (
            "from helping import K\ndef build():\n    net = Base()\n"
            "    net.body.register_forward_pre_hook(lambda m, a: (a[0] * K,)); return net\n",
            VALUE,
        ),
    ],
)
def test_an_edit_of_a_helper_is_another_system_however_it_is_reached(load, monkeypatch, source, helpers):
    names = []
    for helper in (*helpers, helpers[0]):
        more = "def f(x): return x * 3" if "edited below" in helper else "def f(x): return x * 2"
        monkeypatch.setitem(sys.modules, "more", module := type(sys)("more"))
        exec(more, vars(module))
        names.append(identity(load(source, helper)))
    assert names[0] == names[2] != names[1]
    assert not any(name.endswith("?") for name in names)


def test_a_file_with_the_name_of_a_module_of_python_is_the_user_s(load, monkeypatch):
    for name in ("this", "pkg.statistics"):
        source = f"import {name} as helper\n" + NET.format("helper.f(self.body(x))")
        assert identity(load(source, FUNCTION[0], name)) != identity(load(source, FUNCTION[1], name))


def test_a_variable_that_is_changed_while_it_runs_counts(load, monkeypatch):
    model = load("import helping\n" + NET.format("helping.f(self.body(x))"), "K = 2\ndef f(x): return x * K")
    before = identity(model)
    sys.modules["helping"].K = 3
    changed = identity(model)
    assert changed != before
    environment = load(NET.format("self.body(x) * float(os.environ['UNFOOL_FACTOR'])"))
    names = set()
    for value in ("2", "3"):
        monkeypatch.setenv("UNFOOL_FACTOR", value)
        names.add(identity(environment))
    assert len(names) == 2


def plain():
    return nn.Sequential(nn.Flatten(), nn.ReLU())


class UsesFunctions(nn.Module):
    def forward(self, images):
        return F.hardtanh(images.flatten(1))


@pytest.mark.parametrize("make", [plain, UsesFunctions], ids=["layers", "functions"])
@pytest.mark.parametrize(("holder", "name"), [(nn.ReLU, "forward"), (F, "hardtanh"), (torch.Tensor, "flatten")])
def test_functions_put_into_a_library_count(make, holder, name, monkeypatch):
    names = [identity(make())]
    for factor in (2, 3):
        changed = functools.partial(lambda factor, *values: values[-1] * factor, factor)
        monkeypatch.setattr(holder, name, lambda *values, changed=changed: changed(*values))
        names.append(identity(make()))
    monkeypatch.undo()
    # A changed layer counts in the models that hold it, a changed function in all.
    assert len(set(names)) == (3 if holder is not nn.ReLU or make is plain else 1)
    assert identity(make()) == names[0]


def test_hooks_of_all_modules_count():
    before = identity(plain())
    handle = nn.modules.module.register_module_forward_hook(lambda module, images, outputs: outputs * 2)
    changed = identity(plain())
    handle.remove()
    assert identity(plain()) == before != changed
