"""The geometry of the three norms against float64 oracles and the properties that attacks rely on."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.geometry import L1_SHARE
from unfool.core.streams import Streams
from unfool.core.threat import L0, ThreatModel

NORMS = ["linf", "l2", "l1"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(1, 6))


def draw_images(seed, shape, dtype, spread):
    """Origins with some values exactly on the box, and images around them, some outside the box."""
    random = np.random.default_rng(seed)
    origins = np.clip(random.uniform(-0.2, 1.2, shape), 0, 1)
    images = origins + spread * random.standard_normal(shape) * (random.random(shape) < 0.7)
    return torch.tensor(images).to(dtype), torch.tensor(origins).to(dtype)


def lengths(delta, norm_name):
    flat = np.abs(delta.double().numpy()).reshape(len(delta), -1)
    return {"linf": flat.max(1), "l2": np.sqrt((flat**2).sum(1)), "l1": flat.sum(1)}[norm_name]


def literal_l2(image, origin, eps):
    delta = image - origin
    length = np.sqrt((delta**2).sum())
    return np.clip(origin + delta * min(1.0, eps / length) if length > 0 else image, 0.0, 1.0)


def literal_l1(image, origin, eps):
    """Nearest point of ball ∩ box by plain bisection on the multiplier, one image at a time."""
    delta = image - origin
    room = np.where(delta > 0, 1 - origin, origin)

    def shrunk(multiplier):
        return np.minimum(np.maximum(np.abs(delta) - multiplier, 0), room)

    low, high = 0.0, np.abs(delta).max()
    if shrunk(0.0).sum() > eps:
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if shrunk(middle).sum() > eps else (low, middle)
    else:
        high = 0.0
    return origin + np.sign(delta) * shrunk(high)


def literal_linf(image, origin, eps):
    return np.clip(np.clip(image, origin - eps, origin + eps), 0.0, 1.0)


ORACLES = {"linf": literal_linf, "l2": literal_l2, "l1": literal_l1}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NORMS),
    st.sampled_from(DTYPES),
    SHAPES,
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-8, 1e-3, 0.03, 0.5, 1.0]),
    st.sampled_from([0.0, 1e-11, 1e-4, 0.1, 1.0, 30.0]),
)
def test_projection_is_in_ball_and_box_and_idempotent(norm_name, dtype, shape, seed, eps, spread):
    images, origins = draw_images(seed, shape, dtype, spread)
    threat = ThreatModel(norm_name, eps)
    result = threat.project(images, origins)
    assert result.dtype == dtype
    assert result.shape == images.shape
    assert (lengths(result.double() - origins.double(), norm_name) <= eps + 1e-6).all()
    assert float(result.min()) >= 0.0
    assert float(result.max()) <= 1.0
    assert torch.equal(threat.project(result, origins), result)
    assert torch.equal(threat.project(origins, origins), origins)
    if eps == 0:
        assert torch.equal(result, origins)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NORMS), SHAPES, st.integers(0, 10**6), st.floats(1e-4, 1), st.sampled_from([0.01, 0.1, 1.0, 20.0])
)
def test_projection_agrees_with_the_literal_oracle(norm_name, shape, seed, eps, spread):
    images, origins = draw_images(seed, shape, torch.float64, spread)
    result = ThreatModel(norm_name, eps).project(images.clone(), origins.clone()).numpy()
    expected = [
        ORACLES[norm_name](image, origin, eps) for image, origin in zip(images.numpy(), origins.numpy(), strict=True)
    ]
    np.testing.assert_allclose(result, np.stack(expected), atol=1e-8)


@pytest.mark.parametrize("norm_name", NORMS)
def test_large_float32_images_agree_with_the_oracle_too(norm_name):
    eps = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}[norm_name]
    images, origins = draw_images(1, (4, 3, 32, 32), torch.float32, 0.05)
    result = ThreatModel(norm_name, eps).project(images, origins)
    for image, origin, ours in zip(images.double().numpy(), origins.double().numpy(), result.numpy(), strict=True):
        np.testing.assert_allclose(ours, ORACLES[norm_name](image, origin, eps), atol=1.2e-7)
    assert (lengths(result.double() - origins.double(), norm_name) <= eps + 1e-9 + (norm_name == "linf") * 1e-6).all()


@pytest.mark.parametrize("eps", [1e-3, 0.5, 20.0])
def test_l2_in_float32_keeps_to_its_ball_and_leaves_it_where_it_was(eps):
    """Changes of any size are rounded: no length is above eps, nor much below it, and what is inside stays."""
    images, origins = draw_images(2, (16, 3, 64, 64), torch.float32, 1.0)
    origins.mul_(0.2).add_(0.4)
    # Half of the lengths are up to twice eps, and all images are in the box.
    scale = torch.linspace(0.1, 2.0, 16)[:, None, None, None] * eps
    images = (origins + (images - 0.5).sign() * scale / (3 * 64 * 64) ** 0.5).clamp(0.0, 1.0)
    result = ThreatModel("l2", eps).project(images, origins)
    before, after = (lengths(each.double() - origins.double(), "l2") for each in (images, result))
    outside = before > eps
    assert 6 < outside.sum() < 10
    assert (after <= eps).all()
    # A change of 1e-5 to a value of 0.5 has steps of 6e-8.
    assert (after[outside] >= eps * (1 - 1e-6) - 6e-8 * (3 * 64 * 64) ** 0.5).all()
    assert torch.equal(result[torch.tensor(~outside)], images[torch.tensor(~outside)])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["linf", "l1"]), st.integers(0, 10**6), st.floats(0.01, 1), st.sampled_from([0.1, 1.0]))
def test_no_feasible_image_is_nearer_than_the_projection(norm_name, seed, eps, spread):
    images, origins = draw_images(seed, (1, 3, 3, 3), torch.float64, spread)
    threat = ThreatModel(norm_name, eps)
    result = threat.project(images, origins)
    # Convexity: the projection p of y is the one feasible point with <y - p, q - p> <= 0 for every feasible q.
    generator = np.random.default_rng(seed)
    rivals = origins + torch.tensor(generator.standard_normal((200, 3, 3, 3)) * generator.random((200, 1, 1, 1)))
    rivals = threat.project(rivals, origins.expand_as(rivals))
    angle = ((images - result) * (rivals - result)).sum((1, 2, 3))
    assert float(angle.max()) <= 1e-7
    nearest = (images - result).norm()
    assert ((images - rivals).flatten(1).norm(dim=1) >= nearest - 1e-7).all()


@pytest.mark.parametrize("spread", [0.01, 1.0, 1e6])
def test_l1_projection_spends_the_whole_budget(spread):
    images, origins = draw_images(3, (8, 3, 16, 16), torch.float64, spread)
    threat = ThreatModel("l1", 0.5)
    assert threat.norm(threat.project(images, origins) - origins).numpy() == pytest.approx(0.5, abs=2e-9)


@pytest.mark.parametrize("norm_name", NORMS)
def test_an_image_just_outside_its_ball_is_brought_back(norm_name):
    origins = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    images = origins.clone()
    images[0, 0, 0, 0] += 0.1 + 2e-6
    result = ThreatModel(norm_name, 0.1).project(images, origins)
    assert result[0, 0, 0, 0].item() == pytest.approx(0.6, abs=1e-8)


@pytest.mark.parametrize("seed", range(12))
def test_l1_projection_of_moves_of_every_size(seed):
    """Moves from 1e-8 to 100 and origins crowded at the box: many values stop there, and the sum is far from convex."""
    random = np.random.default_rng(seed)
    shape = (3, 1, 1, [1, 4, 48, 1000][seed % 4])
    origins = random.random(shape) ** [0.1, 1, 8][seed % 3]
    images = origins + random.choice([-1, 1], shape) * 10 ** random.uniform(-8, 2, shape)
    eps = 10 ** random.uniform(-3, 2)
    result = ThreatModel("l1", eps).project(torch.tensor(images), torch.tensor(origins)).numpy()
    for image, origin, ours in zip(images, origins, result, strict=True):
        np.testing.assert_allclose(ours, literal_l1(image, origin, eps), atol=1e-8)


def test_l1_projection_with_equal_values_and_tight_rooms():
    origins = torch.full((2, 1, 2, 2), 1.0)
    origins[1] = torch.tensor([[[0.9, 0.5], [1.0, 0.0]]])
    images = torch.full((2, 1, 2, 2), 0.0)
    images[1] = 5.0
    result = ThreatModel("l1", 1.0).project(images, origins)
    torch.testing.assert_close(result[0], torch.full((1, 2, 2), 0.75))
    # Room upwards is 0.1, 0.5, 0 and 1; the moves asked are 4.1, 4.5, 4 and 5; λ = 4.25 leaves 0, 0.25, 0 and 0.75.
    torch.testing.assert_close(result[1], torch.tensor([[[0.9, 0.75], [1.0, 0.75]]]))
    # Moves of 0.3, 0.3, 4 and 0.7 with a budget of 0.7: λ = 0.2, and the first value stops at the box.
    images[1] = torch.tensor([[[1.2, 0.8], [5.0, 0.7]]])
    result = ThreatModel("l1", 0.7).project(images, origins)
    torch.testing.assert_close(result[1], torch.tensor([[[1.0, 0.6], [1.0, 0.5]]]))


@pytest.mark.parametrize("norm_name", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_do_not_depend_on_their_batch(norm_name, dtype):
    images, origins = draw_images(5, (6, 3, 5, 5), dtype, 0.3)
    threat = ThreatModel(norm_name, 0.7)
    whole = threat.project(images, origins)
    one_by_one = [threat.project(images[i : i + 1], origins[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.cat(one_by_one), whole, atol=1e-6 if dtype.itemsize > 2 else 1e-2, rtol=0)
    assert threat.project(images[:0], origins[:0]).shape == (0, 3, 5, 5)


@pytest.mark.parametrize("norm_name", NORMS)
def test_norm_is_the_literal_length(norm_name):
    delta = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(ThreatModel(norm_name, 1.0).norm(delta).numpy(), lengths(delta, norm_name), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NORMS), st.sampled_from(DTYPES[1:]), SHAPES, st.integers(0, 10**6), st.floats(1e-3, 2))
def test_steepest_has_length_step_and_no_direction_promises_more(norm_name, dtype, shape, seed, step):
    random = np.random.default_rng(seed)
    gradient = torch.tensor(random.standard_normal(shape)).to(dtype)
    gradient = torch.where(gradient == 0, 1.0, gradient).to(dtype)
    images = torch.tensor(random.uniform(0.01, 0.99, shape)).to(dtype)
    threat = ThreatModel(norm_name, 1.0)
    move = threat.steepest(gradient, images, images, step)
    assert move.dtype == dtype
    loose = 1e-2 if dtype == torch.bfloat16 else 1e-5
    np.testing.assert_allclose(lengths(move, norm_name), step, rtol=loose)
    climb = (gradient.double() * move.double()).flatten(1).sum(1)
    size = gradient[0].numel()
    for _ in range(50):
        rival = torch.tensor(random.standard_normal(shape))
        if norm_name == "l1":  # rivals of equal sparsity: evenly over any `count` values
            count = max(1, round(L1_SHARE * size))
            order = torch.tensor(random.random((shape[0], size))).argsort(1)
            rival = torch.zeros(shape[0], size, dtype=torch.float64).scatter(1, order[:, :count], 1.0)
            rival = rival.view(shape) * gradient.double().sign()
        rival = rival * torch.tensor(step / lengths(rival, norm_name)).view(-1, 1, 1, 1)
        assert ((gradient.double() * rival).flatten(1).sum(1) <= climb * (1 + loose) + 1e-9).all()


@pytest.mark.parametrize("norm_name", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_and_vanishing_gradients_give_no_nan(norm_name, dtype):
    gradient = torch.zeros(3, 3, 4, 4, dtype=dtype)
    gradient[1, 0, 0, 0] = torch.finfo(dtype).smallest_normal
    gradient[2] = torch.finfo(dtype).max / 4
    images = torch.full_like(gradient, 0.5)
    move = ThreatModel(norm_name, 1.0).steepest(gradient, images, images, 0.25)
    assert torch.equal(move[0], torch.zeros_like(move[0]))
    np.testing.assert_allclose(lengths(move[1:], norm_name), 0.25, rtol=1e-2)


def test_l1_steepest_skips_values_that_the_box_stops():
    gradient = torch.tensor([[[[9.0, -8.0], [7.0, -1.0]]]])
    images = torch.tensor([[[[1.0, 0.0], [0.4, 0.2]]]])
    threat = ThreatModel("l1", 1.0)
    move = threat.steepest(gradient, images, images, 0.5)
    assert torch.equal(move, torch.tensor([[[[0.0, 0.0], [0.5, 0.0]]]]))
    stuck = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert torch.equal(threat.steepest(gradient, stuck, stuck, 0.5), torch.zeros_like(gradient))


def test_l1_steepest_spreads_over_its_share():
    gradient = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = torch.full_like(gradient, 0.5)
    move = ThreatModel("l1", 12.0).steepest(gradient, images, images, 2.0)
    count = round(L1_SHARE * 3072)
    assert (move != 0).flatten(1).sum(1).tolist() == [count, count]
    assert move.abs().amax().item() == pytest.approx(2.0 / count)
    chosen = move != 0
    for row in range(2):
        assert gradient[row][chosen[row]].abs().min() >= gradient[row][~chosen[row]].abs().max()


@pytest.mark.parametrize("norm_name", NORMS)
def test_each_image_may_have_its_own_step(norm_name):
    gradient = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images = torch.full_like(gradient, 0.5)
    steps = torch.tensor([0.1, 0.0, 0.3])
    move = ThreatModel(norm_name, 1.0).steepest(gradient, images, images, steps)
    np.testing.assert_allclose(lengths(move, norm_name), steps.numpy(), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(NORMS),
    st.sampled_from(DTYPES),
    SHAPES,
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
)
def test_samples_lie_inside_and_belong_to_their_image(norm_name, dtype, shape, seed, eps):
    _, origins = draw_images(seed, shape, dtype, 0.0)
    ids = torch.arange(shape[0]) * 7 + seed
    threat = ThreatModel(norm_name, eps)
    drawn = threat.sample(origins, ids, Streams(seed))
    assert drawn.dtype == dtype
    assert (lengths(drawn.double() - origins.double(), norm_name) <= eps + 1e-6).all()
    assert float(drawn.min()) >= 0.0
    assert float(drawn.max()) <= 1.0
    order = torch.arange(shape[0] - 1, -1, -1)
    assert torch.equal(threat.sample(origins[order], ids[order], Streams(seed)), drawn[order])
    if eps == 0:
        assert torch.equal(drawn, origins)


@pytest.mark.parametrize("norm_name", NORMS)
def test_samples_are_uniform_in_the_ball(norm_name):
    # Radius test: in n dimensions the n-th power of the relative radius of a uniform draw is uniform. Four values far
    # from the box; one value's sign and order of size must not be preferred either.
    origins = torch.full((4000, 1, 2, 2), 0.5, dtype=torch.float64)
    delta = ThreatModel(norm_name, 0.3).sample(origins, torch.arange(4000), Streams(3)) - origins
    radius = lengths(delta, norm_name) / 0.3
    assert scipy.stats.kstest(radius**4, "uniform").pvalue > 1e-3
    flat = delta.flatten(1).numpy()
    assert scipy.stats.binomtest(int((flat > 0).sum()), flat.size).pvalue > 1e-3
    largest = np.bincount(np.abs(flat).argmax(1), minlength=4)
    assert scipy.stats.chisquare(largest).pvalue > 1e-3
    # A linear functional separates the balls from each other: the spread of one value inside each unit ball.
    expected = {"linf": 1 / 3, "l2": 1 / 6, "l1": 2 / 30}[norm_name] * 0.3**2
    assert (flat**2).mean() == pytest.approx(expected, rel=0.05)


def literal_l0(image, origin, eps):
    """Nearest point of ball ∩ box: of all subsets of pixels the one whose change brings it nearest."""
    inside = np.clip(image, 0.0, 1.0)
    places = list(np.ndindex(image.shape[1:]))
    best, least = origin, np.inf
    for chosen in itertools.combinations(places, min(eps, len(places))):
        point = origin.copy()
        for place in chosen:
            point[:, *place] = inside[:, *place]
        distance = ((point - image) ** 2).sum()
        if distance < least - 1e-12:
            best, least = point, distance
    return best


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1, 3]), st.sampled_from([0.05, 1.0]))
def test_l0_projection_agrees_with_the_search_through_all_subsets(seed, eps, channels, spread):
    images, origins = draw_images(seed, (2, channels, 2, 3), torch.float64, spread)
    result = L0(eps).project(images, origins)
    for ours, image, origin in zip(result.numpy(), images.numpy(), origins.numpy(), strict=True):
        literal = literal_l0(image, origin, eps)
        assert ((ours - image) ** 2).sum() == pytest.approx(((literal - image) ** 2).sum(), abs=1e-12)
    assert (L0(eps).norm(result - origins) <= eps).all()
    assert torch.equal(L0(eps).project(result, origins), result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_l0_counts_a_pixel_once_whatever_its_channels(dtype):
    images, origins = draw_images(5, (4, 3, 5, 5), dtype, 1.0)
    inside = L0(6).project(images, origins)
    assert inside.dtype == dtype
    assert L0(6).norm(inside.double() - origins.double()).tolist() == [6.0] * 4
    assert int(((inside != origins).sum(1) > 1).sum()) > 6


def test_no_l0_step_inside_the_box_climbs_a_linear_loss_further():
    _, origins = draw_images(6, (1, 2, 2, 3), torch.float64, 1.0)
    gradient = torch.tensor(np.random.default_rng(6).standard_normal((1, 2, 2, 3)))
    step = L0(2).steepest(gradient, origins, origins, 2)
    assert int(L0(2).norm(step)) == 2
    assert 0 <= float((origins + step).min()) <= float((origins + step).max()) <= 1
    edge = (gradient > 0).double() - origins
    gains = (edge * gradient).sum(1).flatten()
    best = max(float(gains[list(pair)].sum()) for pair in itertools.combinations(range(6), 2))
    assert float((step * gradient).sum()) == pytest.approx(best)
    assert torch.equal(L0(2).steepest(gradient, origins, origins, torch.tensor([1.2])), step)
    assert not L0(2).steepest(gradient * 0, origins, origins, 2).any()


def test_l0_samples_change_every_pixel_alike():
    origins = torch.full((2000, 1, 2, 3), 0.5)
    drawn = L0(2).sample(origins, torch.arange(2000), Streams(1))
    assert L0(2).norm(drawn - origins).tolist() == [2.0] * 2000
    counts = (drawn != origins).sum(0).flatten().numpy()
    assert scipy.stats.chisquare(counts).pvalue > 0.001
    assert torch.equal(L0(2).sample(origins[:3], torch.tensor([7, 9, 5]), Streams(1)), drawn[[7, 9, 5]])
