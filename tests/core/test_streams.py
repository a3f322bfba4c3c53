"""Streams: draws belong to images, come from SplitMix64, are uniform and independent, and touch no global state."""

import random

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.errors import SpecError
from unfool.core.streams import Streams

MASK = (1 << 64) - 1
DRAWS = {
    "bits": lambda streams, ids: streams.bits(ids, (2, 3)),
    "uniform": lambda streams, ids: streams.uniform(ids, (2, 3)),
    "uniform between": lambda streams, ids: streams.uniform(ids, (4,), -2.0, 5.0),
    "integers": lambda streams, ids: streams.integers(ids, 10, (5,)),
    "normal": lambda streams, ids: streams.normal(ids, (2, 3)),
    "exponential": lambda streams, ids: streams.exponential(ids, (3,)),
    "permutation": lambda streams, ids: streams.permutation(ids, 7),
}


def mixed(z):
    """The output function of SplitMix64, as in Steele, Lea & Flood 2014, figure 17 (variant 13 of the mixer)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def split_mix(state, count):
    values = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        values.append(mixed(state))
    return values


def test_the_reference_generator_gives_the_published_numbers():
    # First outputs for the seed 1234567 in the reference implementation's usual test vector.
    assert split_mix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**70), st.text(max_size=5), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
def test_bits_are_split_mix_of_the_mixed_id(seed, purpose, ids):
    streams = Streams(seed).named(purpose)
    ours = streams.bits(torch.tensor(ids), (2, 2))
    for row, image in zip(ours.flatten(1).tolist(), ids, strict=True):
        start = mixed((image * 0x9E3779B97F4A7C15 + streams.key) & MASK)
        assert [value & MASK for value in row] == split_mix(start, 4)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_splitting_or_permuting_a_batch_changes_no_draw(draw):
    streams = Streams(7).named("crop").at(3)
    ids = torch.tensor([5, 0, 123456789, 2**40, 17, 6])
    whole = draw(streams, ids)
    assert torch.equal(torch.cat([draw(streams, ids[:2]), draw(streams, ids[2:])]), whole)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert torch.equal(draw(streams, ids[order]), whole[order])
    assert torch.equal(draw(Streams(7).named("crop").at(3), ids), whole)
    assert draw(streams, ids[:0]).shape == (0, *whole.shape[1:])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_global_generators_are_neither_read_nor_written(draw):
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = draw(Streams(1), torch.arange(4))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert (np.random.get_state()[1] == numpy_state).all()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert torch.equal(draw(Streams(1), torch.arange(4)), first)


def test_distributions():
    streams, ids = Streams(11), torch.arange(5000)
    uniform = streams.named("u").uniform(ids, (4,))
    assert uniform.dtype == torch.float32
    assert float(uniform.min()) >= 0.0
    assert float(uniform.max()) < 1.0
    assert scipy.stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    between = streams.named("between").uniform(ids, (4,), -2.0, 5.0).flatten().numpy()
    assert scipy.stats.kstest(between, scipy.stats.uniform(-2, 7).cdf).pvalue > 1e-3
    assert scipy.stats.kstest(streams.named("n").normal(ids, (4,)).flatten().numpy(), "norm").pvalue > 1e-3
    assert scipy.stats.kstest(streams.named("e").exponential(ids, (4,)).flatten().numpy(), "expon").pvalue > 1e-3
    counts = np.bincount(streams.named("i").integers(ids, 10, (4,)).flatten().numpy(), minlength=10)
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_each_order_of_a_permutation_is_equally_likely():
    orders = Streams(2).permutation(torch.arange(6000), 3)
    assert torch.equal(orders.sort(1).values, torch.arange(3).expand(6000, 3))
    counts = np.unique((orders * torch.tensor([9, 3, 1])).sum(1).numpy(), return_counts=True)[1]
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_seeds_purposes_draws_ids_and_elements_are_uncorrelated():
    ids = torch.arange(20000)
    base = Streams(0).named("crop").at(0)
    rivals = [
        base.uniform(ids),
        base.uniform(ids + 1),
        base.uniform(ids, (2,))[:, 1],
        Streams(0).named("crop").at(1).uniform(ids),
        Streams(0).named("flip").at(0).uniform(ids),
        Streams(0).at(0).named("crop").uniform(ids),
        Streams(0).named("crop").named("crop").at(0).uniform(ids),
        Streams(0).uniform(ids),
        Streams(1).named("crop").at(0).uniform(ids),
    ]
    correlation = np.corrcoef(torch.stack(rivals).numpy())
    np.fill_diagonal(correlation, 0.0)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(ids))
    # Bit by bit: neighbouring ids differ in half of their 64 bits, in each of the 64 places.
    flips = base.bits(ids) ^ base.bits(ids + 1)
    shares = torch.stack([(flips >> place) & 1 for place in range(64)]).double().mean(1)
    assert float((shares - 0.5).abs().max()) < 5 * 0.5 / np.sqrt(len(ids))


def test_no_two_of_many_draws_collide():
    bits = Streams(0).bits(torch.arange(20000), (8,))
    assert len(bits.unique()) == bits.numel()


@pytest.mark.parametrize("seed", [-1, 1.5, "3", None, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(SpecError, match="whole number"):
        Streams(seed)


@pytest.mark.parametrize("below", [0, -3, 2**31])
def test_bad_ranges_are_refused(below):
    with pytest.raises(SpecError):
        Streams(0).integers(torch.arange(2), below)


def test_the_largest_range_does_not_overflow():
    drawn = Streams(0).integers(torch.arange(1000), 2**31 - 1)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) > 2**30


@pytest.mark.parametrize(
    "pattern",
    [
        0,
        -1,
        1 << 62,
        -(1 << 63),
    ],
)
def test_extreme_bits_give_finite_draws_inside_their_range(pattern, monkeypatch):
    monkeypatch.setattr(Streams, "bits", lambda self, ids, shape=(): torch.full((len(ids), *shape), pattern))
    ids = torch.arange(2)
    assert torch.isfinite(Streams(0).normal(ids)).all()
    exponential = Streams(0).exponential(ids)
    assert torch.isfinite(exponential).all()
    assert (exponential > 0).all()
    assert (Streams(0).uniform(ids, (), 5.0, 6.0) < 6.0).all()
    assert (Streams(0).integers(ids, 7) < 7).all()


def test_they_print_their_seed():
    assert repr(Streams(3)) == "Streams(3)"
    assert repr(Streams(3).named("crop")) == f"Streams(3, key={Streams(3).named('crop').key})"
