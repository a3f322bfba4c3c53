# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A random model with its draws pinned: every pass draws the same for an image.

Legend: B images of the batch, n of them in play.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.models.modes import frozen_eval, random_layers
from unfool.models.outside.outputs import same_logits

_NUMPY_SEEDS = 2**32
_REPEATS = 3
"""Passes that must agree where draws are fixed."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A source of draws: how its state is read, set again, and set by a seed."""

    state: Callable[[], Any]
    restore: Callable[[Any], Any]
    seed: Callable[[int], Any]


@contextmanager
def pinned_draws(model: nn.Module, streams: Streams) -> Generator[None, None, None]:
    """Inside, what a model draws follows from ``streams``; after, all random states are as they were.

    That is: the global states of torch, of NumPy and of Python, and the generators of all three that its modules hold
    as attributes, also in lists, tuples and dicts.
    """
    sources = _sources(model)
    states = [source.state() for source in sources]
    try:
        with random_layers(streams):
            for source in sources:
                source.seed(streams.key)
            yield
    finally:
        for source, state in zip(sources, states, strict=True):
            source.restore(state)


def draws_at_random(model: nn.Module, images: Tensor) -> bool:
    """Whether a model draws from any of those sources as it classifies, even where its outputs do not show it."""
    with torch.inference_mode(False), torch.no_grad(), frozen_eval(model), pinned_draws(model, Streams(0)):
        before = _states(model)
        model(images.clone())
        after = _states(model)
    # A pass that makes a generator or drops one draws too.
    return len(before) != len(after) or not all(_equal(*states) for states in zip(before, after, strict=True))


def draws_stay_fixed(model: nn.Module, images: Tensor) -> bool:
    """Whether `pinned_draws` fixes all that a model draws: passes give equal logits (B, K) then.

    They do not where it draws from elsewhere: the operating system, generators that it makes anew or hides in objects.
    """
    with torch.inference_mode(False), torch.no_grad(), frozen_eval(model):
        passes: list[Tensor] = []
        for _ in range(_REPEATS):
            with pinned_draws(model, Streams(0)):
                passes.append(model(images.clone()))
    return all(same_logits(logits, passes[0]) for logits in passes[1:])


def _states(model: nn.Module) -> list[Any]:
    """The random states that a model may draw from."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    states = [torch.random.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    return [*states, *(source.state() for source in _sources(model))]


def _sources(model: nn.Module) -> list[_Source]:
    """The sources of draws that have to be set by hand: all but torch's global states."""
    python = _Source(
        state=random.getstate,
        restore=random.setstate,
        seed=lambda key: random.setstate(random.Random(key % _NUMPY_SEEDS).getstate()),
    )
    numpy = _Source(
        state=np.random.get_state,
        restore=np.random.set_state,
        seed=lambda key: np.random.set_state(np.random.RandomState(key % _NUMPY_SEEDS).get_state()),
    )
    held = {id(value): value for part in model.modules() for value in _values(vars(part), set())}
    return [python, numpy, *(source for value in held.values() if (source := _source_of(value)) is not None)]


def _values(container: Any, seen: set[int]) -> Iterator[Any]:
    """What a container holds, and what containers in it hold."""
    if id(container) in seen:
        return
    seen.add(id(container))
    for value in container.values() if isinstance(container, dict) else container:
        if isinstance(value, (list, tuple, dict)):
            yield from _values(value, seen)
        else:
            yield value


def _source_of(value: Any) -> _Source | None:
    """A generator of torch, NumPy or Python as a source; None for anything else, and for one without a state."""
    if isinstance(value, torch.Generator):
        return _Source(state=value.get_state, restore=value.set_state, seed=value.manual_seed)
    if isinstance(value, np.random.RandomState):
        if not isinstance(value._bit_generator, np.random.MT19937):  # It can neither be seeded nor wholly restored.
            return None
        return _Source(state=value.get_state, restore=value.set_state, seed=lambda key: value.seed(key % _NUMPY_SEEDS))
    if isinstance(value, np.random.Generator):
        return _source_of(value.bit_generator)
    if isinstance(value, np.random.BitGenerator):

        def restore(state: Any) -> None:
            value.state = state

        return _Source(
            state=lambda: value.state, restore=restore, seed=lambda key: restore(type(value)(key % _NUMPY_SEEDS).state)
        )
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return _Source(state=value.getstate, restore=value.setstate, seed=value.seed)
    return None


def _equal(first: Any, second: Any) -> bool:
    """Whether two states are the same, whatever they are made of."""
    if isinstance(first, dict):
        return all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return all(_equal(left, right) for left, right in zip(first, second, strict=True))
    return bool(np.array_equal(first, second))


class Pinned(nn.Module):
    """A random model whose draws are the same in every pass, image by image.

    Draws belong to places in a batch. So that an image keeps its own while others leave the batch, those that are in
    play are put back at their places, and the rest of the batch is filled up.

    Args:
        model: The model; it is left as it is.
        streams: What the draws follow from.

    Example:
        >>> from unfool.models.surrogates.pinned import Pinned
        >>> noisy = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Flatten()).train()
        >>> pinned, images = Pinned(noisy, unfool.Streams(0)), torch.rand(4, 1, 2, 2)
        >>> torch.equal(pinned(images), pinned(images))
        True
        >>> rows = torch.tensor([3, 1])
        >>> torch.equal(pinned(images, torch.arange(4))[rows], pinned(images[rows], rows))
        True
    """

    by_row = True

    def __init__(self, model: nn.Module, streams: Streams):
        super().__init__()
        self.model = model
        self.streams = streams
        self.places = 0
        self.train(model.training)

    def forward(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        if rows is None:
            rows = torch.arange(len(images), device=images.device)
        self.places = max(self.places, int(rows.max()) + 1) if len(rows) else self.places
        turns = _turns(rows)
        logits = [self._pass(images[turns == turn], rows[turns == turn]) for turn in range(int(turns.max()) + 1)]
        order = torch.cat([(turns == turn).nonzero().squeeze(1) for turn in range(len(logits))])
        return torch.cat(logits)[order.argsort()]

    def _pass(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits of images at different places."""
        filled = images.new_full((self.places, *images.shape[1:]), 0.5).index_copy(0, rows, images)
        with pinned_draws(self.model, self.streams):
            return self.model(filled)[rows]


def _turns(rows: Tensor) -> Tensor:
    """How often each row came before it: rows of one turn are all different."""
    order = rows.argsort(stable=True)
    ordered = rows[order]
    places = torch.arange(len(rows), device=rows.device)
    first = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
    start = torch.where(first, places, 0).cummax(0).values
    turns = torch.empty_like(places)
    turns[order] = places - start
    return turns
