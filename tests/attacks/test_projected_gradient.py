"""The projected-gradient engine: what it climbs, what it keeps, and what it counts."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Linear, Wavy, make_batch, make_network, problem
from torch import nn

from unfool.attacks import make_attack
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.core.errors import ImagesError, NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

EPS = {"linf": 0.008, "l2": 0.1, "l1": 1.0}
NETWORK = make_network()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_on_a_linear_model_the_answer_is_known(steps):
    model, ids = Linear(27), torch.arange(5)
    images = Streams(0).uniform(ids, (3, 3, 3))
    attack = make_attack(f"pgd-{steps}:random_start=false,step_size=0.02,goal=last", "linf:0.1")
    found = attack(model, images, torch.ones(5, dtype=torch.int64))
    moved = images - min(0.1, 0.02 * steps) * model.weight.detach().sign().view(3, 3, 3)
    assert torch.allclose(found.images, moved.clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("goal", ["best", "success"])
@settings(max_examples=4, deadline=None)
@given(steps=st.integers(0, 4), more=st.integers(1, 4), start=st.booleans(), seed=st.integers(0, 99))
def test_more_steps_never_lower_the_best_loss(goal, norm, steps, more, start, seed):
    images, labels, ids = make_batch(NETWORK, 12, seed)
    threat = ThreatModel(norm, EPS[norm])
    values = {"step_size": threat.eps, "random_start": start, "goal": goal}

    def run(count):
        return make_attack("pgd", threat, {**values, "steps": count})(NETWORK, images, labels, ids=ids)

    few, many = run(steps), run(steps + more)
    assert (many.losses >= few.losses - 1e-6).all()
    assert (many.fooled | ~few.fooled).all()


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("goal", ["best", "success"])
@settings(max_examples=4, deadline=None)
@given(restarts=st.integers(1, 3), more=st.integers(1, 2), steps=st.integers(0, 3), seed=st.integers(0, 99))
def test_more_restarts_never_lower_the_best_loss(goal, norm, restarts, more, steps, seed):
    images, labels, ids = make_batch(NETWORK, 12, seed)
    threat = ThreatModel(norm, EPS[norm])

    def run(count):
        values = {"steps": steps, "restarts": count, "goal": goal}
        return make_attack("pgd", threat, values)(NETWORK, images, labels, ids=ids)

    few, many = run(restarts), run(restarts + more)
    assert (many.losses >= few.losses - 1e-6).all()
    assert (many.fooled | ~few.fooled).all()


def test_restarts_start_elsewhere_and_pay():
    images, labels, ids = make_batch(NETWORK, 48)
    runs = [
        make_attack("pgd-0", "linf:0.05", {"restarts": count, "goal": "best"})(NETWORK, images, labels, ids=ids)
        for count in (1, 5)
    ]
    assert (runs[1].losses > runs[0].losses).float().mean() > 0.6
    assert runs[1].model_images == 5 * 48


@pytest.mark.parametrize("goal", ["last", "best", "success"])
@pytest.mark.parametrize("norm", EPS)
def test_no_steps_and_no_random_start_return_the_images_bit_for_bit(norm, goal):
    images, labels, ids = make_batch(NETWORK)
    attack = make_attack("pgd-0", ThreatModel(norm, EPS[norm]), {"random_start": False, "goal": goal})
    found = attack(NETWORK, images, labels, ids=ids)
    assert torch.equal(found.images, images)
    assert not found.fooled.any()
    assert not found.zero_gradient.any()
    assert found.model_images == len(images)


def test_a_random_start_belongs_to_the_image():
    images, labels, ids = make_batch(NETWORK)
    attack = make_attack("pgd-0:goal=last", "linf:0.05")
    whole = attack(NETWORK, images, labels, ids=ids).images
    rows = torch.tensor([7, 3, 20])
    assert torch.equal(attack(NETWORK, images[rows], labels[rows], ids=ids[rows]).images, whole[rows])
    assert not torch.equal(attack(NETWORK, images, labels, ids=ids + 1).images, whole)
    assert not torch.equal(attack(NETWORK, images, labels, ids=ids, streams=Streams(1)).images, whole)
    assert ((whole - images).abs().amax((1, 2, 3)) > 0.04).all()


def path_by_hand(model, images, labels, eps, step, steps):
    """Every iterate of PGD, written down from the paper, with its losses and whether it fools."""
    points, path = images, []
    for _ in range(steps + 1):
        moving = points.detach().requires_grad_()
        logits = model(moving)
        losses = F.cross_entropy(logits, labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), moving)
        path.append((points, losses.detach(), logits.argmax(1) != labels))
        points = (points + step * gradient.sign()).clamp(images - eps, images + eps).clamp(0, 1)
    return path


@pytest.mark.parametrize("goal", ["last", "best", "success"])
def test_what_is_returned_is_the_iterate_that_the_goal_names(goal):
    network = Wavy(432)
    images, labels, ids = make_batch(network, 32, dtype=torch.float64)
    path = path_by_hand(network, images, labels, 0.02, 0.02, 6)
    values = {"steps": 6, "step_size": 0.02, "random_start": False, "goal": goal}
    found = make_attack("pgd", "linf:0.02", values)(network, images, labels, ids=ids)
    fooled = torch.stack([step[2] for step in path])
    losses = torch.stack([step[1] for step in path])
    assert (fooled.any(0) & ~fooled[-1]).any()
    assert (~fooled.any(0)).any()
    assert (losses.argmax(0) < 6).any()
    for row in range(32):
        if goal == "last":
            expected = 6
        elif not fooled[:, row].any():
            expected = int(losses[:, row].argmax())
        elif goal == "success":
            expected = int(fooled[:, row].int().argmax())
        else:
            expected = int(losses[:, row].where(fooled[:, row], torch.tensor(-1.0, dtype=torch.float64)).argmax())
        assert torch.allclose(found.images[row], path[expected][0][row], atol=1e-9)
        assert bool(found.fooled[row]) == bool(fooled[6, row] if goal == "last" else fooled[:, row].any())
        seen = losses[6, row] if goal == "last" else losses[:, row].max()
        assert goal == "success" or math.isclose(float(found.losses[row]), float(seen), rel_tol=1e-5)


@pytest.mark.parametrize(
    ("losses", "fooled", "best"),
    [
        ([1.0, 3.0, 2.0], [False, False, False], 1),
        ([9.0, 3.0, 2.0], [False, True, False], 1),
        ([1.0, 3.0, 2.0], [True, False, True], 2),
        ([2.0, 3.0, 9.0], [True, True, False], 1),
    ],
)
def test_best_prefers_a_fooled_image_to_a_higher_loss(losses, fooled, best):
    seen = []

    def objective(images, rows):
        turn = len(seen)
        seen.append(images.detach().clone())
        slope = (images - images.detach()).sum((1, 2, 3))  # worth 0, but climbed
        return ObjectiveValue(losses=slope + losses[turn], fooled=torch.tensor([fooled[turn]]))

    images = torch.full((1, 3, 2, 2), 0.5)
    engine = ProjectedGradient(threat=ThreatModel("linf", 0.1), steps=2, step_size=0.02)
    found = engine.run(problem(objective, images, torch.arange(1)))
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(found.images, seen[best])
    assert float(found.losses) == max(losses)
    assert bool(found.fooled) == any(fooled)


def test_dropping_fooled_images_changes_no_verdict_and_saves_passes():
    network = make_network(dtype=torch.float64)
    images, labels, ids = make_batch(network, 40, dtype=torch.float64)
    kept = make_attack("pgd-8:goal=best,restarts=2", "linf:0.008")(network, images, labels, ids=ids)
    dropped = make_attack("pgd-8:goal=success,restarts=2", "linf:0.008")(network, images, labels, ids=ids)
    assert 0 < int(kept.fooled.sum()) < 40
    assert torch.equal(kept.fooled, dropped.fooled)
    standing = ~kept.fooled
    assert torch.allclose(kept.images[standing], dropped.images[standing], atol=1e-9)
    assert torch.allclose(kept.losses[standing], dropped.losses[standing], atol=1e-5)
    assert kept.model_images == 2 * 9 * 40
    assert dropped.model_images < kept.model_images
    with torch.no_grad():
        assert torch.equal(network(dropped.images).argmax(1) != labels, dropped.fooled)


class Counting(nn.Module):
    """Counts the images that pass through a model, and whether any parameter would have got a gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.images = 0

    def forward(self, images):
        self.images += len(images)
        assert not any(parameter.requires_grad for parameter in self.parameters())
        assert not any(part.training for part in self.modules())
        return self.model(images)


@pytest.mark.parametrize("text", ["fgsm", "pgd-4:goal=last", "pgd-4:goal=best,restarts=2", "pgd-6"])
def test_model_images_are_counted_exactly(text):
    network = make_network()
    images, labels, ids = make_batch(network)
    counting = Counting(network).train()
    found = make_attack(text, "linf:0.03")(counting, images, labels, ids=ids)
    assert found.model_images == counting.images > len(images)


def test_downhill_lowers_an_objective_that_knows_no_fooling():
    def distance(images, rows):
        return ObjectiveValue(losses=(images - 0.5).square().flatten(1).sum(1))

    images = Streams(0).uniform(torch.arange(6), (3, 4, 4))
    engine = ProjectedGradient(threat=ThreatModel("linf", 0.1), steps=10, step_size=0.025, uphill=False)
    runs = {
        way: dataclasses.replace(engine, uphill=way).run(problem(distance, images, torch.arange(6)))
        for way in (True, False)
    }
    before = distance(images, None).losses
    assert (runs[False].losses < before).all()
    assert (runs[True].losses > before).all()
    for way, found in runs.items():
        assert torch.allclose(found.losses, distance(found.images, None).losses), way
        assert not found.fooled.any()
    nearest = images + (0.5 - images).clamp(-0.1, 0.1)
    assert float((runs[False].images - nearest).abs().max()) <= 0.025


def test_last_unchecked_gives_the_last_iterate_without_a_further_pass():
    network = make_network()
    images, labels, ids = make_batch(network)
    settings_ = {"threat": ThreatModel("linf", 0.05), "steps": 3, "step_size": 0.02}
    counts = {}
    for goal in ("last", "last_unchecked"):
        engine = ProjectedGradient(**settings_, goal=goal)
        counts[goal] = engine.run(problem(LabelLoss(network, labels), images, ids))
    assert torch.equal(counts["last"].images, counts["last_unchecked"].images)
    assert counts["last"].model_images == counts["last_unchecked"].model_images + len(images)


def test_flatness_is_told_image_by_image():
    class HalfFlat(nn.Module):
        def forward(self, images):
            score = images.flatten(1).sum(1)
            return torch.stack([score, -score], 1) * (torch.arange(len(images)) % 2)[:, None]

    images = Streams(0).uniform(torch.arange(6), (3, 4, 4), 0.3, 0.6)
    found = make_attack("pgd-3:goal=best", "linf:0.01")(HalfFlat(), images, torch.zeros(6, dtype=torch.int64))
    assert found.zero_gradient.tolist() == [True, False] * 3


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 1, 2, 9]), "label 9 lies beyond the model's 4 classes"),
        (torch.tensor([0, 1, -100, 3]), "label -100 is no class"),
        (torch.tensor([0, 1, 2]), r"shape \(4,\)"),
        (torch.tensor([0.0, 1.0, 2.0, 3.0]), "float32"),
    ],
)
def test_bad_labels_are_refused(labels, words):
    images, _, _ = make_batch(NETWORK, 4)
    with pytest.raises(ImagesError, match=words):
        make_attack("pgd-2", "linf:0.1")(NETWORK, images, labels)


def test_bad_ids_and_outputs_are_refused():
    images, labels, ids = make_batch(NETWORK, 4)
    with pytest.raises(ImagesError, match="one int64 number per image"):
        make_attack("pgd-2", "linf:0.1")(NETWORK, images, labels, ids=ids[:2])
    with pytest.raises(ImagesError, match="give logits"):
        make_attack("pgd-2", "linf:0.1")(nn.Identity(), images, labels)


def test_a_gradient_that_is_not_finite_is_an_error():
    class Root(nn.Module):
        def forward(self, images):
            score = (images.flatten(1) * 0).sum(1).sqrt()
            return torch.stack([score, 1 - score], 1)

    images, _, _ = make_batch(NETWORK, 4)
    with pytest.raises(NonFiniteError, match="gradient"):
        make_attack("pgd-2", "linf:0.1")(Root(), images, torch.ones(4, dtype=torch.int64))


@pytest.mark.parametrize("goal", ["last", "best", "success"])
def test_a_loss_that_is_not_finite_is_an_error_without_any_step(goal):
    class Bottomless(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :4] - 1e39

    images, labels, _ = make_batch(NETWORK, 4)
    with pytest.raises(NonFiniteError, match="loss"):
        make_attack(f"pgd-0:goal={goal},random_start=false", "linf:0.1")(Bottomless(), images, labels)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_does_not_matter(mode):
    images, labels, ids = make_batch(NETWORK)
    attack = make_attack("pgd-3", "linf:0.05")
    expected = attack(NETWORK, images, labels, ids=ids)
    with mode():
        found = attack(NETWORK, images + 0, labels + 0, ids=ids + 0)
    assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"restarts": 0}, {"step_size": -0.1}, {"step_size": math.nan}])
def test_bad_engine_settings_are_refused(bad):
    values = {"threat": ThreatModel("linf", 0.1), "steps": 2, "step_size": 0.1, "random_start": True, **bad}
    with pytest.raises(SpecError, match="not allowed"):
        ProjectedGradient(**values)


def test_a_foreign_model_gets_its_images_in_the_usual_memory_order():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 11)

        def forward(self, images):
            return self.convolution(images).view(len(images), -1)

    images, labels, ids = make_batch(NETWORK, 6)
    found = make_attack("pgd-3", "linf:0.01")(Views(), images, labels, ids=ids)
    assert found.images.is_contiguous()
    assert make_attack("pgd-3", "linf:0.01")(NETWORK, images, labels, ids=ids).images.is_contiguous()
