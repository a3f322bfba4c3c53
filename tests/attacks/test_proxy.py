"""Fast twins look for adversarial examples; only the model itself decides what counts."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from small_models import CLASSES, Wavy, make_batch, make_network, on_a_proxy, problem
from torch import nn

from unfool import Linf
from unfool.attacks import CustomAttack, ProxySettings, make_attack
from unfool.attacks.ensemble import Part, run_parts
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Perturbed
from unfool.core.errors import SpecError

THREAT = "linf:0.008"
PROXIES = [ProxySettings(), ProxySettings(fold=False), ProxySettings(channels_last=False), ProxySettings(dtype="bf16")]
GOALS = ["last", "best", "success"]


def judged(model, found, labels):
    with torch.no_grad():
        return model(found.images).argmax(1) != labels


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("proxy", PROXIES, ids=str)
def test_every_success_is_the_models_own(proxy, goal):
    network = make_network(widths=(6, 8, 12))
    images, labels, ids = make_batch(network, 64)
    attack = make_attack(f"pgd-10:goal={goal}", THREAT)
    found = attack(network, images, labels, ids=ids, proxy=proxy)
    plain = attack(network, images, labels, ids=ids)
    assert torch.equal(found.fooled, judged(network, found, labels))
    assert 5 < int(plain.fooled.sum()) < 60
    assert abs(int(found.fooled.sum()) - int(plain.fooled.sum())) <= 2
    assert (found.fooled == plain.fooled).float().mean() > 0.9


class Liar(nn.Module):
    """A proxy model that calls every image fooled, or none, from the first step on; its gradient is worthless."""

    def __init__(self, model, fooled):
        super().__init__()
        self.model = model
        self.fooled = fooled

    def forward(self, images):
        with torch.no_grad():
            right = F.one_hot(self.model(images).argmax(1), CLASSES).to(images.dtype)
        wave = torch.sin(images.flatten(1).sum(1, keepdim=True) * 50)
        return (right * -9 if self.fooled else right * 9) + wave * torch.arange(CLASSES)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("fooled", [True, False])
@pytest.mark.parametrize("proxy", [ProxySettings(), ProxySettings(dtype="bf16")], ids=str)
def test_a_proxy_that_lies_is_not_believed(proxy, fooled, goal):
    network = make_network()
    images, labels, ids = make_batch(network, 64)
    attack = make_attack(f"pgd-10:goal={goal},random_start=false", "linf:0.004")
    found = attack(network, images, labels, ids=ids, proxy=proxy, proxy_model=Liar(network, fooled))
    assert torch.equal(found.fooled, judged(network, found, labels))
    assert not found.fooled.all()
    if proxy.exact_share:
        # What the proxy model claims wrongly or leaves standing gets the model's own gradient for the last step.
        with torch.no_grad():
            before = F.cross_entropy(network(images), labels, reduction="none")
        assert found.fooled.any()
        assert float((found.losses - before).mean()) > 0.05


@pytest.mark.parametrize("goal", GOALS)
def test_the_model_takes_the_last_step_of_a_bf16_search_and_judges_the_result(goal):
    network = make_network()
    images, labels, ids = make_batch(network, 16)

    class Watched(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.passes = model, []

        def forward(self, images):
            self.passes.append((len(images), images.requires_grad))
            return self.model(images)

    watched = Watched(network)
    proxy = ProxySettings(dtype="bf16")
    attack = make_attack(f"pgd-20:goal={goal}", "linf:0.00003")
    found = attack(watched, images, labels, ids=ids, proxy=proxy, proxy_model=proxy.copy(network))
    # In bf16 an image may look fooled for a moment; confirming it costs the model one pass more. The last three judge
    # the result, and compare its margin with that of the clean images: none is a near miss.
    judgements = [count for count, gradient in watched.passes if not gradient]
    assert [step for step in watched.passes if step[1]] == [(16, True), (16, True)]
    assert judgements[-3:] == [16, 16, 16]
    assert sum(judgements[:-3]) == 16 if goal == "best" else sum(judgements[:-3]) < 4
    assert not found.fooled.any()


class Rough(nn.Module):
    """A proxy model whose logits are off, and whose images are rounded to bf16."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        wave = 0.05 * torch.sin(images.flatten(1)[:, ::7].sum(1, keepdim=True) * 30)
        rounded = images.bfloat16().float() - images.detach() + images
        return self.model(rounded) + wave * (torch.arange(CLASSES) % 2 * 2 - 1)


@pytest.mark.parametrize(
    ("text", "eps", "most"), [("pgd-10:goal=best", 0.002, 1.4), ("autoattack:steps=5,queries=10", 0.003, 2.2)]
)
def test_no_image_stands_in_a_bf16_search_that_an_fp32_search_fools(text, eps, most):
    network = make_network(widths=(6, 8, 12))
    images, labels, ids = make_batch(network, 200)
    attack, rough = make_attack(text, f"linf:{eps}"), Rough(network)
    plain = attack(network, images, labels, ids=ids)
    alone = attack(network, images, labels, ids=ids, proxy=ProxySettings(), proxy_model=rough)
    found = attack(network, images, labels, ids=ids, proxy=ProxySettings(dtype="bf16"), proxy_model=rough)
    assert 50 < int(plain.fooled.sum()) < 100
    assert (plain.fooled & ~alone.fooled).any()
    assert not (plain.fooled & ~found.fooled).any()
    assert torch.equal(found.fooled, judged(network, found, labels))
    # The other images are no near misses, and not attacked again. Of these short attacks, the finish is a large part.
    assert found.model_images < most * plain.model_images


class TwoHills(nn.Module):
    """The brighter hill reaches beyond the boundary, the darker one does not; between them lies ``valley``."""

    def __init__(self, valley):
        super().__init__()
        self.valley = valley

    def forward(self, images):
        along = (images.flatten(1) - 0.5).mean(1) * 10 - self.valley
        margin = torch.where(along > 0, 1.3 * along, -0.5 * along) - 1
        flat = torch.zeros_like(margin)
        return torch.stack([flat, margin, flat - 5, flat - 6], 1)


def test_a_bf16_search_that_is_led_elsewhere_lets_no_image_stand_that_apgd_in_fp32_fools():
    model, proxy = TwoHills(0.0), TwoHills(1.0)
    images, labels = torch.full((16, 3, 4, 4), 0.5), torch.zeros(16, dtype=torch.int64)
    attack = make_attack("autoattack:steps=10,queries=5", "linf:0.1")
    plain = attack(model, images, labels)
    found = attack(model, images, labels, proxy=ProxySettings(dtype="bf16"), proxy_model=proxy)
    # The random start decides which hill is climbed, and no step leads from one to the other.
    by_apgd = (plain.fooled_by_part >= 0) & (plain.fooled_by_part < 2)
    assert 2 < int(by_apgd.sum()) < 14
    assert found.fooled[by_apgd].all()


def test_best_hears_of_what_the_search_found_on_the_way():
    network = Wavy(432, torch.float32)
    images, labels, ids = make_batch(network, 64)
    attack = make_attack("pgd-6:random_start=false,step_size=0.02,goal=best", "linf:0.02")
    plain = attack(network, images, labels, ids=ids)
    found = attack(network, images, labels, ids=ids, proxy=ProxySettings())
    last = make_attack("pgd-6:random_start=false,step_size=0.02,goal=last", "linf:0.02")(network, images, labels)
    assert int(plain.fooled.sum()) > int(last.fooled.sum()) + 5
    assert torch.equal(found.fooled, plain.fooled)
    assert torch.equal(found.fooled, judged(network, found, labels))
    assert torch.allclose(found.losses, plain.losses, rtol=1e-3)


def test_an_image_that_leaves_early_is_confirmed_once():
    network = make_network()
    images, labels, ids = make_batch(network, 32)
    attack = make_attack("pgd-10", "linf:0.1")
    found = attack(network, images, labels, ids=ids, proxy=ProxySettings(dtype="bf16"))
    assert found.fooled.all()
    assert found.model_images < 5 * 32


def test_a_twin_leaves_the_model_alone():
    network = make_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels, ids = make_batch(network.eval(), 8)
    network.train()
    make_attack("pgd-3", THREAT)(network, images, labels, ids=ids, proxy=ProxySettings(dtype="bf16"))
    assert network.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_unknown_precision_is_refused():
    images, labels, ids = make_batch(make_network(), 4)
    with pytest.raises(SpecError, match="did you mean 'bf16'"):
        make_attack("pgd-3", THREAT)(make_network(), images, labels, ids=ids, proxy=ProxySettings(dtype="bf61"))


class Sided(nn.Module):
    """Two logits, ±(gap + w·(x - 0.5)): inside linf:eps the gap can be closed by eps·Σ|w| at most."""

    def __init__(self, weight, gap):
        super().__init__()
        self.weight, self.gap = nn.Parameter(weight), gap

    def forward(self, images):
        score = self.gap + (images.flatten(1) - 0.5) @ self.weight
        return torch.stack([score, -score], 1)


@pytest.mark.parametrize(("wrong", "gap", "repeated"), [(2, 4.6, True), (6, 4.2, False)])
def test_what_a_proxy_s_search_nearly_fools_is_attacked_again_by_every_part_on_the_model(wrong, gap, repeated):
    """Of 48 pixels the proxy moves some the wrong way, and what is then lacking is 5 % of the rise, or 17 %."""
    model = Sided(torch.ones(48), gap)
    proxy = Sided(torch.ones(48).index_fill(0, torch.arange(wrong), -1.0), gap)
    proxy.exact_copy = model
    images, labels = torch.full((3, 3, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    parts = make_attack("pgd-8", "linf:0.1").parts
    idle = dataclasses.replace(parts[0], name="idle", engine=dataclasses.replace(parts[0].engine, steps=0))
    both = on_a_proxy(model, proxy, images, labels, "ce", exact_share=0.1)
    perturbed, fooled_by_part = run_parts(parts, idle, both)
    assert perturbed.fooled.tolist() == [repeated] * 3
    assert fooled_by_part.tolist() == [0 if repeated else -1] * 3
    alone = problem(LabelLoss(model, labels, "ce"), images, torch.arange(3))
    assert run_parts(parts, None, alone)[0].fooled.all()


class Stepped(Sided):
    """Rounds its score up to multiples of 0.2: as bf16 does, it hides small gains."""

    def forward(self, images):
        rounded = (super().forward(images)[:, 0] / 0.2).ceil() * 0.2
        return torch.stack([rounded, -rounded], 1)


@pytest.mark.parametrize(("gap", "repeated"), [(4.6, True), (8.0, False)])
def test_what_square_itself_nearly_fools_in_bf16_it_attacks_again_on_the_model(gap, repeated):
    """The proxy's search lacks a small part of its rise, or much of it, where none succeeds."""
    weight, seen = torch.linspace(0.2, 1.8, 48), []
    model, proxy = Sided(weight, gap), Stepped(weight, gap)
    proxy.exact_copy = Sided(weight, gap)
    proxy.exact_copy.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    images, labels = torch.full((4, 3, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    (square,) = make_attack("square:steps=600,p=0.05", "linf:0.1").parts
    both = on_a_proxy(model, proxy, images, labels, "margin", exact_share=0.1)
    alone = run_parts((square,), None, problem(LabelLoss(model, labels, "margin"), images, torch.arange(4)))[0]
    of_proxy = square.engine.run(dataclasses.replace(both, exact_share=0.0))
    found, _ = run_parts((square,), None, both)
    assert alone.fooled.tolist() == [repeated] * 4
    assert not of_proxy.fooled.all()
    assert found.fooled.tolist() == [repeated] * 4
    assert bool(seen) is repeated


@dataclasses.dataclass(frozen=True)
class Short:
    """Moves all pixels down by eps; on a proxy by less, which lacks 27 % of the rise that it reaches."""

    threat: Linf

    def run(self, problem):
        exact = problem.proxy_objective is None or not hasattr(problem.proxy_objective.model, "exact_copy")
        images = problem.images - (self.threat.eps if exact else 0.0945 / 1.27)
        value = problem.objective(images, torch.arange(len(images)))
        never = torch.zeros_like(value.fooled)
        return Perturbed(
            images=images, losses=value.losses, fooled=value.fooled, zero_gradient=never, model_images=len(images)
        )


@pytest.mark.parametrize(("learns_from", "repeated"), [("scores", True), ("gradient", False)])
def test_alone_too_a_search_by_scores_is_repeated_that_lacks_what_bf16_may_have_hidden(learns_from, repeated):
    model, proxy = Sided(torch.ones(48), 48 * 0.0945), Sided(torch.ones(48), 48 * 0.0945)
    proxy.exact_copy = model
    images, labels = torch.full((3, 3, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    part = Part(name="short", engine=Short(Linf(0.1)), loss="margin", learns_from=learns_from)
    attack = CustomAttack(Linf(0.1), label="short", components=(part,))
    found = attack(model, images, labels, proxy=ProxySettings(dtype="bf16"), proxy_model=proxy)
    assert found.fooled.tolist() == [repeated] * 3


class Kept:
    """Keeps the last state of a batch."""

    def __init__(self):
        self.state = None

    def load(self):
        return self.state

    def save(self, state):
        self.state = {name: value.clone() for name, value in state.items()}


def test_what_a_checkpoint_holds_is_not_computed_again_and_an_earlier_version_s_is_completed():
    model, kept = Sided(torch.ones(48), 8.0), Kept()
    images, labels = torch.full((3, 3, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    parts = make_attack("pgd-3", "linf:0.1").parts
    alone = problem(LabelLoss(model, labels, "ce"), images, torch.arange(3))
    first, _ = run_parts(parts, None, alone, kept)
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    again, _ = run_parts(parts, None, alone, kept)
    assert seen == []
    assert torch.equal(first.images, again.images)
    for name in ("clean", "lacking", "reached"):
        del kept.state[name]
    again, _ = run_parts(parts, None, alone, kept)
    assert seen == [3]
    assert torch.equal(first.images, again.images)
    assert first.model_images == again.model_images


def test_only_a_bf16_search_is_finished_by_steps_of_the_model_itself(monkeypatch):
    model = Sided(torch.ones(48), 4.2)
    proxy = Sided(torch.ones(48).index_fill(0, torch.arange(6), -1.0), 4.2)
    images, labels = torch.full((3, 3, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    (part,) = make_attack("pgd-8", "linf:0.1").parts
    attack = CustomAttack(Linf(0.1), label="two", components=(part, dataclasses.replace(part, name="again")))
    monkeypatch.setattr(CustomAttack, "finisher", property(lambda self: part))
    for settings, number in ((ProxySettings(), -1), (ProxySettings(dtype="bf16"), 2)):
        attacked = attack(model, images, labels, proxy=settings, proxy_model=proxy)
        assert attacked.fooled_by_part.tolist() == [number] * 3
