"""The identity of foreign models: code that decides counts, what passes write does not, and no library is walked."""

import collections
import contextvars
import copy
import dataclasses
import enum
import fractions
import functools
import importlib.util
import itertools
import json
import linecache
import random
import re
import sys
import threading
import time
import types
import weakref
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attributed_model import Foreign
from torch import nn

from unfool import adapt, classify, craft, evaluate, identity
from unfool.core.errors import UnfoolWarning
from unfool.evaluation.identity import one_identity
from unfool.models.python_file import load_module

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 4


class Log:
    def __init__(self):
        self.seen, self.total = [], 0

    def note(self, value):
        self.seen.append(value)
        self.total += len(value)


CACHE = {}
CALLS = 0


def remember(model, images):
    global CALLS
    CALLS += 1
    CACHE[len(CACHE)] = images.mean()
    model.remembered = images


class Busy(Foreign):
    """Writes in every way that models do while they run."""

    def __init__(self):
        super().__init__(calls=0, maps=[], memo={}, log=Log(), counts=collections.Counter(), table={"n": [0]})
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        self.calls += 1
        self.last, self.first = images, images[0]
        self.maps.append(images.mean())
        memo = self.memo
        memo[len(memo)] = 1
        self.counts.update(["pass"])
        self.table["n"][0] += 1
        self.log.note(images)
        self.passes += 1
        remember(self, images)
        setattr(self, "tag", len(images))  # noqa: B010
        return self.inner(images)

    def inner(self, images):
        self.depth = 2
        return self.body(images)


class Sly(Foreign):
    """Writes where no reader of its code would look."""

    def forward(self, images):
        vars(self)["n" + "ote"] = float(images.sum())
        getattr(self, "kep" + "t").append(1)
        return self.body(images)


def test_a_pass_never_changes_the_identity():
    model = Busy().eval()
    feats = []
    model.body[0].register_forward_hook(lambda module, inputs, output: feats.append(output))
    before = identity(model)
    model(IMAGES)
    assert identity(model) == before
    model(IMAGES[:2])
    assert identity(model) == before
    assert identity(Busy().eval()) != before  # it has no hook


def test_what_passes_write_is_the_only_thing_left_out():
    def busy(**attributes):
        model = Busy()
        vars(model).update(attributes)
        return identity(model)

    names = {busy(), busy(scale=1), busy(scale=2), busy(shift=torch.ones(2)), busy(shift=torch.zeros(2))}
    assert len(names) == 5
    assert busy(calls=7, maps=[1], last=IMAGES) == busy()


class Tempered(Foreign):
    def set_temperature(self, value):
        self.temperature = value

    def forward(self, images):
        if self.training:
            self.scale = images.std()
        return self.body(images) / self.temperature * self.scale


def test_a_setter_that_no_pass_calls_sets_something_that_counts():
    one, two = (Tempered(temperature=1.0, scale=1.0) for _ in range(2))
    two.set_temperature(2.0)
    assert identity(one) != identity(two)
    assert identity(one) != identity(Tempered(temperature=1.0, scale=2.0))


@pytest.mark.parametrize("make", [Busy, lambda: Sly(kept=[])], ids=["busy", "sly"])
def test_separate_calls_see_one_system(make):
    model = make().eval()
    first = craft(model, (IMAGES, LABELS), "pgd-2")
    second = craft(model, (IMAGES, LABELS), "fgsm")
    assert first.crafted_on == second.crafted_on
    for examples in (first, second):
        assert classify(model, examples).protocol == "white-box"
    assert [row.protocol for row in evaluate(model, (IMAGES, LABELS), ["fgsm", "pgd-2"]).rows[1:]] == ["white-box"] * 3
    with torch.no_grad():
        model.body[2].bias += 1e-3
    assert classify(model, first).protocol == "transfer"


@pytest.mark.parametrize("library", [json, np, F, torch, nn, sys, importlib.util], ids=lambda library: library.__name__)
def test_a_held_library_costs_nothing(library):
    started = time.process_time()
    names = {identity(Foreign(library=library)), identity(Foreign()), identity(Foreign(library=re))}
    assert len(names) == 3
    assert time.process_time() - started < 2


def test_shared_references_are_walked_once():
    def nest(depth, leaf):
        value = leaf
        for _ in range(depth):
            value = [value, value, {"again": value}]
        return value

    started = time.process_time()
    assert identity(Foreign(nest=nest(30, 1))) == identity(Foreign(nest=nest(30, 1)))
    assert identity(Foreign(nest=nest(30, 1))) != identity(Foreign(nest=nest(30, 2)))
    many = [{"row": index, "to": None} for index in range(5_000)]
    for row in many:
        row["to"] = many[0]
    identity(Foreign(many=many))
    assert time.process_time() - started < 5


def outer(kind):
    if kind == "one":
        return lambda x: [(lambda y: y + 1)(v) for v in x]
    return lambda x: [(lambda y: y + 2)(v) for v in x]


class Config:
    def __init__(self, rate):
        self.rate = rate

    def scaled(self, x):
        return x * self.rate


def pairs():
    sparse = torch.eye(3).to_sparse()
    yield "decimals", Decimal("1.0"), Decimal("1.1")
    yield "fractions", fractions.Fraction(1, 2), fractions.Fraction(1, 3)
    yield "patterns", re.compile("a+"), re.compile("b+")
    yield "flags", re.compile("a", re.IGNORECASE), re.compile("a")
    yield "ranges", range(3), range(4)
    yield "slices", slice(1, 2), slice(1, 3)
    yield "deques", collections.deque([1, 2]), collections.deque([2, 1])
    yield "default dictionaries", collections.defaultdict(int), collections.defaultdict(list)
    yield "tensor methods", torch.ones(2).add, torch.zeros(2).add
    yield "method names", torch.ones(2).add, torch.ones(2).mul
    yield "sparse tensors", sparse, sparse * 2
    yield "csr tensors", torch.eye(3).to_sparse_csr(), (torch.eye(3) * 2).to_sparse_csr()
    yield "bfloat16", torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)
    yield "object arrays", np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)
    yield "nested functions", outer("one"), outer("two")
    yield "huge integers", 10**5000, 10**5000 + 1
    yield "configurations", Config(1), Config(2)
    yield "bound methods", Config(1).scaled, Config(2).scaled
    yield "paths", Path("a"), Path("b")
    yield "the order of dictionaries", {"a": 1, "b": 2}, {"b": 2, "a": 1}
    yield "the order of counters", collections.Counter("aab"), collections.Counter("baa")
    yield "sets of tuples", {(1, "a"), (2, "b")}, {(1, "b"), (2, "a")}
    yield "bytes", bytearray(b"a"), bytearray(b"b")
    yield "types", nn.ReLU, nn.GELU
    yield "numbers of NumPy", np.float32(1), np.float64(1)
    yield "strings of other classes", type("Name", (str,), {})("a"), "a"


@pytest.mark.parametrize(("first", "second"), [pair[1:] for pair in pairs()], ids=[pair[0] for pair in pairs()])
def test_values_that_differ_make_systems_that_differ(first, second):
    names = [identity(Foreign(value=value)) for value in (first, copy.copy(first), second)]
    assert names[0] == names[1] != names[2]
    assert not any(name.endswith("?") for name in names)


class Local(threading.local):
    """A class of the user's that a library's threads would keep apart."""


class Level(enum.Enum):
    LOW, HIGH = 1, 2


@dataclasses.dataclass(slots=True)
class Slotted:
    rate: float


def local(value):
    made = Local()
    made.scale = value
    return made


def variable(value):
    made = contextvars.ContextVar("scale")
    made.set(value)
    return made


def dispatched(factor):
    function = functools.singledispatch(lambda x: x)
    function.register(int, lambda x: x * factor)
    return function


def module(name, value):
    made = types.ModuleType(name)
    made.scale = value
    return made


def marked(tensor, value):
    tensor.scale = value
    return tensor


CONFIGS = [Config(1), Config(2)]
MADE = {
    "counts": lambda value: itertools.count(value),
    "thread locals": local,
    "context variables": variable,
    "masked arrays": lambda value: np.ma.array([1, 2], mask=[value == 1, False]),
    "ordered dictionaries": lambda value: collections.OrderedDict([(value, 0), (3 - value, 0)]),
    "views of dictionaries": lambda value: types.MappingProxyType({value: 0, 3 - value: 0}),
    "dispatched functions": dispatched,
    "modules made by hand": lambda value: module("mine", value),
    "modules with a library's name": lambda value: module("torch", value),
    "members of enumerations": Level,
    "slots of dataclasses": Slotted,
    "references": lambda value: weakref.ref(CONFIGS[value - 1]),
    "proxies": lambda value: weakref.proxy(CONFIGS[value - 1]),
    "partials": lambda value: functools.partial(F.relu, inplace=value == 1),
    "operators": lambda value: [torch.ops.aten.relu, torch.ops.aten.sigmoid][value - 1],
    "functions of C": lambda value: [torch.relu, torch.sigmoid][value - 1],
    "seeds of torch": lambda value: torch.Generator().manual_seed(value),
    "seeds of NumPy": np.random.default_rng,
    "seeds of several numbers": lambda value: np.random.default_rng([value, 7]),
    "spawned seeds": lambda value: np.random.default_rng(np.random.SeedSequence(1).spawn(2)[value - 1]),
    "kinds of NumPy's sources": lambda value: [np.random.PCG64, np.random.Philox][value - 1](3),
    "attributes of tensors": lambda value: marked(torch.ones(2), value),
    "attributes of parameters": lambda value: marked(nn.Parameter(torch.ones(2)), value),
    "typed storages": lambda value: torch.full((2,), value).storage(),
    "storages": lambda value: [torch.full((2,), it).untyped_storage() for it in (value, 0, value)],
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_values_made_anew_are_equal_and_others_are_not(make):
    names = [identity(Foreign(value=make(value))) for value in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    assert not any(name.endswith("?") for name in names)


@pytest.mark.parametrize(
    "make", [itertools.cycle, lambda values: (value for value in values), open], ids=["cycle", "generator", "file"]
)
def test_what_shows_its_content_only_by_giving_it_away_is_unverified(make, tmp_path):
    (tmp_path / "file").touch()
    value = make(tmp_path / "file" if make is open else [1, 2])
    try:
        assert identity(Foreign(value=value)).endswith("?")
    finally:
        if make is open:
            value.close()


@pytest.mark.parametrize("make", [random.Random, np.random.RandomState], ids=["Python", "NumPy"])
def test_a_source_of_draws_that_forgets_its_seed_is_unverified(make):
    assert identity(Foreign(source=make(1))).endswith("?")


@pytest.mark.parametrize("make", [random.SystemRandom, np.random.default_rng], ids=["the system's", "no seed"])
def test_draws_that_no_seed_repeats_are_the_same_system(make):
    assert identity(Foreign(source=make())) == identity(Foreign(source=make()))


def test_an_attribute_that_is_set_on_a_parameter_of_the_model_counts():
    names = []
    for value in (None, 1.0, 2.0):
        model = Foreign()
        if value is not None:
            model.body[2].weight.scale = value
        names.append(identity(model))
        with torch.no_grad():
            model(IMAGES)
        assert identity(model) == names[-1]
    assert len(set(names)) == 3
    model.body[2].weight.scale = 1.0
    assert identity(model) == names[1]


def test_hooks_backward_hooks_and_classes_count():
    plain, squared = Foreign(), Foreign()
    squared.__class__ = type("Foreign", (Foreign,), {"forward": lambda self, x: self.body(x) ** 2})
    cubed = Foreign()
    cubed.__class__ = type("Foreign", (Foreign,), {"forward": lambda self, x: self.body(x) ** 3})
    constant = Foreign()
    constant.__class__ = type("Foreign", (Foreign,), {"factor": 2})
    backward = Foreign()
    backward.body.register_full_backward_hook(lambda module, inputs, outputs: None)
    assert len({identity(model) for model in (plain, squared, cubed, constant, backward)}) == 5


HELPER = "SCALE = 1.0\ndef scaled(x): return SCALE * x\nclass Head:\n    def __call__(self, x): return x\n"
MODEL = """
import torch, helping
from torch import nn
from helping import Head
class Net(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0)
        self.body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 4))
    def forward(self, x): return Head()(helping.scaled(self.body(x)))
def build(): return Net().eval()
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE * x", "SCALE + x"),
        ("SCALE = 1.0", "SCALE = 2.0"),
        ("def __call__(self, x): return x", "def __call__(self, x): return -x"),
    ],
)
def test_an_edited_helper_file_is_another_system(tmp_path, old, new):
    (tmp_path / "m.py").write_text(MODEL)

    def named(helper):
        (tmp_path / "helping.py").write_text(helper)
        sys.modules.pop("helping", None)
        linecache.clearcache()
        return identity(load_module(f"{tmp_path / 'm.py'}:build"))

    assert named(HELPER) != named(HELPER.replace(old, new))
    assert len(named(HELPER)) == 16


def test_the_same_file_in_another_folder_is_the_same_system(tmp_path):
    names = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.py").write_text(
            MODEL.replace(", helping", "")
            .replace("from helping import Head", "")
            .replace("Head()(helping.scaled(self.body(x)))", "self.body(x)")
        )
        names.add(identity(load_module(f"{tmp_path / folder / 'm.py'}:build")))
    assert len(names) == 1


@pytest.mark.filterwarnings("ignore:.*cannot be copied")
def test_what_cannot_be_read_is_unverified_and_never_white_box():
    model = Foreign(images=(value for value in range(3)), threads=__import__("threading").Lock()).eval()
    name = identity(model)
    assert len(name) == 17
    assert name.endswith("?")
    with pytest.warns(UnfoolWarning, match=r"images is a generator.*unverified"):
        examples = craft(model, (IMAGES, LABELS), "fgsm")
    with pytest.warns(UnfoolWarning, match="unverified"):
        assert classify(model, examples).protocol == "unverified"
    with pytest.warns(UnfoolWarning, match="unverified"):
        rows = evaluate(model, (IMAGES, LABELS), ["fgsm", "pgd-2"]).rows
    assert [row.protocol for row in rows] == ["clean", "unverified", "unverified", "unverified"]
    assert classify(Foreign().eval(), examples).protocol == "transfer"


def test_scripts_traces_and_exports_have_an_identity():
    def of(scale):
        body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 4)).eval()
        nn.init.constant_(body[2].weight, scale)
        nn.init.zeros_(body[2].bias)
        exported = torch.export.export(body, (IMAGES,)).module()
        return [body, torch.jit.script(body), torch.jit.trace(body, IMAGES), exported, torch.compile(body)]

    for first, again, other in zip(of(1.0), of(1.0), of(2.0), strict=True):
        assert identity(first) == identity(again) != identity(other)
        assert len(identity(first)) == 16
        with one_identity(first) as name:
            first(IMAGES) if not hasattr(first, "_orig_mod") else None
        assert identity(adapt(first)) == identity(adapt(first))
        assert identity(first) == name


def test_where_a_network_lies_and_what_was_drawn_do_not_count():
    generator, numbers = torch.Generator().manual_seed(1), np.random.default_rng(1)
    model = Foreign(generator=generator, numbers=numbers, device=torch.device("cpu"))
    before = identity(model)
    torch.rand(3, generator=generator)
    numbers.random(3)
    model.device = torch.device("cuda")
    assert identity(model) == before
