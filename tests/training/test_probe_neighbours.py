"""The nearest-neighbour probe against a literal loop in float64, whatever the blocks in which it computes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.streams import Streams
from unfool.training.probing import neighbours as probe_neighbours
from unfool.training.probing.neighbours import nearest_classes


def literal(train, labels, judged, neighbours, classes):
    """Wu et al. 2018, section 3.4, image by image."""
    train, judged = train.double().numpy(), judged.double().numpy()
    found = []
    for image in judged:
        similar = [row @ image / max(np.linalg.norm(row) * np.linalg.norm(image), 1e-300) for row in train]
        nearest = sorted(range(len(train)), key=lambda row: -similar[row])[:neighbours]
        votes = [0.0] * classes
        for row in nearest:
            votes[int(labels[row])] += math.exp(similar[row] / 0.07)
        found.append(votes.index(max(votes)))
    return found


def drawn(count, size, name):
    return Streams(1).named(name).normal(torch.arange(count), (size,))


@given(
    count=st.integers(1, 40),
    judged=st.integers(1, 12),
    size=st.integers(2, 9),
    neighbours=st.integers(1, 50),
    block=st.integers(1, 50),
)
@settings(max_examples=40)
def test_the_votes_are_those_of_a_literal_loop(count, judged, size, neighbours, block):
    train, images = drawn(count, size, "train"), drawn(judged, size, "judged")
    labels = Streams(2).integers(torch.arange(count), 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_neighbours, "_AT_ONCE", block)
        found = nearest_classes(train, labels, images, neighbours, 5)
    assert found.tolist() == literal(train, labels, images, neighbours, 5)


def test_votes_are_weighted_and_lengths_do_not_count():
    train = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.1]])
    labels = torch.tensor([0, 1, 1])
    # One image in the very direction outweighs two at 45 degrees: exp(1 / 0.07) against 2 exp(0.7 / 0.07).
    assert nearest_classes(train * 100, labels, torch.tensor([[0.01, 0.0]]), 3, 2).tolist() == [0]
    assert nearest_classes(train, labels, torch.tensor([[1.0, 0.9]]), 3, 2).tolist() == [1]


def test_images_without_features_are_no_error():
    assert nearest_classes(torch.zeros(3, 4), torch.tensor([1, 1, 0]), torch.zeros(2, 4), 3, 2).tolist() == [1, 1]
