"""The moves of the Square attack against a literal account of the papers' algorithms, one image at a time."""

import math

import numpy as np
import pyautoattack.square
import pytest
import torch

from unfool import L0
from unfool.attacks import Square
from unfool.attacks.engines.square import PROPOSALS
from unfool.attacks.engines.square_windows import pyramids
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

EPS = {"linf": 0.008, "l2": 0.1, "l1": 1.0}


def pyramid_by_hand(height, width, power):
    """The paper's sum over nested rectangles, which grow from the middle pixel by one pixel to every side."""
    values = np.zeros((height, width))
    row, column = height // 2, width // 2
    for k in range(max(height // 2, width // 2) + 1):
        values[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += (k + 1.0) ** -power
    return values


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("side", [2, 3, 5, 6, 7, 11, 29])
def test_the_shape_of_a_window(side, order):
    halves = [
        pyramid_by_hand(side // 2, side, 6 - 2 * order),
        -pyramid_by_hand(side - side // 2, side, 6 - 2 * order),
    ]
    upright = np.concatenate([half / np.linalg.norm(half.ravel(), order) for half in halves])
    upright /= np.linalg.norm(upright.ravel(), order)
    found = pyramids(side, order).numpy()
    assert np.allclose(found[0], upright, atol=1e-15)
    assert np.allclose(found[1], upright.T, atol=1e-15)


def published(norm):
    attack = pyautoattack.square.SquareAttack(lambda images: images.flatten(1), norm=norm, eps=1.0)
    attack.device = "cpu"
    return attack


@pytest.mark.parametrize(("norm", "order"), [("L2", 2), ("L1", 1)])
@pytest.mark.parametrize("side", [2, 3, 6, 7, 15])
def test_the_shape_of_a_window_is_the_published_one(norm, order, side):
    state = torch.get_rng_state()
    expected = published(norm).eta(side).double()
    torch.set_rng_state(state)
    ours = pyramids(side, order)
    assert min(float((expected - shape).abs().max()) for shape in ours) < 1e-6


def make_points(norm, count=6, shape=(3, 12, 12), steps=8):
    """Origins of which some pixels lie on the box's edge, moves around them, and points some proposals further."""
    ids = torch.arange(count)
    origins = Streams(3).uniform(ids, shape, -0.3, 1.3).clamp(0, 1).double()
    moves = PROPOSALS[norm](origins, ThreatModel(norm, {"linf": 0.1, "l2": 1.0, "l1": 8.0}[norm]))
    points = moves.start(ids, ids, Streams(4))
    moves.accept(ids, points)
    for step in range(steps):
        moved, kept = moves.propose(points.clone(), ids, 5, draws_for(moves, ids, step))
        points[kept] = moved
        moves.accept(ids, points)
    return origins, moves, points, ids


def draws_for(moves, ids, step):
    return Streams(5).at(step).uniform(ids, (moves.draws,))


def corner(draws, height, width, side):
    return int(draws[0] * (height - side + 1)), int(draws[1] * (width - side + 1))


@pytest.mark.parametrize("side", [1, 4, 9, 12])
def test_a_move_in_linf(side):
    origins, moves, points, ids = make_points("linf")
    draws = draws_for(moves, ids, 99)
    found, rows = moves.propose(points.clone(), ids, side, draws)
    assert rows.tolist() == [
        row for row in range(6) if not torch.equal(expected_linf(origins, points, draws, row, side), points[row])
    ]
    for place, row in enumerate(rows.tolist()):
        assert torch.equal(found[place], expected_linf(origins, points, draws, row, side))


def expected_linf(origins, points, draws, row, side):
    """The window moves by twice eps, and is clipped to ball and box (the published order)."""
    top, left = corner(draws[row], 12, 12, side)
    moved = points[row].clone()
    for channel in range(3):
        sign = 1.0 if draws[row, 2 + channel] < 0.5 else -1.0
        moved[channel, top : top + side, left : left + side] += 2 * 0.1 * sign
    return torch.minimum(torch.maximum(moved, origins[row] - 0.1), origins[row] + 0.1).clamp(0, 1)


def expected_transfer(origin, point, draws, side, order, eps):
    """Algorithm 3 for one image, in NumPy; the published order of steps."""
    delta = (point - origin).numpy().copy()
    origin = origin.numpy()
    draws = draws.numpy()

    def norm(values, axis=(-2, -1)):
        return np.abs(values).sum(axis, keepdims=True) if order == 1 else np.sqrt((values**2).sum(axis, keepdims=True))

    def window(top, left):
        return np.s_[:, top : top + side, left : left + side]

    eps *= 1 - 1e-5  # our margin for rounding
    first, second = window(*corner(draws, 12, 12, side)), window(*corner(draws[2:], 12, 12, side))
    mask = np.zeros_like(delta)
    mask[first], mask[second] = 1, 1
    shape = pyramids(side, order).numpy()[int(draws[4] < 0.5)]
    new = shape[None] * np.where(draws[5:] < 0.5, 1.0, -1.0)[:, None, None] + delta[first] / (
        1e-12 + norm(delta[first])
    )
    whole, held = norm(delta, None).item(), norm(delta * mask)
    if order == 2:
        size = np.sqrt(max(eps**2 - whole**2, 0) / 3 + held**2)
    else:
        size = (max(eps - whole, 0) / 3 + held) * 3
    new = new / (1e-12 + norm(new)) * size
    delta[second] = 0
    delta[first] = new
    if order == 2:
        return np.clip(origin + delta / np.sqrt((delta**2).sum()) * eps, 0, 1)
    room = np.where(delta > 0, 1 - origin, origin)
    low, high = 0.0, np.abs(delta).max()
    for _ in range(200):
        middle = (low + high) / 2
        total = np.clip(np.abs(delta) - middle, 0, room).sum()
        low, high = (middle, high) if total > eps else (low, middle)
    return origin + np.sign(delta) * np.clip(np.abs(delta) - high, 0, room)


@pytest.mark.parametrize(("norm", "order", "eps"), [("l2", 2, 1.0), ("l1", 1, 8.0)])
@pytest.mark.parametrize("side", [3, 5, 7, 12])
def test_a_move_between_two_windows(norm, order, eps, side):
    origins, moves, points, ids = make_points(norm)
    draws = draws_for(moves, ids, 99)
    found, rows = moves.propose(points.clone(), ids, side, draws)
    assert torch.equal(rows, ids) or (norm == "l1" and side == 3 and 2 < len(rows) < 6)
    for row in range(6):
        expected = expected_transfer(origins[row], points[row], draws[row], side, order, eps)
        change = np.abs(expected - points[row].numpy()).max()
        if row in rows.tolist():
            assert change > 0.01
            # In l1 a proposal may stop short of its ball's edge.
            assert np.abs(found[rows == row][0].numpy() - expected).max() < (1e-9 if order == 2 else 1e-4)
        else:
            assert change < 1e-4  # two windows of zeros


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_windows_lie_anywhere_and_do_not_depend_on_batch_mates(norm):
    ids = torch.arange(300)
    origins = torch.full((300, 3, 12, 12), 0.5)
    moves = PROPOSALS[norm](origins, ThreatModel(norm, EPS[norm]))
    draws = draws_for(moves, ids, 0)
    found, rows = moves.propose(origins.clone(), ids, 5, draws)
    moved = (found != origins[rows]).any(1)
    assert int(moved.sum(0).min()) > 0
    assert int(moved.sum(0).max()) < 200
    assert (moved.any(1).sum(1) == 5).all()
    assert (moved.any(2).sum(1) == 5).all()
    some = torch.tensor([250, 3, 77])
    alone, kept = moves.propose(origins[some].clone(), some, 5, draws[some])
    assert torch.equal(kept, torch.arange(3))
    assert torch.equal(alone, found[some])


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 32, 32), (2, 4, 9), (1, 1, 3)])
def test_starts_as_published(norm, shape):
    ids = torch.arange(5)
    origins = torch.full((5, *shape), 0.5)
    eps = {"linf": 0.1, "l2": 0.3, "l1": 0.5 * math.prod(shape) ** 0.5}[norm]
    delta = PROPOSALS[norm](origins, ThreatModel(norm, eps)).start(ids, ids, Streams(0)) - origins
    assert not torch.equal(delta[0], delta[1])
    if norm == "linf":
        assert torch.allclose(delta.abs(), torch.tensor(0.1))
        assert torch.equal(delta, delta[:, :, :1].expand_as(delta))
        return
    assert torch.allclose(ThreatModel(norm, eps).norm(delta), torch.tensor(eps, dtype=torch.float64), rtol=1e-3)
    if norm == "l2" and shape == (1, 32, 32):
        tiles = delta[:, 0, 1:31, 1:31].unfold(1, 6, 6).unfold(2, 6, 6)
        assert float(delta[:, 0, 0].abs().max()) == 0.0
        unit = tiles / tiles.flatten(3).norm(dim=3)[..., None, None]
        known = torch.cat([pyramids(6, 2), -pyramids(6, 2)]).float()
        gaps = (unit[..., None, :, :] - known).abs().amax((-2, -1))
        assert float(gaps.amin(-1).max()) < 1e-5
        assert len(gaps.argmin(-1).unique()) == 4


@pytest.mark.parametrize("side", [1, 4, 9])
def test_in_l0_as_many_pixels_are_exchanged_as_the_schedule_says(side):
    """Sparse-RS, algorithm 1: from the changed pixels some go back, and as many others take a corner of the cube."""
    images, k = Streams(5).uniform(torch.arange(6), (3, 10, 10), 0.1, 0.9), 20
    proposals = PROPOSALS["l0"](images, ThreatModel("l0", k))
    rows = torch.arange(6)
    points = proposals.start(rows, rows, Streams(6))
    assert ((points != images).any(1).flatten(1).sum(1) == k).all()
    draws = Streams(7).uniform(rows, (proposals.draws,))
    moved, places = proposals.propose(points.clone(), rows, side, draws)
    assert torch.equal(places, rows)
    m = max(1, round(k * side * side / 100))
    for before, after, image, draw in zip(points, moved, images, draws, strict=True):
        listed = (before != image).any(0).flatten().nonzero().flatten().tolist()
        back = [listed[rank] for rank in sorted(range(k), key=lambda rank: float(draw[rank]))[:m]]
        expected = before.flatten(1).clone()
        expected[:, back] = image.flatten(1)[:, back]
        taken = {}
        for number, place in enumerate((draw[k : k + m] * 100).long().tolist()):
            taken.setdefault(place, (draw[2 * k :].view(3, k)[:, number] < 0.5).float())
        for place, colour in taken.items():
            expected[:, place] = colour
        assert torch.equal(after.flatten(1), expected)
        assert (after != image).any(0).sum() <= k


def test_in_l0_it_comes_as_near_as_one_pixel_to_a_plane():
    weight = Streams(3).normal(torch.tensor([0]), (3 * 8 * 8,))[0]

    def plane(images):
        score = (images.flatten(1) - 0.5) @ weight - 6.0
        return torch.stack([-score, score], 1)

    images, labels = torch.full((8, 3, 8, 8), 0.5), torch.zeros(8, dtype=torch.int64)
    gains = (weight.abs() * 0.5).view(3, -1).sum(0).sort(descending=True).values.cumsum(0)
    fewest = 1 + int((gains <= 6.0).sum())
    model = torch.nn.Module()
    model.forward = plane
    assert not Square(L0(fewest - 1), steps=300)(model, images, labels).fooled.any()
    attacked = Square(L0(fewest + 1), steps=300)(model, images, labels)
    assert attacked.fooled.sum() >= 6
    assert (attacked.distances[attacked.fooled] <= fewest + 1).all()
