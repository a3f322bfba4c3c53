"""The Square attack: its schedule as published, whom it asks about what, and how far it gets."""

import dataclasses
import math
from collections import Counter

import pyautoattack.square
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_models import make_batch, make_network, problem
from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.attacks.engines import square
from unfool.attacks.engines.square import SquareSearch
from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.core.errors import NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.models.windowed import passes as windowed

EPS = {"linf": 0.008, "l2": 0.1, "l1": 1.0}
ALL_NORMS = {**EPS, "l0": 2}
NETWORK = make_network()
LIMITS = ("VALUES_AT_ONCE", "FULL_PASS")


def share_by_hand(step):
    for first, last, divisor in [(0, 10, 1), (11, 50, 2), (51, 200, 4), (201, 500, 8), (501, 1000, 16)]:
        if first <= step <= last:
            return 0.8 / divisor
    for first, last, divisor in [(1001, 2000, 32), (2001, 4000, 64), (4001, 6000, 128), (6001, 8000, 256)]:
        if first <= step <= last:
            return 0.8 / divisor
    return 0.8 / 512


@given(step=st.integers(0, 12_000), height=st.integers(1, 40), width=st.integers(1, 40))
def test_windows_shrink_as_published(step, height, width):
    engine = SquareSearch(threat=ThreatModel("linf", 0.1))
    side = round(math.sqrt(share_by_hand(step) * height * width))
    assert engine.side(step, height, width) == min(max(side, 1), height, width)
    odd = max(side, 3)
    odd += 1 - odd % 2
    assert engine.side(step, height, width, 3, True) == min(odd, height, width)


def test_windows_of_a_cifar_image():
    engine = SquareSearch(threat=ThreatModel("linf", 0.1))
    steps = (0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 4999)
    assert [engine.side(step, 32, 32) for step in steps] == [29, 29, 20, 20, 14, 14, 10, 10, 7, 7, 5, 5, 4, 4, 3, 3]
    odd = [29, 29, 21, 21, 15, 15, 11, 11, 7, 7, 5, 5, 5, 5, 3, 3]
    assert [engine.side(step, 32, 32, 3, True) for step in steps] == odd


def attacked(text, threat, images, labels, ids, network: nn.Module = NETWORK, **values):
    return make_attack(text, threat, values)(network, images, labels, ids=ids)


ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}
"""By how much the logits of one image may differ with the size of its batch: the convolutions sum in another order."""


@pytest.mark.parametrize("norm", ALL_NORMS)
@settings(max_examples=3)
@given(
    steps=st.integers(0, 65),
    more=st.integers(1, 20),
    restarts=st.integers(1, 2),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(list(ROUNDING)),
)
# In l2 the shorter run asks about its last image among six, the longer one alone: 1.7e-6 of rounding at the same point.
@example(steps=3, more=1, restarts=1, seed=34, dtype=torch.float32)
@example(steps=3, more=1, restarts=1, seed=34, dtype=torch.float64)
def test_more_steps_or_restarts_never_lower_the_best_margin(norm, steps, more, restarts, seed, dtype):
    network = make_network(dtype=dtype)
    images, labels, ids = make_batch(network, 6, seed, dtype)
    threat = ThreatModel(norm, ALL_NORMS[norm] / 2)
    few = attacked("square", threat, images, labels, ids, network, steps=steps)
    many = attacked("square", threat, images, labels, ids, network, steps=steps + more, restarts=restarts)
    # Losses are kept in float32.
    lower = few.losses - many.losses - ROUNDING[dtype] - torch.finfo(torch.float32).eps * few.losses.abs()
    assert (lower <= 0).all()
    assert (many.fooled | ~few.fooled).all()
    with torch.no_grad():
        margins = LabelLoss(network, labels, "margin")(many.images, torch.arange(6)).losses
    assert torch.allclose(margins.float(), many.losses, atol=1e-5)


@pytest.mark.parametrize("norm", EPS)
def test_splitting_a_batch_changes_nothing(norm):
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 12, dtype=torch.float64)
    threat = ThreatModel(norm, EPS[norm])
    whole = attacked("square-80", threat, images, labels, ids, network)
    assert 0 < int(whole.fooled.sum()) < 12
    for rows in (torch.tensor([7, 3, 10]), torch.tensor([5]), torch.arange(12).flip(0)):
        part = attacked("square-80", threat, images[rows], labels[rows], ids[rows], network)
        assert torch.allclose(part.images, whole.images[rows], atol=1e-9)
        assert torch.equal(part.fooled, whole.fooled[rows])
    assert not torch.equal(attacked("square-80", threat, images, labels, ids + 1, network).images, whole.images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ALL_NORMS)
def test_every_image_stays_inside_and_survivors_have_moved(norm, dtype):
    network = make_network(dtype=dtype)
    images, labels, ids = make_batch(network, 12, dtype=dtype)
    images = ((images - 0.5) * 1.5 + 0.5).clamp(0, 1)
    threat = ThreatModel(norm, ALL_NORMS[norm] * 8)
    labels = torch.where(torch.arange(12) < 6, labels, (labels + 1) % 4)
    found = attacked("square-70", threat, images, labels, ids, Bolder(network))
    assert found.images.dtype == dtype
    lengths = threat.norm(found.images.double() - images.double())
    assert float(lengths.max()) <= threat.eps + 1e-6
    assert float(lengths[~found.fooled].min()) > threat.eps * 0.5
    assert not found.zero_gradient.any()


class Bolder(nn.Module):
    """Adds to the first class, so that some images stand whatever is done to them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        logits = self.network(images)
        return logits + logits.new_tensor([50.0, 0.0, 0.0, 0.0])


def test_only_images_that_stand_and_have_changed_are_asked_about(monkeypatch):
    for name in LIMITS:
        monkeypatch.setattr(square, name, 0)
    images, labels, ids = make_batch(NETWORK, 24)
    model = LabelLoss(NETWORK, labels, "margin")
    asked, fooled = Counter(), Counter()

    def objective(images, rows):
        assert not images.requires_grad
        value = model(images, rows)
        # Once found and once confirmed, an image is left alone.
        assert all(fooled[row] < 2 for row in rows.tolist())
        asked.update(rows.tolist())
        fooled.update(rows[value.fooled].tolist())
        return value

    found = SquareSearch(threat=ThreatModel("linf", 0.008), steps=150).run(problem(objective, images, ids))
    assert 3 < int(found.fooled.sum()) < 21
    assert found.model_images == sum(asked.values())
    standing = [asked[row] for row in (~found.fooled).nonzero().flatten().tolist()]
    # The image itself, the start, the windows that change something, and the last word.
    assert 100 < min(standing) < max(standing) <= 153


@pytest.mark.parametrize("norm", ALL_NORMS)
def test_windows_looked_at_ahead_give_what_they_give_in_turn_in_fewer_passes(norm, monkeypatch):
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 8, dtype=torch.float64)
    threat, results, passes = ThreatModel(norm, ALL_NORMS[norm] / 2), [], []
    network.register_forward_hook(lambda *_: passes.append(1))
    for values in (0, 24 * images[0].numel()):
        for name in LIMITS:
            monkeypatch.setattr(square, name, values)
        passes.clear()
        results.append((attacked("square-200", threat, images, labels, ids, network), len(passes)))
    (in_turn, many), (ahead, few) = results
    assert 0 < int(in_turn.fooled.sum()) < 8
    assert few < 0.85 * many
    assert torch.equal(in_turn.fooled, ahead.fooled)
    assert torch.allclose(in_turn.images, ahead.images, atol=1e-9)
    assert torch.allclose(in_turn.losses, ahead.losses, atol=1e-6)
    # What followed a window that was kept was looked at in vain.
    assert in_turn.model_images < ahead.model_images < 1.5 * in_turn.model_images


@pytest.mark.parametrize("norm", ALL_NORMS)
def test_nothing_to_do_returns_the_images_bit_for_bit(norm):
    images, labels, ids = make_batch(NETWORK, 8)
    for text, eps in (("square-0", ALL_NORMS[norm]), ("square-50", 0.0)):
        found = attacked(text, ThreatModel(norm, eps), images, labels, ids)
        assert torch.equal(found.images, images)
        assert found.model_images == 8
    wrong = attacked("square-50", ThreatModel(norm, ALL_NORMS[norm]), images, (labels + 1) % 4, ids)
    assert torch.equal(wrong.images, images)
    assert wrong.fooled.all()


class Liar(nn.Module):
    """A proxy model that calls an image fooled from the start on, and likes later images better."""

    def __init__(self, labels):
        super().__init__()
        self.wrong = (int(labels[0]) + 1) % 4
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        logits = torch.zeros(len(images), 4)
        logits[:, self.wrong] = float(self.calls)
        return logits


def test_a_claim_is_confirmed_at_once_and_a_false_one_lets_the_image_go_on():
    images, labels, ids = make_batch(NETWORK, 24)
    rows = (labels == labels[0]).nonzero().flatten()
    images, labels, ids = images[rows], labels[rows], ids[rows]
    attack = make_attack("square-40", "linf:0.008")
    plain = attack(NETWORK, images, labels, ids=ids)
    found = attack(NETWORK, images, labels, ids=ids, proxy=ProxySettings(), proxy_model=Liar(labels))
    with torch.no_grad():
        assert torch.equal(found.fooled, NETWORK(found.images).argmax(1) != labels)
    assert found.fooled.any()
    assert not found.fooled.all()
    # The liar accepts every window, and each of them is judged.
    assert found.model_images > 1.5 * plain.model_images


@pytest.mark.parametrize("norm", EPS)
def test_the_proxy_answers_and_the_model_confirms(norm):
    images, labels, ids = make_batch(NETWORK, 24)
    threat = ThreatModel(norm, EPS[norm])
    asked = [], []

    def noted(model, log):
        return LabelLoss(lambda images: log.append(len(images)) or model(images), labels, "margin")

    proxy_model = ProxySettings().copy(NETWORK)
    engine = SquareSearch(threat=threat, steps=120)
    plain = engine.run(problem(LabelLoss(NETWORK, labels, "margin"), images, ids))
    both = problem(noted(NETWORK, asked[0]), images, ids, proxy_objective=noted(proxy_model, asked[1]), exact_share=0.0)
    found = engine.run(both)
    # The clean images, one pass for each claim, and the survivors.
    assert sum(asked[0]) <= 24 + 24 + 6
    assert sum(asked[1]) > 20 * sum(asked[0])
    assert (found.fooled == plain.fooled).float().mean() > 0.9
    for log in asked:
        log.clear()
    engine.run(dataclasses.replace(both, exact_share=0.25))
    assert 0.15 < sum(asked[0]) / (sum(asked[0]) + sum(asked[1])) < 0.45


def test_the_model_does_not_take_over_the_losses_of_a_proxy():
    images, labels, ids = make_batch(NETWORK, 8)
    model = LabelLoss(NETWORK, labels, "margin")

    def higher(images, rows):
        value = model(images, rows)
        return ObjectiveValue(losses=value.losses + 100, fooled=value.fooled)

    engine = SquareSearch(threat=ThreatModel("linf", 0.002), steps=80)
    plain = engine.run(problem(model, images, ids))
    found = engine.run(problem(model, images, ids, proxy_objective=higher, exact_share=0.5))
    assert torch.allclose(found.losses, plain.losses, atol=1e-5)


def test_gains_below_float32_s_rounding_count():
    def objective(scale, offset):
        return lambda images, rows: ObjectiveValue(losses=offset + scale * images.double().sum((1, 2, 3)).sin())

    images = Streams(0).uniform(torch.arange(2), (3, 8, 8))
    engine = SquareSearch(threat=ThreatModel("linf", 0.1), steps=60)
    plain, small = (
        engine.run(problem(objective(*values), images, torch.arange(2))) for values in ((1.0, 0.0), (2e-5, 100.0))
    )
    assert torch.equal(small.images, plain.images)
    assert not torch.equal(small.images, images)


def test_restarts_go_other_ways_and_pay():
    images, labels, ids = make_batch(NETWORK, 24)
    one, three = (attacked("square-30", "linf:0.002", images, labels, ids, restarts=count) for count in (1, 3))
    assert (three.losses >= one.losses).all()
    assert (three.losses > one.losses + 1e-3).any()


def test_starts_take_the_place_of_the_stripes():
    seen = []

    def objective(images, rows):
        seen.append(images.clone())
        return ObjectiveValue(losses=images.sum((1, 2, 3)))

    images = torch.full((2, 3, 8, 8), 0.5)
    starts = images + 0.05
    engine = SquareSearch(threat=ThreatModel("linf", 0.1), steps=60)
    found = engine.run(problem(objective, images, torch.arange(2), starts=starts))
    assert torch.equal(seen[1], starts)
    assert not found.fooled.any()
    assert float(found.losses.min()) > float(starts[0].sum())


@pytest.mark.parametrize("values", [{"steps": -1}, {"p": 0}, {"p": 1.5}, {"restarts": 0}])
def test_bad_settings_are_refused(values):
    with pytest.raises(SpecError, match="not allowed"):
        make_attack("square", "linf:0.1", values)
    with pytest.raises(SpecError, match="not allowed"):
        SquareSearch(threat=ThreatModel("linf", 0.1), **values)


def test_a_loss_that_is_not_finite_is_an_error():
    class Breaks(nn.Module):
        def forward(self, images):
            return torch.where(images.flatten(1)[:, :4] > 0.5, torch.nan, 0.0)

    with pytest.raises(NonFiniteError, match="NaN"):
        make_attack("square-20", "linf:0.2")(
            Breaks(), torch.full((2, 1, 4, 4), 0.45), torch.zeros(2, dtype=torch.int64)
        )


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 1.0), ("l1", 25.0)])
def test_it_fools_as_many_as_the_published_code(robust_digits, norm, eps):
    network, images, labels, ids = robust_digits
    theirs = pyautoattack.square.SquareAttack(
        network, norm=norm.capitalize(), eps=eps, n_queries=150, seed=0, resc_schedule=False
    )
    images, labels, ids = images[:64], labels[:64], ids[:64]
    with torch.random.fork_rng():
        adversarial = theirs.perturb(images, labels)
    ours = attacked("square-150", ThreatModel(norm, eps), images, labels, ids, network)
    with torch.no_grad():
        clean = (network(images).argmax(1) != labels).float().mean()
        expected = (network(adversarial).argmax(1) != labels).float().mean()
    assert float(clean) + 0.1 < float(expected) < 0.9
    assert abs(float(ours.fooled.float().mean()) - float(expected)) < 0.1


@pytest.mark.parametrize(("dtype", "count"), [("fp32", 3), ("fp32", 16), ("bf16", 16)])
def test_layers_that_compute_what_a_window_reaches_lead_the_same_search(dtype, count, monkeypatch):
    images, _, ids = make_batch(NETWORK, count, 4)
    images = images.repeat(1, 1, 2, 2)
    proxy = ProxySettings(dtype=dtype)
    settings = {"proxy": proxy, "proxy_model": proxy.copy(NETWORK)}
    with torch.no_grad():
        labels = NETWORK(images).argmax(1)
    attack, built = make_attack("square", ThreatModel("linf", 0.016), {"steps": 70}), []
    made = windowed.WindowedPasses.__init__
    monkeypatch.setattr(windowed.WindowedPasses, "__init__", lambda *given: built.append(made(*given)))
    monkeypatch.setattr(windowed, "FEWEST_SAVED", math.inf)
    whole = attack(NETWORK, images, labels, ids=ids, **settings)
    assert not built
    monkeypatch.setattr(windowed, "FEWEST_SAVED", 0)
    monkeypatch.setattr(windowed, "COPY", 0)
    parts = attack(NETWORK, images, labels, ids=ids, **settings)
    assert built
    assert count == 3 or 0 < whole.fooled.sum() < count
    assert torch.equal(whole.fooled, parts.fooled)
    if dtype == "fp32":
        torch.testing.assert_close(whole.images, parts.images)
        assert whole.model_images < parts.model_images <= whole.model_images + 2 * count * len(built)
