"""APGD beside the published code from the same start, and what holds of it whatever the network."""

import logging
import warnings

import pyautoattack
import pytest
import torch
import torch.nn.functional as F
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted, L1_projection
from small_models import make_batch, make_network, on_a_proxy, problem
from torch import nn

from unfool.attacks import APGD, ProxySettings, make_attack
from unfool.attacks.engines import trials
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.objective import LOSSES, LabelLoss
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

BUDGETS = {"linf": 0.02, "l2": 0.3, "l1": 4.0}
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def start_in(norm, images, ids):
    threat = ThreatModel(norm, BUDGETS[norm])
    if norm == "l1":
        noise = Streams(4).normal(ids, tuple(images.shape[1:]))
        expected = images + noise + L1_projection(images, noise, threat.eps)
        start = threat.project(images + noise, images)
        assert torch.allclose(start, expected, atol=1e-5)
        return start
    return threat.sample(images, ids, Streams(4))


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("steps", [1, 7, 40])
def test_from_the_same_start_it_climbs_as_the_published_code(norm, loss, steps):
    network = make_network().eval()
    images, labels, ids = make_batch(network, 24)
    images = images * 0.8 + 0.1
    start = start_in(norm, images, ids)
    theirs = APGDAttack(network, norm=NAMES[norm], eps=BUDGETS[norm], n_iter=steps, seed=0, loss=loss, device="cpu")
    theirs.init_hyperparam(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, right, losses, _ = theirs.attack_single_run(images, labels, x_init=start)
    engine = AutoProjectedGradient(threat=ThreatModel(norm, BUDGETS[norm]), steps=steps, goal="best")
    found = engine.run(problem(LabelLoss(network, labels, loss), images, ids, starts=start))
    # Ratios of logits have long tails, hence quartiles; rounding may turn a vanishing gradient, and runs part ways.
    spread = float(losses.quantile(0.75) - losses.quantile(0.25))
    gain = found.losses - losses
    if norm == "l1" and steps > 1:
        # Theirs counts values as moved that differ from the image by rounding alone, and takes less sparse steps.
        assert float(gain.median()) >= -0.02 * spread
        return
    assert float(gain.abs().median()) <= 1e-3 * spread
    assert float((gain >= -0.02 * spread).float().mean()) >= 0.7
    assert int((found.fooled == ~right.bool()).sum()) >= 22


@pytest.mark.parametrize("norm", BUDGETS)
def test_targets_are_the_likeliest_other_classes_in_order(norm):
    network = make_network().eval()
    images, labels, ids = make_batch(network, 24)
    eps = BUDGETS[norm] / (8 if norm == "l1" else 2)
    theirs = APGDAttack_targeted(
        network, norm=NAMES[norm], eps=eps, n_iter=20, seed=0, n_target_classes=3, device="cpu",
        use_largereps=norm == "l1", logger=logging.getLogger("theirs"),
    )  # fmt: skip
    right = network(theirs.perturb(images, labels)).argmax(1) == labels
    found = make_attack("apgd-t:steps=20,targets=3", ThreatModel(norm, eps))(network, images, labels, ids=ids)
    assert 0 < int(right.sum()) < 24
    assert int(found.fooled.sum()) >= int((~right).sum()) - 2


def test_losses_are_those_of_the_paper():
    logits = Streams(1).normal(torch.arange(40), (6,)).double() * 3
    labels = Streams(2).integers(torch.arange(40), 6)
    targets = (labels + 1 + Streams(3).integers(torch.arange(40), 5)) % 6
    for row in range(40):
        z, y, t = logits[row].tolist(), int(labels[row]), int(targets[row])
        ranked = sorted(z, reverse=True)
        other = max(value for k, value in enumerate(z) if k != y)
        expected = {
            "margin": other - z[y],
            "dlr": -(z[y] - other) / (ranked[0] - ranked[2]),
            "difference": z[t] - z[y],
            "dlr-targeted": -(z[y] - z[t]) / (ranked[0] - (ranked[2] + ranked[3]) / 2),
            "ce": float(F.cross_entropy(logits[row], labels[row])),
        }
        for name, value in expected.items():
            found = LOSSES[name](logits[row : row + 1], labels[row : row + 1], targets[row : row + 1])
            assert float(found[0]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_said_and_still_attacked(classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, classes)).eval()
    with torch.no_grad():
        model[1].weight.copy_(Streams(5).normal(torch.arange(classes), (432,)) / 20)
        model[1].bias.zero_()
    images = Streams(0).uniform(torch.arange(16), (3, 12, 12))
    labels = model(images).argmax(1).detach()
    for name, needed in (("apgd-dlr", 3), ("apgd-t", 4)):
        attack = make_attack(f"{name}:steps=10", "linf:0.1")
        if classes < needed:
            with pytest.warns(UnfoolWarning, match=f"needs {needed} classes"):
                found = attack(model, images, labels)
        else:
            found = attack(model, images, labels)
        assert bool(found.fooled.all())


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
@pytest.mark.parametrize("norm", BUDGETS)
def test_a_bf16_search_reports_only_what_the_network_confirms(name, norm):
    network = make_network().eval()
    images, labels, ids = make_batch(network)
    attack = make_attack(f"{name}:steps=20", ThreatModel(norm, BUDGETS[norm]))
    found = attack(network, images, labels, ids=ids, proxy=ProxySettings(dtype="bf16"))
    own = attack(network, images, labels, ids=ids)
    with torch.no_grad():
        assert torch.equal(found.fooled, network(found.images).argmax(1) != labels)
    assert abs(int(found.fooled.sum()) - int(own.fooled.sum())) <= 1


def test_fooled_images_leave_the_batch():
    network = make_network().eval()
    images, labels, ids = make_batch(network)
    found = {
        goal: make_attack(f"apgd-ce:steps=30,goal={goal}", "linf:0.05")(network, images, labels, ids=ids)
        for goal in ("success", "best")
    }
    assert found["best"].model_images == 31 * len(images)
    assert found["success"].model_images < 0.7 * found["best"].model_images
    assert torch.equal(found["success"].fooled, found["best"].fooled)


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_autoattack_runs_the_published_parts_in_their_order(version):
    theirs = pyautoattack.AutoAttack(nn.Identity(), norm="Linf", eps=0.1, version=version)
    attack = make_attack(f"autoattack:version={version}", "linf:0.1")
    assert [part.name for part in attack.parts] == theirs.attacks_to_run
    assert attack.averaged_passes == (20 if version == "rand" else 1)
    if version != "rand":
        engines = {part.name: part.engine for part in attack.parts}
        assert engines["apgd-ce"].restarts == theirs.apgd.n_restarts
        assert engines["apgd-t"].targets == theirs.apgd_targeted.n_target_classes
        assert engines["fab-t"].targets == theirs.fab.n_target_classes
        assert engines["square"].steps == theirs.square.n_queries
        assert all(engines[name].steps == 100 for name in engines if name != "square")


def test_autoattack_in_l1_has_its_own_budgets():
    theirs = pyautoattack.AutoAttack(nn.Identity(), norm="L1", eps=12.0, version="standard")
    engines = {part.name: part.engine for part in make_attack("autoattack", "l1:12").parts}
    assert engines["apgd-ce"].restarts == theirs.apgd.n_restarts == 5
    assert engines["apgd-t"].targets == theirs.apgd_targeted.n_target_classes == 5
    assert engines["apgd-ce"].wide
    assert engines["apgd-t"].wide


@pytest.mark.parametrize(
    ("threat", "said", "wide"),
    [
        ("l1:12", None, True),
        ("linf:0.1", None, False),
        ("l2:0.5", None, False),
        ("l1:12", False, False),
        ("linf:0.1", True, True),
    ],
)
def test_the_larger_balls_first_are_those_of_l1_unless_something_is_said(threat, said, wide):
    assert APGD(ThreatModel.parse(threat), wide=said).parts[0].engine.wide is wide


class Memory:
    """Keeps every state, and gives back the one it is told to start from."""

    def __init__(self, start=None):
        self.start = start
        self.states = []

    def load(self):
        return None if self.start is None else {name: value.clone() for name, value in self.start.items()}

    def save(self, state):
        self.states.append({name: value.clone() for name, value in state.items()})


@pytest.mark.parametrize("proxy", [None, ProxySettings(dtype="bf16")])
def test_an_ensemble_resumed_after_any_part_ends_with_the_same_bits(proxy):
    network = make_network().eval()
    images, labels, ids = make_batch(network)
    attack = make_attack("autoattack:steps=8,queries=40", "linf:0.012")
    whole = Memory()
    expected = attack(network, images, labels, ids=ids, checkpoint=whole, proxy=proxy)
    assert len(whole.states) == len(attack.parts) + (proxy is not None)
    assert 0 < int(expected.fooled.sum()) < len(images)
    for state in whole.states:
        found = attack(network, images, labels, ids=ids, checkpoint=Memory(state), proxy=proxy)
        for name in ("images", "losses", "fooled", "zero_gradient", "fooled_by_part", "distances"):
            assert torch.equal(getattr(found, name), getattr(expected, name))
        assert found.model_images == expected.model_images


def test_an_ensemble_says_which_part_fooled_each_image():
    network = make_network().eval()
    images, labels, ids = make_batch(network)
    labels[0] = (labels[0] + 1) % 4  # wrong as it is
    attack = make_attack("autoattack:steps=8,queries=40", "linf:0.012")
    found = attack(network, images, labels, ids=ids)
    alone = attack.parts[0]
    streams = Streams(0).named("autoattack").named(alone.name)
    first = alone.engine.run(problem(LabelLoss(network, labels[1:]), images[1:], ids[1:], streams=streams))
    assert torch.equal(found.fooled_by_part[1:] == 0, first.fooled)
    assert int(found.fooled_by_part[0]) == -1
    assert bool(found.fooled[0])
    assert torch.equal(found.images[0], images[0])
    assert torch.equal(found.fooled_by_part >= 0, found.fooled & (torch.arange(len(images)) > 0))


def test_a_random_model_is_read_as_the_mean_of_its_draws():
    class Noisy(nn.Module):
        def forward(self, images):
            self.calls = getattr(self, "calls", 0) + 1
            return torch.stack([images.flatten(1).sum(1) * 0 + self.calls % 2, images.flatten(1).mean(1) + 0.2], 1)

    images = Streams(0).uniform(torch.arange(4), (3, 4, 4)) * 0.1 + 0.4
    objective = LabelLoss(Noisy(), torch.ones(4, dtype=torch.int64), "margin", draws=2)
    value = objective(images, torch.arange(4))
    assert torch.allclose(value.losses, 0.5 - images.flatten(1).mean(1) - 0.2)
    assert not value.fooled.any()


def test_unknown_losses_are_refused_with_the_nearest_name():
    with pytest.raises(SpecError, match="margin"):
        LabelLoss(nn.Identity(), torch.zeros(1, dtype=torch.int64), "margn")


class SecondInReach(nn.Module):
    """Logits 0, about -3, and Σ w·(x - 0.5) - gap: the likelier class is out of reach in linf:0.1; counts images."""

    def __init__(self, weight, gap):
        super().__init__()
        self.weight, self.gap, self.count = nn.Parameter(weight), gap, 0

    def forward(self, images):
        self.count += len(images)
        score = (images.flatten(1) - 0.5) @ self.weight
        return torch.stack([0 * score, -0.01 * score - 3, score - self.gap], 1)


@pytest.mark.parametrize(("wrong", "gap", "near"), [(2, 4.6, True), (6, 4.2, False)])
def test_in_bf16_the_first_target_is_searched_for_in_fp32_and_others_again_that_lack_little(wrong, gap, near):
    """Of 48 pixels the proxy moves some the wrong way, and what is then lacking is 5 % of the rise, or 17 %."""
    images, labels, steps = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64), 6
    engine = AutoProjectedGradient(threat=ThreatModel("linf", 0.1), steps=steps, targets=2)
    for share in (0.0, 0.1):
        model, exact = (SecondInReach(torch.ones(48), gap) for _ in range(2))
        proxy = SecondInReach(torch.ones(48).index_fill(0, torch.arange(wrong), -1.0), gap)
        proxy.exact_copy = exact
        found = engine.run(on_a_proxy(model, proxy, images, labels, "difference", exact_share=0.0, near=share))
        assert found.fooled.tolist() == [bool(share) and near] * 2
        once = 2 * (steps + 1)
        if share:
            assert once < exact.count <= 2 * once if near else exact.count == once
            assert proxy.count == once
        else:
            assert (exact.count, proxy.count) == (0, 2 * once)


class AllInReach(nn.Module):
    """Logits 0, one that never wins, and two of which the proxy's first lacks a little and its second nothing."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        moved = images.flatten(1) - 0.5
        first, second = moved @ self.weight - 4.6, moved.sum(1) - 4.7
        return torch.stack([0 * first, -0.01 * second - 3, first, second], 1)


def test_a_trial_that_is_run_again_comes_before_the_success_of_a_later_one(monkeypatch):
    """Two trials at once give what they give in turn: the class of the first, although it succeeds in fp32 alone."""
    images, labels = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)
    engine = AutoProjectedGradient(threat=ThreatModel("linf", 0.1), steps=6, targets=3)
    model, proxy = AllInReach(torch.ones(48)), AllInReach(torch.ones(48).index_fill(0, torch.arange(2), -1.0))
    proxy.exact_copy = AllInReach(torch.ones(48))
    found = []
    for values in (trials.VALUES_AT_ONCE, 1):
        monkeypatch.setattr(trials, "VALUES_AT_ONCE", values)
        both = on_a_proxy(model, proxy, images, labels, "difference", exact_share=0.0, near=0.1)
        found.append(engine.run(both))
    assert found[0].fooled.all()
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].losses, found[1].losses)
    assert not torch.equal(found[0].images, images)
