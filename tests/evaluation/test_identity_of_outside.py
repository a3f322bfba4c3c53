"""The identity of models whose passes read what lies outside of them: it cannot be told, and says so."""

import builtins
import functools
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from attributed_model import Foreign
from torch import nn

from unfool import classify, craft, identity
from unfool.core.errors import UnfoolWarning

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def read_anywhere(path):
    return float(np.load(path))


class Cached(Foreign):
    @functools.cached_property
    def scale(self):
        return torch.load("scale.pt")

    def forward(self, images):
        return self.body(images) * self.scale


class Built(Foreign):
    """Reads its file before any pass."""

    def __init__(self):
        super().__init__()
        self.scale = torch.load("scale.pt")

    def forward(self, images):
        return self.body(images) * self.scale


READS = {
    "open": lambda x: x * float(open("scale.txt").read()),  # noqa: SIM115
    "paths": lambda x: x * float(Path("scale.txt").read_text()),
    "NumPy": lambda x: x * float(np.load("scale.npy")),
    "a helper": lambda x: x * read_anywhere("scale.npy"),
    "torch": lambda x: x * torch.load("scale.pt"),
    "a hub": lambda x: torch.hub.load("somebody", "net")(x),
    "programs": lambda x: x * float(os.popen("cat scale.txt").read()),
    "the command line": lambda x: x * float(sys.argv[1]),
    "docstrings": lambda x: x * float(read_anywhere.__doc__),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_pass_that_reads_from_outside_is_unverified(read):
    class Reads(Foreign):
        def forward(self, images):
            return read(self.body(images))

    hooked = Foreign()
    hooked.body.register_forward_hook(lambda module, images, outputs: read(outputs))
    for model in (Reads(), hooked, Foreign(forward=read)):
        assert identity(model.eval()).endswith("?")


def test_what_is_read_before_or_beside_the_passes_counts_by_what_was_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for scale in (1.0, 1.0, 2.0):
        torch.save(torch.tensor(scale), "scale.pt")
        names.append(identity(Built()))
    assert names[0] == names[1] != names[2]
    assert not any(name.endswith("?") for name in names)
    assert identity(Cached()).endswith("?")
    examples = craft(Built(), (IMAGES, Built()(IMAGES).argmax(1)), "fgsm")
    assert classify(Built(), examples).protocol == "white-box"
    with pytest.warns(UnfoolWarning, match=r"reads files or other programs \(torch.load\).*named unverified"):
        examples = craft(Cached(), (IMAGES, Built()(IMAGES).argmax(1)), "fgsm")
    torch.save(torch.tensor(-1.0), "scale.pt")
    with pytest.warns(UnfoolWarning, match="named unverified"):
        records = classify(Cached(), examples)
    assert records.protocol == "unverified"


def test_an_operator_that_somebody_registered_is_unverified():
    library = torch.library.Library("unfool_tests", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")

    class Registered(Foreign):
        def forward(self, images):
            return torch.ops.unfool_tests.twice(self.body(images))

    class Own(Foreign):
        def forward(self, images):
            return torch.ops.aten.relu(self.body(images))

    assert identity(Registered()).endswith("?")
    assert not identity(Own()).endswith("?")
    library._destroy()


def test_what_stands_in_for_a_builtin_or_was_put_into_a_library_counts(monkeypatch):
    class Sums(Foreign):
        def forward(self, images):
            return sum([self.body(images)]) * getattr(np, "unfool_scale", 1) * np.unfool_scale

    names = []
    for factor in (1, 1, 2):
        monkeypatch.setattr(np, "unfool_scale", factor, raising=False)
        names.append(identity(Sums()))
    monkeypatch.setattr(builtins, "sum", lambda items: items[0] * 3)
    names.append(identity(Sums()))
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert not any(name.endswith("?") for name in names)


def test_the_class_of_a_tensor_is_code_too():
    def made(factor):
        class Scaled(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, kinds, args=(), kwargs=None):
                outputs = super().__torch_function__(function, kinds, args, kwargs or {})
                return outputs * factor if function is torch.nn.functional.linear else outputs

        model = Foreign()
        model.body[2].weight = nn.Parameter(model.body[2].weight.detach().as_subclass(Scaled))
        return identity(model)

    assert made(1) == made(1) != made(2)
    assert made(1) != identity(Foreign())


def test_draws_of_python_s_own_source_are_no_reading():
    class Draws(Foreign):
        def forward(self, images):
            return self.body(images) * random.random()

    assert not identity(Draws()).endswith("?")
