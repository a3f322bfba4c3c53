"""FAB: as near as the published code, in fewer passes; what it reports; and what it does with a proxy model."""

import dataclasses
import math

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from small_models import CLASSES, Linear, make_batch, make_network, on_a_proxy, problem
from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.attacks.engines import fab, trials
from unfool.attacks.engines.fab import FastAdaptiveBoundary
from unfool.attacks.objective import LabelLoss
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS = {"linf": 0.006, "l2": 0.08, "l1": 0.6}
NETWORK = make_network()


class Watched(nn.Module):
    """Counts images, and keeps the nearest adversarial point that it was shown of each image."""

    def __init__(self, model, threat, images, labels):
        super().__init__()
        self.model, self.threat, self.images, self.labels = model, threat, images, labels
        self.nearest = torch.full((len(images),), math.inf, dtype=torch.float64)
        self.count = 0

    def forward(self, points, rows=None):
        logits = self.model(points)
        self.count += len(points)
        if rows is not None:
            lengths = self.threat.norm(points.detach().double() - self.images[rows].double())
            lengths[logits.argmax(1) == self.labels[rows]] = math.inf
            self.nearest.scatter_reduce_(0, rows, lengths, "amin")
        return logits


def published(network, threat, images, labels, targets, steps=20):
    """Lengths of the moves of the published code, infinite where it found none, and the images through the model."""
    model = Watched(network, threat, images, labels)
    attack = FABAttack_PT(
        model,
        norm=NORMS[threat.norm_name],
        n_restarts=1,
        n_iter=steps,
        eps=1e9,  # or else it gives back the images that it cannot fool inside the ball
        targeted=targets > 0,
        n_target_classes=targets,
        device=torch.device("cpu"),
    )
    state = torch.get_rng_state()
    lengths = torch.full((len(images),), math.inf, dtype=torch.float64)
    for target in range(2, targets + 2) if targets else [0]:
        attack.target_class = target
        found = attack.attack_single_run(images, labels, is_targeted=targets > 0)
        moved = threat.norm(found.double() - images.double())
        with torch.no_grad():
            moved[network(found).argmax(1) == labels] = math.inf
        lengths = torch.minimum(lengths, moved)
    torch.set_rng_state(state)
    return lengths, model.count


@pytest.mark.parametrize("targets", [0, 3])
@pytest.mark.parametrize("norm_name", NORMS)
def test_it_comes_as_near_as_the_published_code_and_fools_the_same(norm_name, targets):
    images, labels, ids = make_batch(NETWORK, 24)
    eps = EPS[norm_name]
    lengths, passes = published(NETWORK, ThreatModel(norm_name, eps), images, labels, targets)
    # Nothing is fooled in a tiny ball, so that every image is followed to the end.
    threat = ThreatModel(norm_name, eps / 1e4)
    model = Watched(NETWORK, threat, images, labels)
    engine = FastAdaptiveBoundary(threat=threat, steps=20, targets=targets)
    found = engine.run(problem(LabelLoss(model, labels, by_row=True), images, ids))
    assert not found.fooled.any()
    assert torch.equal(torch.isfinite(model.nearest), torch.isfinite(lengths))
    ratios = (model.nearest / lengths)[torch.isfinite(lengths)]
    assert len(ratios) >= 22
    assert float(ratios.mean()) <= 1.005
    assert float(ratios.max()) <= 1.05
    assert found.model_images == model.count
    # Ours also judge the clean images, and a last point of each trial.
    assert model.count <= passes + 2 * 24
    ours = FastAdaptiveBoundary(threat=ThreatModel(norm_name, eps), steps=20, targets=targets).run(
        problem(LabelLoss(NETWORK, labels), images, ids)
    )
    assert 4 < int(ours.fooled.sum()) < 22
    assert int((ours.fooled < (lengths <= eps)).sum()) == 0
    assert ours.model_images < found.model_images
    with torch.no_grad():
        assert torch.equal(NETWORK(ours.images).argmax(1) != labels, ours.fooled)


@pytest.mark.parametrize("name", ["fab", "fab-t"])
@pytest.mark.parametrize("norm_name", NORMS)
def test_on_a_linear_model_the_boundary_is_where_it_is_known_to_be(norm_name, name):
    model, ids = Linear(27), torch.arange(6)
    images = Streams(0).uniform(ids, (3, 3, 3), 0.4, 0.6).double()
    model.double()
    with torch.no_grad():
        labels = model(images).argmax(1)
        score = ((images.flatten(1) - 0.5) @ model.weight).abs()
    order = {"linf": 1, "l2": 2, "l1": math.inf}[norm_name]
    exact = score / torch.linalg.vector_norm(model.weight.detach(), ord=order)
    for share, fooled in ((0.999, False), (1.051, True)):
        for row in range(6):
            threat = ThreatModel(norm_name, float(exact[row]) * share)
            one = make_attack(name, threat, {"steps": 20})(model, images[[row]], labels[[row]])
            assert bool(one.fooled) == fooled
            assert fooled or float(one.distances) > 0.9 * threat.eps


class Scores(nn.Module):
    """Five classes, each of the others with a pixel of its own; at grey their logits fall from 1 to 4, and their
    boundaries lie 0.1, 0.02, 0.021 and 0.22 away."""

    def forward(self, images):
        scores = images.flatten(1) - 0.5
        scores = scores * torch.tensor([1.0, 10.0, 10.0, 1.0]) - torch.tensor([0.1, 0.2, 0.21, 0.22])
        return torch.cat([torch.zeros(len(images), 1), scores], 1)


GREY, LABEL = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)


def test_targets_go_by_the_logits_and_the_nearest_boundary_does_not():
    first = make_attack("fab-t:targets=1,steps=3", "linf:0.05")(Scores(), GREY, LABEL)
    assert not first.fooled.any()
    second = make_attack("fab-t:targets=2,steps=3", "linf:0.05")(Scores(), GREY, LABEL)
    nearest = make_attack("fab:steps=3", "linf:0.05")(Scores(), GREY, LABEL)
    for found in (second, nearest):
        assert found.fooled.all()
        expected = GREY.clone()
        expected[0, 0, 0, 1] += 0.02 * 1.05
        assert torch.allclose(found.images, expected, atol=1e-6)
    assert nearest.model_images == 1 + 2


@pytest.mark.parametrize(("targets", "restarts"), [(0, 3), (1, 3), (2, 2), (9, 2)])
def test_the_first_run_of_every_target_starts_at_the_image_and_each_later_one_elsewhere(targets, restarts, monkeypatch):
    images, labels, ids = make_batch(NETWORK, 2)
    starts = []

    def kept(*arguments):
        starts.append(original(*arguments))
        return starts[-1]

    original = FastAdaptiveBoundary._start
    monkeypatch.setattr(FastAdaptiveBoundary, "_start", kept)
    engine = FastAdaptiveBoundary(threat=ThreatModel("linf", 1e-4), steps=1, targets=targets, restarts=restarts)
    engine.run(problem(LabelLoss(NETWORK, labels, "difference" if targets else "margin"), images, ids))
    each = max(1, min(targets, CLASSES - 1))
    assert [torch.equal(start, images) for start in starts] == [True] * each + [False] * each * (restarts - 1)


@pytest.mark.parametrize(("stack", "passes"), [(1, 2), (10**9, 3 * 2)])
def test_the_earliest_trial_that_succeeds_counts_and_ends_the_later_ones(stack, passes, monkeypatch):
    monkeypatch.setattr(trials, "VALUES_AT_ONCE", stack)
    found = make_attack("fab-t:targets=4,steps=3", "linf:0.05")(Scores(), GREY, LABEL)
    assert found.fooled.all()
    moved = found.images != GREY
    assert moved.flatten().tolist() == [False, True, False, False]
    # The clean image; the first target, three steps, after two of which the point is brought back; the rest.
    assert found.model_images == 1 + (1 + 2 + 2 + 1 + 1) + passes


@pytest.mark.parametrize("text", ["fab:restarts=3", "fab-t:restarts=2"])
@pytest.mark.parametrize("norm_name", NORMS)
def test_trials_that_run_at_once_give_what_they_give_in_turn(norm_name, text, monkeypatch):
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 16, dtype=torch.float64)
    attack = make_attack(text, ThreatModel(norm_name, EPS[norm_name] / 2), {"steps": 12})
    monkeypatch.setattr(trials, "VALUES_AT_ONCE", 1)
    single = attack(network, images, labels, ids=ids)
    monkeypatch.setattr(trials, "VALUES_AT_ONCE", 10**9)
    stacked = attack(network, images, labels, ids=ids)
    assert 0 < int(single.fooled.sum()) < 16
    assert torch.equal(single.fooled, stacked.fooled)
    assert torch.allclose(single.images, stacked.images, atol=1e-9)
    assert torch.allclose(single.losses, stacked.losses, atol=1e-6)


def test_restarts_begin_half_of_eps_away_and_pay(monkeypatch):
    images, labels, ids = make_batch(NETWORK, 32)
    for norm_name, eps in EPS.items():
        threat = ThreatModel(norm_name, eps)
        begun = FastAdaptiveBoundary(threat=threat)._start(images * 0.5 + 0.25, ids, Streams(0), 1)
        lengths = threat.norm(begun.double() - images * 0.5 - 0.25)
        assert torch.allclose(lengths, torch.full_like(lengths, eps / 2), rtol=1e-3)
        runs = [
            make_attack("fab", threat, {"restarts": restarts, "steps": 4})(NETWORK, images, labels, ids=ids)
            for restarts in (1, 4)
        ]
        assert (runs[1].losses >= runs[0].losses - 1e-6).all()
        assert (runs[1].losses > runs[0].losses).any()
        assert (runs[1].fooled | ~runs[0].fooled).all()


@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_images_that_are_wrong_or_fooled_leave_at_once(name):
    images, labels, ids = make_batch(NETWORK, 24)
    attack = make_attack(name, "linf:0.5")
    wrong = attack(NETWORK, images, (labels + 1) % CLASSES, ids=ids)
    assert torch.equal(wrong.images, images)
    assert wrong.fooled.all()
    assert wrong.model_images == 24
    right = attack(NETWORK, images, labels, ids=ids)
    assert right.fooled.all()
    # One look at the clean images, then each needs a gradient and a step or two.
    assert 3 * 24 <= right.model_images <= 6 * 24


@pytest.mark.parametrize("name", ["fab", "fab-t"])
def test_images_that_stand_come_back_at_the_highest_loss_inside_the_ball(name):
    images, labels, ids = make_batch(NETWORK, 24)
    found = make_attack(name, "linf:0.0005", {"steps": 10})(NETWORK, images, labels, ids=ids)
    standing = ~found.fooled
    assert standing.sum() > 12
    margins = LabelLoss(NETWORK, labels, "margin")
    with torch.no_grad():
        before, after = (margins(shown, torch.arange(24)).losses for shown in (images, found.images))
    assert (after > before)[standing].all()
    assert torch.allclose(found.losses[standing], after[standing], atol=1e-5)
    assert not found.zero_gradient.any()


class Liar(nn.Module):
    """A proxy model that calls every point adversarial, or none, and whose gradient is worthless."""

    def __init__(self, model, fooled):
        super().__init__()
        self.model, self.fooled = model, fooled

    def forward(self, images):
        with torch.no_grad():
            right = nn.functional.one_hot(self.model(images).argmax(1), CLASSES).to(images.dtype)
        wave = torch.sin(images.flatten(1).sum(1, keepdim=True) * 50)
        return right * (-9 if self.fooled else 9) + wave * torch.arange(CLASSES)


@pytest.mark.parametrize("name", ["fab", "fab-t"])
@pytest.mark.parametrize("fooled", [True, False])
def test_a_proxy_that_lies_is_not_believed(fooled, name):
    images, labels, ids = make_batch(NETWORK, 24)
    attack = make_attack(name, "linf:0.006", {"steps": 20})
    found = attack(
        NETWORK, images, labels, ids=ids, proxy=ProxySettings(dtype="bf16"), proxy_model=Liar(NETWORK, fooled)
    )
    with torch.no_grad():
        assert torch.equal(NETWORK(found.images).argmax(1) != labels, found.fooled)
    # The last tenth of the steps is the model's own.
    assert found.fooled.any()
    assert not found.fooled.all()


def test_the_model_judges_only_what_its_twin_calls_fooled():
    images, labels, ids = make_batch(NETWORK, 24)
    threat = ThreatModel("linf", 1.0)  # all points are inside the ball
    model = Watched(NETWORK, threat, images, labels)
    make_attack("fab:steps=10", threat)(
        model, images, labels, ids=ids, proxy=ProxySettings(), proxy_model=Liar(NETWORK, fooled=False)
    )
    # The clean images, the point after the last step, and the one brought into the ball.
    assert 2 * 24 <= model.count <= 3 * 24


@pytest.mark.parametrize("name", ["fab", "fab-t"])
@pytest.mark.parametrize("proxy", [ProxySettings(), ProxySettings(dtype="bf16")], ids=str)
def test_a_proxy_finds_what_the_model_would(proxy, name):
    network = make_network(widths=(6, 8, 12))
    images, labels, ids = make_batch(network, 32)
    attack = make_attack(name, "linf:0.006", {"steps": 20})
    found, plain = (attack(network, images, labels, ids=ids, proxy=each) for each in (proxy, None))
    with torch.no_grad():
        assert torch.equal(network(found.images).argmax(1) != labels, found.fooled)
    assert 3 < int(plain.fooled.sum()) < 29
    assert int((found.fooled != plain.fooled).sum()) <= 1


@pytest.mark.parametrize("targets", [-1, 1.5])
def test_settings_that_make_no_sense_are_refused(targets):
    with pytest.raises(SpecError, match="targets"):
        make_attack("fab-t", "linf:0.1", {"targets": targets})
    with pytest.raises(SpecError, match="did you mean 'steps'"):
        make_attack("fab:step=3", "linf:0.1")


class Planes(nn.Module):
    """Logits 0, Σ w·(x - 0.5) - gap and the same with a gap of 12, which linf:0.1 does not close; counts images."""

    def __init__(self, weight, gap):
        super().__init__()
        self.weight, self.gaps, self.count = nn.Parameter(weight), torch.tensor([gap, 12.0]), 0

    def forward(self, images):
        self.count += len(images)
        score = (images.flatten(1) - 0.5) @ self.weight
        return torch.cat([torch.zeros(len(images), 1), score[:, None] - self.gaps], 1)


@pytest.mark.parametrize(("wrong", "gap", "near"), [(2, 4.6, True), (6, 4.2, False)])
def test_of_a_bf16_search_the_trial_that_nearly_succeeded_alone_is_run_again(wrong, gap, near):
    """Of 48 pixels the proxy moves some the wrong way, and what is then lacking is 5 % of the rise, or 17 %."""
    images, labels, steps = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64), 6
    model, exact = Planes(torch.ones(48), gap), Planes(torch.ones(48), gap)
    proxy = Planes(torch.ones(48).index_fill(0, torch.arange(wrong), -1.0), gap)
    proxy.exact_copy = exact
    engine = FastAdaptiveBoundary(threat=ThreatModel("linf", 0.1), steps=steps, targets=2)
    for share in (0.0, 0.1):
        both = on_a_proxy(model, proxy, images, labels, "difference", exact_share=0.0, near=share)
        assert engine.run(both).fooled.tolist() == [bool(share) and near] * 2
        # Towards the second class too, it would be twice as many.
        assert (0 < exact.count <= 2 * (2 * steps + 1)) is (bool(share) and near)


@pytest.mark.parametrize("near", [0.0, 1e-9], ids=["fp32", "bf16"])
@pytest.mark.parametrize("norm_name", NORMS)
def test_points_that_can_be_no_success_are_not_looked_at(norm_name, near, monkeypatch):
    """The proxy is the model itself, so that nothing but the guess differs."""
    images, labels, ids = make_batch(NETWORK, 24)
    engine = FastAdaptiveBoundary(threat=ThreatModel(norm_name, EPS[norm_name] / 2), steps=30, targets=3)
    objective = LabelLoss(NETWORK, labels, "difference")
    guessing = problem(objective, images, ids, proxy_objective=objective, exact_share=0.0, near=near)
    guesses = engine.run(guessing)
    monkeypatch.setattr(fab, "NEAR_UNSEEN", 0.0)
    looks = engine.run(dataclasses.replace(guessing, near=0.0))
    assert torch.equal(looks.fooled, guesses.fooled)
    assert 0 < int(looks.fooled.sum()) < 20
    if norm_name == "l1" and not near:
        assert guesses.model_images == looks.model_images, "in l1 guesses would cost much of the rise"
        return
    assert guesses.model_images < 0.85 * looks.model_images
    with torch.no_grad():
        clean = LabelLoss(NETWORK, labels, "margin")(images, torch.arange(24)).losses
    stands = ~looks.fooled
    rises = ((guesses.losses - clean) / (looks.losses - clean))[stands]
    assert (rises - 1).abs().max() < 0.05


@pytest.mark.parametrize("norm_name", ["linf", "l2"])
def test_trials_that_end_near_success_look_at_all_points(norm_name, monkeypatch):
    images, labels, ids = make_batch(NETWORK, 24)
    engine = FastAdaptiveBoundary(threat=ThreatModel(norm_name, EPS[norm_name] / 2), steps=30, targets=3)
    both = problem(LabelLoss(NETWORK, labels, "difference"), images, ids)
    found = {}
    for near in (0.0, 1e-9, 1e9):
        monkeypatch.setattr(fab, "NEAR_UNSEEN", near)
        found[near] = engine.run(both)
    stands = ~found[1e9].fooled
    assert 0 < int(stands.sum()) < 24
    assert torch.equal(found[1e9].fooled, found[0.0].fooled)
    # With all of them near, each trial of an image that stands runs once more as if there were no guesses.
    assert (found[1e9].losses >= found[0.0].losses - 1e-6)[stands].all()
    assert found[1e9].model_images > 1.5 * found[1e-9].model_images
