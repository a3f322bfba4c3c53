"""The projection onto a hyperplane inside the box, against linear programs and a bisection in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from unfool.attacks.engines.hyperplane import plane_distances, to_hyperplane
from unfool.core.errors import SpecError

NORMS = ["linf", "l2", "l1"]


def draw(seed, count, size, zeros, spread, dtype=np.float64):
    """Points with values on the edge of the box, normals of which a share is zero and the rest differ by ``spread``
    orders of magnitude, and offsets on both sides of the points, some of which no point of the box has."""
    random = np.random.default_rng(seed)
    points = np.clip(random.uniform(-0.3, 1.3, (count, size)), 0, 1)
    normals = random.standard_normal((count, size)) * 10 ** (spread * random.uniform(-1, 0, (count, size)))
    normals = np.round(normals, 3) if seed % 3 == 0 else normals  # equal slopes
    normals *= random.random((count, size)) >= zeros
    highest, lowest = np.maximum(normals, 0).sum(1), np.minimum(normals, 0).sum(1)
    offsets = lowest + (highest - lowest) * random.uniform(-0.2, 1.2, count)
    return points.astype(dtype), normals.astype(dtype), offsets.astype(dtype)


def lengths(moves, norm_name):
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm_name]
    return np.linalg.norm(moves, ord=order, axis=-1)


def program(point, normal, gap, norm_name):
    """The shortest length in linf or l1 by a linear program over moves and their absolute values."""
    size = len(point)
    below = np.hstack([np.eye(size), -np.eye(size)]), np.hstack([-np.eye(size), -np.eye(size)])
    sizes = [(0, None)] * size
    if norm_name == "linf":  # one bound for all
        below = tuple(np.hstack([part[:, :size], -np.ones((size, 1))]) for part in below)
        sizes = [(0, None)]
    found = linprog(
        np.concatenate([np.zeros(size), np.ones(len(sizes))]),
        A_ub=np.vstack(below),
        b_ub=np.zeros(2 * size),
        A_eq=np.concatenate([normal, np.zeros(len(sizes))])[None],
        b_eq=[-gap],
        bounds=[*zip(-point, 1 - point, strict=True), *sizes],
    )
    assert found.status == 0, found.message
    return found.fun


def bisected(point, normal, gap):
    """The shortest move in l2: clip(-λ w) to the box, the multiplier by halving."""
    low, high = -1e12, 1e12
    for _ in range(300):
        middle = (low + high) / 2
        left = gap + normal @ np.clip(-middle * normal, -point, 1 - point)
        low, high = (middle, high) if left > 0 else (low, middle)
    return np.clip(-high * normal, -point, 1 - point)


@settings(max_examples=60)
@given(
    st.sampled_from(NORMS),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 5, 12, 70]),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([0.0, 4.0]),
)
def test_the_move_is_the_shortest_that_reaches_the_plane(norm_name, seed, size, zeros, spread):
    points, normals, offsets = draw(seed, 4, size, zeros, spread)
    moves = to_hyperplane(*map(torch.tensor, (points, normals, offsets)), norm_name).numpy()
    moved = points + moves
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (moves[normals == 0] == 0).all()
    for point, normal, offset, move in zip(points, normals, offsets, moves, strict=True):
        gap = normal @ point - offset
        corner = np.where(normal == 0, point, np.where(normal * gap > 0, 0.0, 1.0))
        if (normal @ corner - offset) * gap > 0:  # the plane misses the box
            np.testing.assert_array_equal(point + move, corner)
            continue
        assert abs(normal @ (point + move) - offset) <= 1e-12 * max(1, np.abs(normal).sum())
        if norm_name == "l2":
            np.testing.assert_allclose(move, bisected(point, normal, gap), atol=1e-7)
        else:
            assert lengths(move, norm_name) <= program(point, normal, gap, norm_name) + 1e-6


@pytest.mark.parametrize("norm_name", NORMS)
@pytest.mark.parametrize("share", [1e-4, 0.01, 0.3, 0.95])
def test_images_in_float32_reach_the_plane_as_exactly_as_float32_can(norm_name, share):
    random = np.random.default_rng(3)
    points = np.clip(random.uniform(-0.2, 1.2, (4, 3072)), 0, 1).astype(np.float32)
    normals = (random.standard_t(3, (4, 3072)) * 0.01).astype(np.float32)
    gains = np.where(normals > 0, points, 1 - points) * np.abs(normals)
    gaps = (gains.sum(1) * share).astype(np.float32)
    offsets = (normals.astype(np.float64) * points).sum(1) - gaps
    wide = to_hyperplane(
        *map(torch.tensor, (points.astype(np.float64), normals.astype(np.float64), offsets)), norm_name
    )
    moves = to_hyperplane(*map(torch.tensor, (points, normals, offsets.astype(np.float32))), norm_name)
    assert moves.dtype == torch.float32
    left = ((points + moves.numpy().astype(np.float64)) * normals).sum(1) - offsets
    # The offset itself is rounded: a few units in the last place of the products' sum.
    assert np.abs(left).max() <= 2e-6 * np.abs(points * normals).sum(1).max()
    np.testing.assert_allclose(lengths(moves.numpy(), norm_name), lengths(wide.numpy(), norm_name), rtol=2e-3)
    for point, normal, offset, move in zip(points, normals, offsets, wide.numpy(), strict=True):
        point, normal = point.astype(np.float64), normal.astype(np.float64)
        assert abs(normal @ (point + move) - offset) <= 1e-10
        if norm_name == "l2":
            np.testing.assert_allclose(move, bisected(point, normal, normal @ point - offset), atol=1e-9)


@pytest.mark.parametrize("norm_name", NORMS)
def test_vanishing_gradients_have_the_same_planes(norm_name):
    points, normals, offsets = (torch.tensor(part) for part in draw(1, 6, 40, 0.2, 2.0, np.float32))
    small = 2.0**-90
    usual = to_hyperplane(points, normals, offsets, norm_name)
    assert torch.equal(to_hyperplane(points, normals * small, offsets * small, norm_name), usual)
    assert usual.any(1).all()


@pytest.mark.parametrize("norm_name", NORMS)
def test_a_zero_normal_moves_nothing(norm_name):
    points = torch.rand((3, 10), generator=torch.Generator().manual_seed(0))
    normals = torch.zeros(3, 10)
    normals[1] = 1.0
    moves = to_hyperplane(points, normals, torch.tensor([1.0, 5.0, 0.0]), norm_name)
    assert not moves[0].any()
    assert not moves[2].any()
    assert float((points[1] + moves[1]).sum()) == pytest.approx(5.0, abs=1e-5)


@pytest.mark.parametrize("norm_name", NORMS)
def test_a_point_of_the_plane_stays(norm_name):
    points = torch.tensor([[0.25, 0.5, 1.0, 0.0]])
    assert not to_hyperplane(points, torch.tensor([[1.0, -2.0, 0.5, 3.0]]), torch.tensor([-0.25]), norm_name).any()


@pytest.mark.parametrize("norm_name", NORMS)
def test_breakpoints_of_all_sizes_are_passed(norm_name):
    # Each Newton step passes few of these: rooms fall, and slopes rise, by a fixed factor from value to value.
    size = 200
    points = torch.tensor(0.9 ** np.arange(size))[None]
    normals = torch.tensor(1.1 ** np.arange(size))[None]
    for share in (0.2, 0.9, 0.999999):
        offsets = (points * normals).sum(1) * (1 - share)
        moves = to_hyperplane(points, normals, offsets, norm_name)
        assert float(((points + moves) * normals).sum()) == pytest.approx(float(offsets), rel=1e-9)


@pytest.mark.parametrize("norm_name", NORMS)
def test_several_points_may_share_a_plane(norm_name):
    points, normals, offsets = (torch.tensor(part) for part in draw(2, 10, 100, 0.2, 2.0))
    both = points.view(2, 5, 100)
    shared = to_hyperplane(both, normals[:5], offsets[:5], norm_name)
    alone = [to_hyperplane(part, normals[:5], offsets[:5], norm_name) for part in both]
    assert torch.allclose(shared, torch.stack(alone), atol=1e-12)


@pytest.mark.parametrize(("planes", "size"), [(5, 100), (700, 8)])
@pytest.mark.parametrize("norm_name", NORMS)
def test_a_plane_that_points_share_may_need_most_of_their_values(norm_name, planes, size):
    _, normals, _ = (torch.tensor(part) for part in draw(2, planes, size, 0.0, 2.0))
    points = torch.full((2, planes, size), 0.5, dtype=torch.float64)
    normals = normals.abs() + 0.01
    offsets = normals.sum(1) * 0.95  # of 1 at most
    shared = to_hyperplane(points, normals, offsets, norm_name)
    alone = [to_hyperplane(part, normals, offsets, norm_name) for part in points]
    assert torch.allclose(shared, torch.stack(alone), atol=1e-12)
    assert torch.allclose(((points + shared) * normals).sum(-1), offsets.expand(2, planes), rtol=1e-12)


@pytest.mark.parametrize("norm_name", NORMS)
def test_the_distance_to_a_plane_is_that_of_the_move_where_the_box_is_far(norm_name):
    normals = torch.randn((5, 30), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = torch.full((5, 30), 0.5, dtype=torch.float64)
    gaps = torch.tensor([0.01, -0.02, 0.03, 0.0, 0.3], dtype=torch.float64)
    moves = to_hyperplane(points, normals, (points * normals).sum(1) - gaps, norm_name)
    np.testing.assert_allclose(plane_distances(gaps, normals, norm_name), lengths(moves, norm_name), atol=1e-9)


def test_an_unknown_norm_is_refused():
    with pytest.raises(SpecError, match="did you mean 'linf'"):
        to_hyperplane(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1), "lin")
