"""Permutation sets against exhaustive search where that can be done, and against the published construction."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.errors import SpecError
from unfool.tasks.permutations import hamming, permutation_set

FOUR = list(itertools.permutations(range(4)))


def distance(left, right):
    return sum(a != b for a, b in zip(left, right, strict=True))


def closest(found):
    return min(distance(a, b) for a, b in itertools.combinations(found.tolist(), 2))


def largest_set(least):
    """How many permutations of four can lie at least so far apart, by looking at all sets that hold the identity.

    Renaming the things takes any set to one with the identity, and changes no distance.
    """
    best = 0

    def extend(size, candidates):
        nonlocal best
        best = max(best, size)
        for index, one in enumerate(candidates):
            if size + len(candidates) - index > best:
                extend(size + 1, [other for other in candidates[index + 1 :] if distance(one, other) >= least])

    extend(1, [one for one in FOUR[1:] if distance(FOUR[0], one) >= least])
    return best


def published(count, first):
    """Least distances in the sets of 1 … count permutations of nine that Noroozi & Favaro's algorithm 1 makes.

    Each next one has the greatest sum of distances to those chosen, and is taken off the list; the first is given.
    """
    every = np.array(list(itertools.permutations(range(9))), dtype=np.uint8).T.copy()
    sums, least = np.zeros(every.shape[1], dtype=np.int32), np.full(every.shape[1], 9)
    left, chosen, found = np.ones(every.shape[1], dtype=bool), first, [9]
    for _ in range(count - 1):
        left[chosen] = False
        distances = (every != every[:, chosen, None]).sum(0, dtype=np.uint8)
        sums, least = sums + distances, np.minimum(least, distances)
        chosen = int(np.where(left, sums, -1).argmax())
        found.append(min(found[-1], int(least[chosen])))
    return found


def test_distances_are_the_places_that_differ():
    found = hamming(np.array(FOUR).T, np.array(FOUR[7]))
    assert found.tolist() == [distance(one, FOUR[7]) for one in FOUR]


@pytest.mark.parametrize("seed", range(4))
def test_no_set_of_four_things_is_farther_apart(seed):
    room = {least: largest_set(least) for least in (2, 3, 4)}
    assert room == {2: 24, 3: 12, 4: 4}
    for count in range(2, 25):
        best = max(least for least in room if room[least] >= count)
        assert closest(permutation_set(4, count, seed=seed)) == best


@pytest.mark.parametrize("seed", range(4))
def test_no_permutation_of_four_left_out_is_farther_from_the_original(seed):
    farthest = sorted((distance(one, range(4)) for one in FOUR), reverse=True)
    for count in range(1, 25):
        found = permutation_set(4, count, "original", seed)
        assert [distance(one, range(4)) for one in found.tolist()] == farthest[:count]


@pytest.mark.parametrize("first", [0, 123456])
def test_nine_things_are_farther_apart_than_in_the_published_sets(first):
    theirs = published(100, first)
    ours = {count: closest(permutation_set(9, count, seed=first)) for count in (30, 100)}
    assert ours == {30: 7, 100: 6}
    assert ours[30] >= theirs[29]
    assert ours[100] >= theirs[99]


def test_of_nine_things_none_stays_where_it_was():
    found = permutation_set(9, 1000, "original", seed=3)
    assert not (found == torch.arange(9)).any()
    assert len(found.unique(dim=0)) == 1000
    # Drawn among 133,496, and not the first of a list: about as many begin with each thing.
    assert found[:, 0].bincount(minlength=9)[1:].min() > 80


@settings(max_examples=30)
@given(
    things=st.integers(2, 6),
    share=st.floats(0, 1),
    reading=st.sampled_from(["pairwise", "original"]),
    seed=st.integers(0, 1 << 40),
)
def test_a_set_holds_different_permutations_and_hangs_on_its_seed_alone(things, share, reading, seed):
    count = max(1, min(60, round(share * math.factorial(things))))
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    found = permutation_set(things, count, reading, seed)
    assert found.dtype == torch.int64
    assert torch.equal(found.sort(dim=1).values, torch.arange(things).expand(count, things))
    assert len(set(map(tuple, found.tolist()))) == count
    torch.manual_seed(seed + 1)
    found[0] = 0
    again = permutation_set(things, count, reading, seed)
    assert torch.equal(again[1:], found[1:])
    assert again[0].any()
    torch.manual_seed(seed)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("reading", ["pairwise", "original"])
def test_another_seed_gives_another_set(reading):
    one, other = (permutation_set(9, 20, reading, seed) for seed in (0, 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((4, 25), "25 permutations of 4 things"),
        ((4, 0), "give 1 to 24"),
        ((10, 5), "give 2 to 9"),
        ((1, 1), "give 2 to 9"),
        ((4, 5, "pairwse"), "did you mean 'pairwise'"),
        ((4, 5, "pairwise", -1), "seed -1"),
    ],
)
def test_what_cannot_be_had_is_refused(given, message):
    with pytest.raises(SpecError, match=message):
        permutation_set(*given)
