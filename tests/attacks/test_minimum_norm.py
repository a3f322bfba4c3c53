"""FMN, DDN and sigma-zero: as the papers write them, exact on linear models, and as near as foolbox's."""

import dataclasses
import math

import foolbox
import numpy as np
import pytest
import torch
from small_models import make_batch, make_network, problem
from torch import nn

from unfool import L0, L1, L2, Linf, attacks
from unfool.attacks import ProxySettings
from unfool.attacks.minimum_norm import targeted
from unfool.attacks.minimum_norm.search import NearestSoFar
from unfool.attacks.minimum_norm.targeted import steepest_part
from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

EPS = {"linf": 0.05, "l2": 0.5, "l1": 5.0, "l0": 5}
NETWORK = make_network()


def nearest(attack, network, images, labels, ids=None):
    ids = torch.arange(len(images)) if ids is None else ids
    return attack.search.nearest(problem(LabelLoss(network, labels, attack.loss), images, ids))


def margin_and_gradient(network, point, label, loss):
    leaf = torch.tensor(point)[None].requires_grad_()
    logits = network(leaf)[0]
    others = [logits[k] for k in range(len(logits)) if k != label]
    margin = max(others) - logits[label]
    climbed = margin if loss == "margin" else torch.logsumexp(logits, 0) - logits[label]
    (gradient,) = torch.autograd.grad(climbed, leaf)
    return float(margin.detach()), gradient[0].numpy()


def length(delta, norm):
    if norm == "l0":
        return float((delta != 0).any(0).sum())
    return float(np.linalg.norm(delta.ravel(), {"linf": np.inf, "l2": 2, "l1": 1}[norm]))


def literal_projection(point, origin, radius, norm):
    """The projection of one image that the threat models are tested against, by the same oracles."""
    projected = ThreatModel(norm, radius).project(torch.tensor(point)[None], torch.tensor(origin)[None])
    return projected[0].numpy()


def literal_fmn(network, origin, label, norm, steps, first_step, first_gamma):
    """Algorithm 1 of Pintor et al., one image at a time; a first guess of the radius reaches a little further."""
    dual = {"linf": 1, "l2": 2, "l1": np.inf, "l0": 2}[norm]
    radius, best, crossed, point = (1.0 if norm == "l0" else np.inf), np.inf, False, origin.copy()
    farthest = length(np.maximum(origin, 1 - origin), norm)
    for step in range(steps):
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        alpha = first_step / 100 + (first_step - first_step / 100) * cosine
        gamma = 0.001 + (first_gamma - 0.001) * cosine
        margin, gradient = margin_and_gradient(network, point, label, "margin")
        distance = length(point - origin, norm)
        if margin > 0:
            crossed, best = True, min(best, distance)
            if norm == "l0":
                radius = min(radius - 1, math.floor(radius * (1 - gamma)), best)
            else:
                radius = min(radius * (1 - gamma), best)
        elif norm == "l0":
            radius = max(radius + 1, math.floor(radius * (1 + gamma)))
        elif crossed:
            radius *= 1 + gamma
        else:
            radius = (distance + abs(margin) / np.linalg.norm(gradient.ravel(), dual)) * (1 + gamma)
        radius = min(max(radius, 1) if norm == "l0" else radius, farthest)
        ahead = point + alpha * gradient / np.linalg.norm(gradient)
        point = literal_projection(ahead, origin, radius, norm)
    return best


def literal_ddn(network, origin, label, steps):
    """Algorithm 1 of Rony et al., one image at a time, without quantisation."""
    radius, best, point = 1.0, np.inf, origin.copy()
    for step in range(steps):
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        margin, gradient = margin_and_gradient(network, point, label, "ce")
        if margin > 0:
            best = min(best, length(point - origin, "l2"))
        radius *= 0.95 if margin > 0 else 1.05
        radius = min(radius, length(np.maximum(origin, 1 - origin), "l2"))
        delta = point - origin + alpha * gradient / np.linalg.norm(gradient)
        point = np.clip(origin + radius * delta / np.linalg.norm(delta), 0, 1)
    return best


def literal_sigma_zero(network, origin, label, steps):
    """Algorithm 1 of Cinà et al., one image at a time, with the optimizer of torch."""
    start = torch.tensor(origin)
    delta, threshold, best = torch.zeros_like(start, requires_grad=True), 0.3, np.inf
    adam = torch.optim.Adam([delta], lr=1.0)
    for step in range(steps):
        logits = network((start + delta)[None])[0]
        others = torch.cat([logits[:label], logits[label + 1 :]])
        margin = logits[label] - others.max()
        squares = delta.square().sum(0)
        total = margin.clamp(min=0) + (squares / (squares + 1e-3)).mean()
        if margin < 0:
            best = min(best, length(delta.detach().numpy(), "l0"))
        delta.grad = torch.autograd.grad(total, delta)[0]
        delta.grad /= delta.grad.abs().max().clamp(min=1e-12)
        rate = 0.1 + 0.9 * (1 + math.cos(math.pi * step / steps)) / 2
        adam.param_groups[0]["lr"] = rate
        adam.step()
        threshold = min(max(threshold + 0.01 * rate * (1 if margin < 0 else -1), 0), 1)
        with torch.no_grad():
            delta.copy_((start + delta).clamp(0, 1) - start)
            delta *= (delta.abs().amax(0) >= threshold).double()
    return best


@pytest.mark.parametrize("norm", EPS)
def test_fmn_is_the_algorithm_of_the_paper(norm):
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 4, dtype=torch.float64)
    attack = attacks.FMN(ThreatModel(norm, EPS[norm]), steps=15, step_size=0.5, gamma=0.1)
    ours = nearest(attack, network, images, labels, ids).distances
    expected = [
        literal_fmn(network, image.numpy(), int(label), norm, 15, 0.5, 0.1)
        for image, label in zip(images, labels, strict=True)
    ]
    assert ours.tolist() == pytest.approx(expected, rel=1e-6)
    assert sum(map(math.isfinite, expected)) >= 3


def test_ddn_is_the_algorithm_of_the_paper():
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 4, dtype=torch.float64)
    ours = nearest(attacks.DDN(L2(0.5), steps=25), network, images, labels, ids).distances
    expected = [literal_ddn(network, i.numpy(), int(label), 25) for i, label in zip(images, labels, strict=True)]
    assert ours.tolist() == pytest.approx(expected, rel=1e-6)
    assert math.isfinite(max(expected))


def test_sigma_zero_is_the_algorithm_of_the_paper():
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 2, dtype=torch.float64)
    ours = nearest(attacks.SigmaZero(L0(5), steps=40), network, images, labels, ids).distances
    expected = [literal_sigma_zero(network, i.numpy(), int(y), 40) for i, y in zip(images, labels, strict=True)]
    assert ours.tolist() == expected
    assert math.isfinite(max(expected))


class TwoClasses(nn.Module):
    """Logits 0 and w·x + b: the boundary is one plane, and every minimum norm is known."""

    def __init__(self, size, shift):
        super().__init__()
        self.weight = Streams(3).normal(torch.tensor([0]), (size,))[0]
        self.shift = shift

    def forward(self, images):
        score = (images.flatten(1) - 0.5) @ self.weight + self.shift
        return torch.stack([torch.zeros_like(score), score], 1)


def exact_distances(model, images):
    """The distances of images from the plane, in each norm; in the box as long as no value has to leave it."""
    weight = model.weight.double()
    gap = ((images.flatten(1).double() - 0.5) @ weight + model.shift).abs()
    per_pixel = (weight.abs() * 0.5).view(3, -1).sum(0).sort(descending=True).values.cumsum(0)
    return {
        "linf": gap / weight.abs().sum(),
        "l2": gap / weight.norm(),
        "l1": gap / weight.abs().max(),
        "l0": 1 + (per_pixel[None] <= gap[:, None]).sum(1).double(),
    }


@pytest.mark.parametrize(
    "attack",
    [
        attacks.FMN(Linf(0.1)),
        attacks.FMN(L2(0.5)),
        attacks.FMN(L1(5)),
        attacks.TargetedFMN(Linf(0.1), steps=60),
        attacks.TargetedFMN(L2(0.5), steps=60),
        attacks.TargetedFMN(L1(5), steps=100),
        attacks.DDN(L2(0.5)),
        attacks.FMN(L0(5)),
        attacks.SigmaZero(L0(5), steps=200),
    ],
    ids=str,
)
def test_the_distances_from_a_plane_are_exact(attack):
    model = TwoClasses(3 * 8 * 8, 0.0)
    norm = attack.threat.norm_name
    images = torch.full((6, 3, 8, 8), 0.5)
    # Grey images moved straight away from the plane; in l1 so little that one value can bring them back.
    reach = torch.linspace(0.2, 1.0, 6)[:, None] * (1.0 if norm == "l1" else 4.0)
    images += (reach * model.weight / model.weight.square().sum()).view_as(images)
    exact = exact_distances(model, images)[norm]
    ours = nearest(attack, model, images, torch.ones(6, dtype=torch.int64)).distances
    slack = 1 if norm == "l0" else 0.02 * exact
    assert (ours >= exact - 1e-5).all() or norm == "l0"
    assert (ours <= exact + slack).all()


@pytest.mark.parametrize(
    ("attack", "theirs"),
    [
        (attacks.FMN(Linf(0.05), steps=40), foolbox.attacks.LInfFMNAttack(steps=40)),
        (attacks.FMN(L2(0.5), steps=40), foolbox.attacks.L2FMNAttack(steps=40)),
        (attacks.FMN(L1(5), steps=40), foolbox.attacks.L1FMNAttack(steps=40)),
        (attacks.FMN(L0(5), steps=40), foolbox.attacks.L0FMNAttack(steps=40)),
        (attacks.DDN(L2(0.5), steps=40), foolbox.attacks.DDNAttack(steps=40)),
        (attacks.TargetedFMN(Linf(0.05), steps=40), foolbox.attacks.LInfFMNAttack(steps=40)),
        (attacks.TargetedFMN(L2(0.5), steps=40), foolbox.attacks.L2FMNAttack(steps=40)),
        (attacks.TargetedFMN(L1(5), steps=40), foolbox.attacks.L1FMNAttack(steps=40)),
    ],
    ids=lambda value: str(value) if isinstance(value, attacks.Attack) else "",
)
def test_the_median_distance_is_that_of_foolbox_or_less(attack, theirs):
    images, labels, ids = make_batch(NETWORK, 24)
    wrapped = foolbox.models.pytorch.PyTorchModel(NETWORK, bounds=(0.0, 1.0), device="cpu")
    found = theirs.run(wrapped, images, foolbox.criteria.Misclassification(labels))
    distances = attack.threat.norm(found.double() - images.double())
    with torch.no_grad():
        distances[NETWORK(found).argmax(1) == labels] = math.inf
    assert float(nearest(attack, NETWORK, images, labels, ids).distances.median()) <= 1.02 * float(distances.median())


@pytest.mark.parametrize("name", ["fmn", "sigma-zero"])
def test_inside_a_threat_model_it_succeeds_where_the_least_distance_allows(name):
    images, labels, ids = make_batch(NETWORK, 24)
    free = nearest(attacks.make_attack(f"{name}:steps=30", "l0:1"), NETWORK, images, labels, ids)
    eps = int(free.distances.median())
    attacked = attacks.make_attack(f"{name}:steps=30", L0(eps))(NETWORK, images, labels, ids=ids)
    # Beyond these, an example outside may lead to one inside, which the attack looks at too.
    assert (attacked.fooled | (free.distances > eps)).all()
    assert (attacked.distances <= eps).all()
    assert 0 < int(attacked.fooled.sum()) < 24
    assert attacked.model_images < free.model_images + 24


def test_what_is_misclassified_already_has_the_distance_zero_and_costs_one_pass():
    images, labels, ids = make_batch(NETWORK, 4)
    wrong = (labels + 1) % 4
    found = nearest(attacks.FMN(L2(0.5)), NETWORK, images, wrong, ids)
    assert found.distances.tolist() == [0.0] * 4
    assert torch.equal(found.images, images)
    assert found.model_images == 4


def test_restarts_never_make_it_worse_and_draw_by_the_ids():
    images, labels, ids = make_batch(NETWORK, 8)
    once = nearest(attacks.FMN(L2(0.5), steps=10), NETWORK, images, labels, ids)
    often = nearest(attacks.FMN(L2(0.5), steps=10, restarts=3), NETWORK, images, labels, ids)
    assert (often.distances <= once.distances).all()
    assert (often.distances < once.distances).any()
    part = nearest(attacks.FMN(L2(0.5), steps=10, restarts=3), NETWORK, images[5:], labels[5:], ids[5:])
    assert torch.allclose(part.distances, often.distances[5:], rtol=1e-3)


@pytest.mark.parametrize("attack", [attacks.FMN(L1(5), steps=20), attacks.DDN(L2(0.5), steps=20)], ids=str)
def test_both_losses_are_the_nearer_of_a_path_on_each(attack):
    images, labels, ids = make_batch(NETWORK, 8)
    margin, entropy, both = (
        nearest(dataclasses.replace(attack, losses=losses), NETWORK, images, labels, ids)
        for losses in ("margin", "ce", "both")
    )
    assert (both.distances <= margin.distances * (1 + 1e-3)).all()
    assert (both.distances < margin.distances).any()
    if isinstance(attack, attacks.DDN):  # whose second path does not know what the first one reached
        assert torch.allclose(both.distances, torch.minimum(margin.distances, entropy.distances), rtol=1e-3)
    assert both.model_images <= margin.model_images + entropy.model_images


class ThreePlanes(nn.Module):
    """The label's class, one with a near boundary that bends away at once, and one with a far but straight one."""

    def forward(self, images):
        x, y = images.flatten(1)[:, 0] - 0.5, images.flatten(1)[:, 1] - 0.5
        return torch.stack([torch.zeros_like(x), torch.minimum(x - 0.1, 0.02 * x - 0.006), y - 0.2], 1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_targeted_fmn_reaches_the_class_whose_boundary_is_nearest(norm):
    images, labels = torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    threat = ThreatModel(norm, 0.25)
    found = nearest(attacks.TargetedFMN(threat, steps=100), ThreePlanes(), images, labels)
    assert float(found.distances) == pytest.approx(0.2, rel=0.01)
    # The margin leads towards the class that is likelier on the way: its boundary is at 0.3.
    assert float(nearest(attacks.FMN(threat, steps=100), ThreePlanes(), images, labels).distances) > 0.25


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 1.0])
def test_the_steepest_values_are_those_that_sorting_says(share):
    streams = np.random.default_rng(0)
    gradients, points = streams.normal(size=(5, 12)), streams.choice([0.0, 0.4, 1.0], (5, 12))
    gradients[4], points[3] = 0.0, np.where(gradients[3] > 0, 1.0, 0.0)
    expected = np.zeros_like(gradients)
    for row, (gradient, point) in enumerate(zip(gradients, points, strict=True)):
        free = [k for k in range(12) if 0 <= point[k] + 0.1 * np.sign(gradient[k]) <= 1]
        for k in sorted(free, key=lambda k: -abs(gradient[k]))[: max(1, int(share * 12))]:
            expected[row, k] = gradient[k]
    found = steepest_part(torch.tensor(gradients).view(5, 3, 2, 2), torch.tensor(points).view(5, 3, 2, 2), share)
    assert np.array_equal(found.view(5, 12).numpy(), expected)


def test_targeted_fmn_in_l1_comes_nearer_by_steep_values_first(monkeypatch):
    images, labels, ids = make_batch(NETWORK, 48)
    attack = attacks.TargetedFMN(L1(5), steps=100)
    found = nearest(attack, NETWORK, images, labels, ids)
    monkeypatch.setattr(targeted, "STEEPEST", {})
    assert float(found.distances.mean()) < float(nearest(attack, NETWORK, images, labels, ids).distances.mean())


@pytest.mark.parametrize(("steps", "targets"), [(1, 9), (5, 1), (40, 9), (100, 2), (200, 9)])
def test_targeted_fmn_takes_no_more_passes_than_its_steps(steps, targets):
    images, labels, ids = make_batch(NETWORK, 6)
    attack = attacks.TargetedFMN(L2(0.5), steps=steps, targets=targets)
    found = nearest(attack, NETWORK, images, labels, ids)
    assert found.model_images <= 6 * max(steps, 6)
    assert found.model_images >= 6 * min(0.9 * steps, steps - 7)


def test_targeted_fmn_is_done_with_an_image_inside_and_splits_alike():
    images, labels, ids = make_batch(NETWORK, 12)
    free = nearest(attacks.TargetedFMN(L1(5), steps=60), NETWORK, images, labels, ids)
    eps = float(free.distances.median()) * 1.01
    attack = attacks.TargetedFMN(L1(eps), steps=60)
    whole = attack(NETWORK, images, labels, ids=ids)
    assert (whole.fooled | (free.distances > eps)).all()
    assert whole.model_images < free.model_images
    part = attack(NETWORK, images[5:], labels[5:], ids=ids[5:])
    assert torch.equal(part.fooled, whole.fooled[5:])


@pytest.mark.parametrize(("norm", "dtype"), [("l2", "fp32"), ("l1", "bf16")])
def test_targeted_fmn_searches_on_the_fast_copy_and_ends_on_the_model(norm, dtype):
    images, labels, ids = make_batch(NETWORK, 12)
    threat = ThreatModel(norm, EPS[norm])
    asked = []
    # The copy has the hook too.
    handle = NETWORK.register_forward_hook(
        lambda network, inputs, _: asked.append(len(inputs[0])) if network is NETWORK else None
    )
    try:
        free = attacks.TargetedFMN(threat, steps=60).unbounded((3, 8, 8))
        alone = free(NETWORK, images, labels, ids=ids)
        by_itself, asked[:] = sum(asked), []
        copied = free(NETWORK, images, labels, ids=ids, proxy=ProxySettings(dtype=dtype))
    finally:
        handle.remove()
    assert sum(asked) < 0.5 * by_itself
    assert copied.fooled.all()
    assert float(copied.distances.mean()) <= 1.03 * float(alone.distances.mean())
    assert (NETWORK(copied.images).argmax(1) != labels).all()
    eps = float(alone.distances.median())
    inside = attacks.TargetedFMN(ThreatModel(norm, eps), steps=60)
    attacked = inside(NETWORK, images, labels, ids=ids, proxy=ProxySettings(dtype=dtype))
    assert (NETWORK(attacked.images).argmax(1) != labels)[attacked.fooled].all()
    assert attacked.fooled.sum() >= 5


def test_the_nearest_point_stays_when_a_later_one_is_farther():
    images = torch.full((1, 1, 1, 2), 0.5)
    best = NearestSoFar(images, L2(0.05))
    rows, yes = torch.tensor([0]), torch.tensor([True])
    for change in (0.3, 0.1, 0.2):
        best.look(rows, images + change, images, ObjectiveValue(losses=torch.tensor([1.0]), fooled=yes))
    assert best.distances.tolist() == pytest.approx([0.1 * 2**0.5])
    assert not best.fooled.any()
    assert torch.equal(best.last, images + 0.2)


@pytest.mark.parametrize("text", ["ddn", "sigma-zero"])
def test_a_norm_of_no_use_is_refused(text):
    with pytest.raises(SpecError, match=f"attack {text} has no form in l1, and l1:5 was given"):
        attacks.make_attack(text, "l1:5")


def test_points_whose_logits_differ_by_rounding_alone_are_not_across_the_boundary():
    labels, rows = torch.tensor([0, 0, 0, 1, 0]), torch.arange(5)
    logits = torch.tensor([[5.0, 5.0], [5.0, 5.0 + 1e-6], [5.0, 5.001], [2.0, 2.0], [0.1, 0.1001]])
    for masked in (0.0, -1e9, -torch.inf):  # A class that is masked says nothing of the rounding of the others.
        given = torch.cat([logits, torch.full((5, 1), masked)], 1)
        loss = LabelLoss(lambda images, given=given: given, labels, "margin")
        value = loss(torch.zeros(5, 1, 1, 1), rows)
        assert (value.fooled.tolist(), value.tied) == ([False, True, True, True, True], None)
        value = loss.beyond_ties().with_loss("difference", 1 - labels)(torch.zeros(5, 1, 1, 1), rows)
        assert value.fooled.tolist() == [False, False, True, False, True]
        assert value.tied.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_examples_of_hop_skip_jump_lie_clear_of_the_boundary(norm):
    images, labels, ids = make_batch(NETWORK, 24)
    attack = attacks.make_attack("hop-skip-jump", ThreatModel(norm, EPS[norm]), {"steps": 60})
    found = nearest(attack, NETWORK, images, labels, ids)
    logits = NETWORK(found.images).detach()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    across = found.distances < math.inf
    assert across.sum() > 12
    rounding = torch.finfo(torch.float32).eps * logits.abs().amax(1)
    assert ((other - own)[across] > 16 * rounding[across]).all()


@pytest.mark.parametrize("masked", [-1e9, -torch.inf])
@pytest.mark.parametrize(("text", "norm"), [("ddn", "l2"), ("fmn-t", "l1"), ("hop-skip-jump", "l2")])
def test_a_class_that_the_model_masks_hides_no_examples(text, norm, masked):
    class Masked(nn.Module):
        def forward(self, images):
            logits = NETWORK(images)
            return torch.cat([logits, logits.new_full((len(logits), 1), masked)], 1)

    images, labels, ids = make_batch(NETWORK, 8)
    attack = attacks.make_attack(
        text, ThreatModel(norm, EPS[norm]), {"steps": 100, "targets": 3} if "-t" in text else {}
    )
    bare, found = (nearest(attack, model, images, labels, ids).distances for model in (NETWORK, Masked()))
    assert (found < math.inf).sum() == (bare < math.inf).sum()
    assert found[found < math.inf].mean() < 1.05 * bare[bare < math.inf].mean()


@pytest.mark.parametrize(("text", "norm"), [("ddn", "l2"), ("fmn-t", "l1"), ("fmn", "l0"), ("hop-skip-jump", "l2")])
def test_a_tie_counts_for_the_image_itself_and_for_no_other_point(text, norm):
    class Tied(nn.Module):
        """Where the mean is above 0.5 the logits are equal, and the first class is predicted."""

        def forward(self, images):
            margin = torch.relu(0.5 - images.flatten(1).mean(1))
            return torch.stack([torch.zeros_like(margin), margin], 1)

    labels = torch.ones(2, dtype=torch.int64)
    attack = attacks.make_attack(text, ThreatModel(norm, {"l2": 5.0, "l1": 50.0, "l0": 4}[norm]), {"steps": 30})
    right = attack(Tied(), torch.full((2, 3, 2, 2), 0.48), labels, ids=torch.arange(2))
    assert not right.fooled.any()
    wrong = torch.full((2, 3, 2, 2), 0.6)
    assert attack(Tied(), wrong, labels, ids=torch.arange(2)).fooled.all()
    assert nearest(attack, Tied(), wrong, labels).distances.tolist() == [0.0, 0.0]
