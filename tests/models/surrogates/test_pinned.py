"""A random model's draws can be pinned: image by image, wherever they come from, whoever else is in the batch."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from unfool.core.streams import Streams
from unfool.models.surrogates.pinned import Pinned, draws_at_random, draws_stay_fixed, pinned_draws

SOURCES = [
    "torch",
    "own",
    "numpy",
    "python",
    "own in a list",
    "own numpy",
    "own numpy in a dict",
    "own legacy numpy",
    "own legacy numpy in a dict",
    "own bits of numpy",
    "own python",
]


class Noisy(nn.Module):
    """Adds noise from one source to the first four pixels, and gives them."""

    def __init__(self, source):
        super().__init__()
        self.source = source
        self.own = torch.Generator()
        self.listed = [(torch.Generator(),), 0.5]
        self.named = {"numpy": np.random.default_rng(0), "legacy": np.random.RandomState(0)}
        self.legacy, self.python = np.random.RandomState(1), random.Random(1)
        self.numpy, self.bits = np.random.default_rng(1), np.random.Philox(1)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        flat = x.flatten(1)[:, :4]
        noise = {
            "torch": lambda: torch.randn_like(flat),
            "own": lambda: torch.randn(flat.shape, generator=self.own),
            "numpy": lambda: torch.as_tensor(np.random.normal(size=flat.shape), dtype=flat.dtype),
            "python": lambda: torch.tensor(random.random()).expand_as(flat),
            "own in a list": lambda: torch.randn(flat.shape, generator=self.listed[0][0]),
            "own numpy": lambda: torch.as_tensor(self.numpy.normal(size=flat.shape), dtype=flat.dtype),
            "own numpy in a dict": lambda: torch.tensor(self.named["numpy"].normal()).expand_as(flat),
            "own legacy numpy": lambda: torch.tensor(self.legacy.normal()).expand_as(flat),
            "own legacy numpy in a dict": lambda: torch.tensor(self.named["legacy"].normal()).expand_as(flat),
            "own bits of numpy": lambda: torch.tensor(self.bits.random_raw() / 2**64).expand_as(flat),
            "own python": lambda: torch.tensor(self.python.gauss(0, 1)).expand_as(flat),
        }[self.source]()
        return flat + noise


@pytest.mark.parametrize("source", SOURCES)
def test_draws_stay_with_their_images(source):
    model, images = Noisy(source), torch.rand(6, 3, 2, 2)
    pinned = Pinned(model, Streams(0))
    every = torch.arange(6)
    whole = pinned(images, every)
    assert torch.equal(whole, pinned(images))
    for rows in ([4, 1], [5], [2, 0, 2, 2, 4, 0], [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]):
        rows = torch.tensor(rows)
        assert torch.equal(pinned(images[rows], rows), whole[rows])
    streams = [Streams(seed) for seed in range(1, 5)]
    assert {each.key < 0 for each in streams} == {True, False}
    assert not any(torch.equal(Pinned(model, each)(images, every), whole) for each in streams)
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("source", SOURCES)
def test_drawing_is_seen_even_where_outputs_hide_it(source):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.noisy = Noisy(source)

        def forward(self, x):
            return 0 * self.noisy(x)

    assert draws_at_random(Hidden(), torch.rand(2, 3, 2, 2))
    assert not draws_at_random(nn.Sequential(nn.Flatten(), nn.Dropout()), torch.rand(2, 3, 2, 2))


def test_random_states_are_left_as_they_were():
    model = Noisy("own")
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), model.own.get_state()
    with pinned_draws(model, Streams(0)):
        model(torch.rand(2, 3, 2, 2)), np.random.rand(), random.random()
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert torch.equal(before[3], model.own.get_state())


@pytest.mark.parametrize("source", SOURCES)
def test_a_models_own_generators_go_on_as_if_nothing_had_drawn(source):
    first, second, images = Noisy(source), Noisy(source), torch.rand(2, 3, 2, 2)
    with pinned_draws(first, Streams(0)):
        first(images)
    assert draws_at_random(first, images)
    if source.startswith("own"):
        assert torch.equal(first(images), second(images))


@pytest.mark.parametrize("source", SOURCES)
def test_draws_stay_fixed_where_their_source_is_known(source):
    assert draws_stay_fixed(Noisy(source), torch.rand(2, 3, 2, 2))


def test_generators_that_cannot_be_pinned_are_left_alone():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.legacy = np.random.RandomState(np.random.PCG64(1))
            self.made = []

        def forward(self, x):
            self.made.append(torch.Generator())
            return x.flatten(1)[:, :4] + self.legacy.normal()

    assert draws_at_random(Odd(), torch.rand(2, 3, 2, 2))  # it makes a generator
    assert not draws_stay_fixed(Odd(), torch.rand(2, 3, 2, 2))


def test_draws_of_generators_made_anew_do_not_stay_fixed():
    class Anew(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] + torch.as_tensor(np.random.default_rng().normal(size=4), dtype=x.dtype)

    assert not draws_stay_fixed(Anew(), torch.rand(2, 3, 2, 2))


def test_gradients_flow_to_the_images_in_play():
    model = Noisy("torch")
    leaves = torch.rand(2, 3, 2, 2).requires_grad_()
    pinned = Pinned(model, Streams(0))
    pinned(torch.rand(5, 3, 2, 2), torch.arange(5))
    gradient = torch.autograd.grad(pinned(leaves, torch.tensor([4, 2])).sum(), leaves)[0]
    assert torch.equal(gradient.flatten(1)[:, :4], torch.ones(2, 4))
