"""Tables: batches, subsets, and choices of rows that are stratified, disjoint and nested."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.stratify import exactly
from unfool.data.table import Table


def table_of(labels: list[int], side: int = 4) -> Table:
    count = len(labels)
    images = (torch.arange(count * 3 * side * side) % 256).to(torch.uint8).view(count, 3, side, side)
    return Table(
        DecodedPixels(images),
        torch.arange(count) * 10 + 3,
        {"label": torch.tensor(labels), "other": torch.tensor(labels) % 2},
        {"label": [str(name) for name in range(max(labels) + 1)], "other": ["even", "odd"]},
        label_column="label",
        name="made-up",
        split="train",
    )


def test_a_batch_holds_the_rows_asked_for_in_order_and_scaled():
    table = table_of([0, 1, 2, 0, 1, 2])
    batch = table.batch(torch.tensor([4, 0, 4]))
    expected = table.images.numpy()[[4, 0, 4]].astype(np.float32) / np.float32(255)
    assert batch.images.dtype == torch.float32
    np.testing.assert_array_equal(batch.images.numpy(), expected)
    assert batch.ids.tolist() == [43, 3, 43]
    assert batch.columns["label"].tolist() == [1, 0, 1]
    assert batch.columns["other"].tolist() == [1, 0, 1]


def test_every_byte_becomes_a_number_in_the_unit_interval():
    table = Table(
        DecodedPixels(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)),
        torch.zeros(1, dtype=torch.int64),
        {},
        {},
        label_column=None,
        name="ramp",
        split="train",
    )
    values = table.batch().images.flatten()
    assert values[0] == 0.0
    assert values[-1] == 1.0
    assert bool((values[1:] > values[:-1]).all())


def test_a_batch_is_a_copy_and_never_writes_into_the_table():
    table = table_of([0, 1])
    before = table.images.clone()
    table.batch().images.zero_()
    assert torch.equal(table.images, before)


def test_a_subset_of_a_subset_keeps_ids_pixels_and_labels():
    table = table_of([0, 1, 2, 3, 4, 5])
    inner = table.subset(torch.tensor([5, 3, 2])).subset(torch.tensor([False, True, True]))
    assert inner.ids.tolist() == [33, 23]
    assert torch.equal(inner.images, table.images[[3, 2]])
    assert torch.equal(inner.batch().images, table.batch(torch.tensor([3, 2])).images)
    assert torch.equal(inner.batch(torch.tensor([1])).images, table.batch(torch.tensor([2])).images)
    assert inner.labels().tolist() == [3, 2]
    assert len(inner) == 2


@pytest.mark.parametrize("rows", [torch.tensor([6]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor([[1]])])
def test_rows_outside_the_table_are_refused(rows):
    with pytest.raises(DataError, match="rows"):
        table_of([0, 1, 2, 3, 4, 5]).batch(rows)


labelled = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(labels=labelled, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_cut_is_disjoint_complete_exact_and_proportional(labels, share, seed):
    table = table_of(labels)
    count = round(share * len(labels))
    rest, held_out = table.cut(count, Streams(seed))
    assert len(held_out) == count
    assert sorted(rest.ids.tolist() + held_out.ids.tolist()) == table.ids.tolist()
    for label in set(labels):
        quota = labels.count(label) * count / len(labels)
        assert abs(int((held_out.labels() == label).sum()) - quota) < 1


@settings(max_examples=60, deadline=None)
@given(labels=labelled, small=st.floats(0.01, 1), large=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_fractions_are_nested_stratified_and_never_lose_a_class(labels, small, large, seed):
    small, large = sorted((small, large))
    table, streams = table_of(labels), Streams(seed)
    few, many = table.fraction(small, streams), table.fraction(large, streams)
    assert set(few.ids.tolist()) <= set(many.ids.tolist())
    for label in set(labels):
        taken = int((few.labels() == label).sum())
        assert taken >= 1
        assert abs(taken - labels.count(label) * small) <= max(0.5, 1 - labels.count(label) * small)
    assert torch.equal(table.fraction(1.0, streams).ids, table.ids)


def test_choices_depend_on_the_seed_and_the_id_alone():
    table, streams = table_of([row % 3 for row in range(90)]), Streams(1)
    chosen = table.fraction(0.2, streams)
    shuffled = table.subset(torch.randperm(90, generator=torch.Generator().manual_seed(0)))
    assert set(shuffled.fraction(0.2, streams).ids.tolist()) == set(chosen.ids.tolist())
    assert set(table.fraction(0.2, Streams(2)).ids.tolist()) != set(chosen.ids.tolist())
    assert table.cut(30, streams)[1].labels().bincount().tolist() == [10, 10, 10]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 1))
def test_an_exact_draw_gives_each_class_its_quota_and_the_rest_to_the_largest_remainders(labels, share):
    count = round(share * len(labels))
    classes = torch.tensor(labels)
    drawn = exactly(classes, torch.arange(len(labels)), count, Streams(3), "test")
    quotas = [labels.count(name) * count / len(labels) for name in sorted(set(labels))]
    taken = [int(drawn[classes == name].sum()) for name in sorted(set(labels))]
    assert sum(taken) == count
    more = [quota - int(quota) for quota, each in zip(quotas, taken, strict=True) if each > int(quota)]
    less = [quota - int(quota) for quota, each in zip(quotas, taken, strict=True) if each == int(quota)]
    assert len(more) + len(less) == len(taken)
    assert not more or not less or min(more) >= max(less) - 1e-9


def test_fractions_follow_the_column_they_are_asked_for():
    table = table_of([0, 2, 4, 6, 8, 10, 12, 1])
    assert table.fraction(0.01, Streams(0), column="other").labels("other").sort().values.tolist() == [0, 1]


def test_a_sample_is_fixed_without_repeats_and_nested():
    table = table_of([0] * 50)
    small, large = table.sample(10, Streams(0)), table.sample(20, Streams(0))
    assert len(set(small.ids.tolist())) == 10
    assert set(small.ids.tolist()) < set(large.ids.tolist())
    assert small.ids.tolist() == sorted(small.ids.tolist())
    assert small.ids.tolist() != table.sample(10, Streams(1)).ids.tolist()
    with pytest.raises(DataError, match="51 images"):
        table.sample(51, Streams(0))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_bad_shares_are_refused(share):
    with pytest.raises(DataError, match="share"):
        table_of([0, 1]).fraction(share, Streams(0))


def test_unknown_label_columns_are_refused_with_the_nearest_name():
    with pytest.raises(SpecError, match="did you mean 'label'"):
        table_of([0, 1]).fraction(0.5, Streams(0), column="lable")


def test_the_digest_tells_other_pixels_apart_and_nothing_else():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    table = Table.from_tensors(images, [0, 1])
    assert len(table.pixel_digest) == 32
    assert table.pixel_digest == Table.from_tensors(images.float() / 255, [1, 0], name="other").pixel_digest
    assert table.subset(torch.tensor([1])).pixel_digest == Table.from_tensors(images[1:], [1]).pixel_digest
    brighter = images.clone()
    brighter[1, 2, 3, 3] += 1
    digests = {table.pixel_digest, table.subset(torch.tensor([1, 0])).pixel_digest, table.subset([0]).pixel_digest}
    assert len({*digests, Table.from_tensors(brighter, [0, 1]).pixel_digest}) == 4
