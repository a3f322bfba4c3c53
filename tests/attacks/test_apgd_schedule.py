"""APGD's steps and step sizes against its algorithms in NumPy, one image at a time, from the papers."""

import math

import numpy as np
import pytest
import torch

from unfool.attacks.engines.step_schedule import HalvedSteps, SparseSteps
from unfool.core.threat import ThreatModel

STEPS, SHAPE, EPS = 100, (1, 3, 4), {"linf": 0.1, "l2": 0.4, "l1": 2.0}


def landscapes(count):
    """For each image a loss with hills, and its gradient, over float64 arrays of pixels."""
    draw = np.random.default_rng(0)

    def landscape(slope, waves, phases):
        # Rounded, so that two points of a cycle have equal losses in any order of summing.
        loss = lambda x: round(float(slope @ x + (0.3 * np.sin(waves * x + phases)).sum()), 11)  # noqa: E731
        return loss, lambda x: slope + 0.3 * waves * np.cos(waves * x + phases)

    size = math.prod(SHAPE)
    return [
        landscape(draw.normal(size=size), draw.uniform(5, 30, size), draw.uniform(0, 6, size)) for _ in range(count)
    ]


def literal_projection(norm, x, origin):
    delta = x - origin
    if norm == "linf":
        return np.clip(np.clip(x, origin - EPS[norm], origin + EPS[norm]), 0, 1)
    if norm == "l2":
        return np.clip(origin + delta * min(1.0, EPS[norm] / max(np.linalg.norm(delta), 1e-300)), 0, 1)
    room = np.where(delta > 0, 1 - origin, origin)
    low, high = 0.0, np.abs(delta).max()
    if np.minimum(np.abs(delta), room).sum() <= EPS[norm]:
        high = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        over = np.minimum(np.maximum(np.abs(delta) - middle, 0), room).sum() > EPS[norm]
        low, high = (middle, high) if over else (low, middle)
    return origin + np.sign(delta) * np.minimum(np.maximum(np.abs(delta) - high, 0), room)


def literal_l1_step(gradient, x, step, count):
    """Of the values that can still move in the box the ``count`` of largest gradient, each by the same amount."""
    movable = [place for place in range(len(x)) if (x[place] < 1 if gradient[place] > 0 else x[place] > 0)]
    chosen = sorted(movable, key=lambda place: -abs(gradient[place]))[:count]
    move = np.zeros_like(x)
    move[chosen] = np.sign(gradient[chosen]) * step / max(len(chosen), 1)
    return move


def checkpoints():
    """The shares of the steps after which the step size is looked at (2020, section 3.1)."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(round(share * STEPS, 9)) for share in shares]


def halved(norm, origin, start, loss, gradient):
    """Algorithm 1 of 2020, alpha = rho = 0.75; as in the published code, exactly rho is too few rises.

    Gives the next point after each step, and is sent the point that was reached, so that rounding does not add up.
    """
    size, values, looks = 2 * EPS[norm], [loss(start)], checkpoints()
    x, previous, best = start, start, start
    sizes, highest = {0: size}, {0: values[0]}
    for k in range(STEPS):
        if k in looks[1:]:
            before = looks[looks.index(k) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(before, k))
            # Neither halved at the last look nor a higher loss since; the first look has no other before it.
            unchanged = before > 0 and sizes[before] == size and highest[before] == max(values)
            sizes[k], highest[k] = size, max(values)
            if rises <= 0.75 * (k - before) or unchanged:
                size, x = size / 2, best
        slope = gradient(x)
        ahead = x + size * (np.sign(slope) if norm == "linf" else slope / np.linalg.norm(slope))
        ahead = literal_projection(norm, ahead, origin)
        mixed = ahead if k == 0 else x + 0.75 * (ahead - x) + 0.25 * (x - previous)
        previous, x = x, (yield literal_projection(norm, mixed, origin))
        if loss(x) > max(values):
            best = x
        values.append(loss(x))
    yield x


def sparse(norm, origin, start, loss, gradient):
    """Algorithm 1 of 2021, as above: sparsity and step size are looked at every 0.04 of the steps."""
    changed = lambda x: int((x != origin).sum())  # noqa: E731
    size, count, seen = EPS[norm], changed(start) / 1.5, changed(start)
    x, best, values = start, start, [loss(start)]
    for k in range(STEPS):
        if k and k % int(0.04 * STEPS) == 0:
            count = changed(best) / 1.5
            if changed(best) < 0.95 * seen:
                size, x = EPS[norm], best
            else:
                size = max(size / 1.5, EPS[norm] / 10)
            seen = changed(best)
        step = literal_l1_step(gradient(x), x, size, max(1, math.ceil(round(count, 9))))
        x = yield literal_projection(norm, x + step, origin)
        if loss(x) > max(values):
            best = x
        values.append(loss(x))
    yield x


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_step_is_that_of_the_papers_algorithm(norm):
    count, draw = 5, np.random.default_rng(1)
    origins = np.clip(draw.uniform(-0.1, 1.1, (count, math.prod(SHAPE))), 0, 1)
    scale = 0.5 * EPS[norm] / {"linf": 1, "l2": 3, "l1": 12}[norm]
    starts = [literal_projection(norm, each + scale * draw.choice([-1, 0, 1], len(each)), each) for each in origins]
    scenes, literal = landscapes(count), sparse if norm == "l1" else halved
    runs = [literal(norm, each, start, *scene) for each, start, scene in zip(origins, starts, scenes, strict=True)]
    as_images = lambda rows: torch.from_numpy(np.array(rows)).view(count, *SHAPE)  # noqa: E731
    kind = SparseSteps if norm == "l1" else HalvedSteps
    schedule = kind(ThreatModel(norm, EPS[norm]), STEPS, torch.arange(count), as_images(origins), as_images(starts))
    schedule.best_losses = schedule.losses = schedule.best_losses.double()
    schedule.step_size = schedule.step_size.double()
    expected = [next(run) for run in runs]
    sizes = set()
    for step in range(STEPS):
        points = schedule.points.reshape(count, -1).numpy()
        losses = torch.tensor([loss(x) for (loss, _), x in zip(scenes, points, strict=True)], dtype=torch.float64)
        slopes = [gradient(x) for (_, gradient), x in zip(scenes, points, strict=True)]
        schedule.record(losses, as_images(slopes))
        schedule.check(step)
        schedule.step()
        points = schedule.points.reshape(count, -1).numpy()
        np.testing.assert_allclose(points, expected, atol=1e-8, err_msg=f"step {step}")
        expected = [run.send(point) for run, point in zip(runs, points.copy(), strict=True)]
        sizes |= set(schedule.step_size.tolist())
    assert len(sizes) > 3


def test_an_l1_step_moves_the_steepest_values_that_the_box_lets_move():
    draw = np.random.default_rng(2)
    gradient, images = draw.normal(size=(5, 40)), np.clip(draw.uniform(-0.5, 1.5, (5, 40)), 0, 1)
    shares = torch.tensor([0.025, 0.1, 0.3, 0.61, 1.0], dtype=torch.float64)
    threat = ThreatModel("l1", 3.0)
    shown = [torch.from_numpy(rows).view(5, 1, 5, 8) for rows in (gradient, images)]
    moves = threat.steepest(*shown, shown[1], 0.7, shares).reshape(5, -1).numpy()
    for row, share in enumerate(shares.tolist()):
        expected = literal_l1_step(gradient[row], images[row], 0.7, math.ceil(share * 40))
        np.testing.assert_allclose(moves[row], expected, atol=1e-7)
