# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A random model with its draws pinned: every pass draws the same for an image.

Legend: B images of the batch, n of them in play.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.models.modes import frozen_eval, random_layers

_NUMPY_SEEDS = 2**32


@contextmanager
def pinned_draws(model: nn.Module, streams: Streams) -> Generator[None, None, None]:
    """Inside, what a model draws follows from ``streams``; after, all random states are as they were.

    That is: the global states of torch, of NumPy and of Python, and the generators that its modules hold.
    """
    held = _generators(model)
    states = [generator.get_state() for generator in held]
    ours, theirs = random.getstate(), np.random.get_state()
    key = streams.key % _NUMPY_SEEDS
    try:
        with random_layers(streams):
            random.setstate(random.Random(key).getstate())
            np.random.set_state(np.random.RandomState(key).get_state())
            for generator in held:
                generator.manual_seed(streams.key)
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)
        for generator, state in zip(held, states, strict=True):
            generator.set_state(state)


def draws_at_random(model: nn.Module, images: Tensor) -> bool:
    """Whether a model draws from any of those sources as it classifies, even where its outputs do not show it."""
    with torch.inference_mode(False), torch.no_grad(), frozen_eval(model), pinned_draws(model, Streams(0)):
        before = _states(model)
        model(images.clone())
        return any(not np.array_equal(old, new) for old, new in zip(before, _states(model), strict=True))


def _states(model: nn.Module) -> list[np.ndarray]:
    """The random states that a model may draw from."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    states = [torch.random.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    numbers = np.random.get_state(legacy=False)["state"]
    own = [state.numpy() for state in (*states, *(generator.get_state() for generator in _generators(model)))]
    return [*own, *(np.asarray(numbers[key]) for key in ("key", "pos")), np.asarray(random.getstate()[1])]


def _generators(model: nn.Module) -> list[torch.Generator]:
    return [value for part in model.modules() for value in vars(part).values() if isinstance(value, torch.Generator)]


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
