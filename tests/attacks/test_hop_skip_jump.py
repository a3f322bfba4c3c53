"""HopSkipJump: nearer than foolbox's at equal queries, from the classes alone, with draws of each image's own."""

import math

import foolbox
import numpy as np
import pytest
import torch
from small_models import make_batch, make_network, problem
from torch import nn

from unfool import L2, Linf, adapt, attacks, craft, evaluate, minimum_norms
from unfool.attacks.objective import LabelLoss
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.as_table import as_table
from unfool.evaluation.statistics.settling import records_in_order

NETWORK = make_network()


def nearest(threat, steps, network, images, labels, ids):
    attack = attacks.HopSkipJump(threat, steps=steps)
    return attack.search.nearest(problem(LabelLoss(network, labels, attack.loss), images, ids))


class Decisions(nn.Module):
    """The classes of a network as scores of 0 and 1, counted."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.queries = 0

    def forward(self, images):
        self.queries += len(images)
        logits = self.network(images).detach()
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.05)], ids=str)
def test_it_is_nearer_than_foolbox_at_equal_queries(threat):
    images, labels, ids = make_batch(NETWORK, 3)
    counted = Decisions(NETWORK)
    wrapped = foolbox.models.pytorch.PyTorchModel(counted.eval(), bounds=(0.0, 1.0), device="cpu")
    theirs = foolbox.attacks.HopSkipJumpAttack(steps=2, constraint=threat.norm_name)
    state, np_state = torch.get_rng_state(), np.random.get_state()
    torch.manual_seed(0)
    np.random.seed(0)
    found = theirs.run(wrapped, images, foolbox.criteria.Misclassification(labels))
    torch.set_rng_state(state)
    np.random.set_state(np_state)
    queries = counted.queries // len(images)
    expected = threat.norm(found.double() - images.double())
    counted.queries = 0
    ours = nearest(threat, queries, counted, images, labels, ids)
    assert counted.queries == ours.model_images <= queries * len(images)
    assert float(ours.distances.median()) <= 1.02 * float(expected.median())
    with torch.no_grad():
        assert (NETWORK(ours.images).argmax(1) != labels).all()


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.05)], ids=str)
def test_it_ends_near_the_least_distance_from_a_plane(threat):
    weight = Streams(3).normal(torch.tensor([0]), (27,))[0]
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(27), weight]))
        model[1].bias.copy_(torch.stack([torch.tensor(0.0), -0.5 * weight.sum()]))
    images = (0.5 + 0.4 * weight / weight.square().sum()).view(1, 3, 3, 3).repeat(3, 1, 1, 1)
    found = nearest(threat, 2500, model, images, torch.ones(3, dtype=torch.int64), torch.arange(3))
    exact = 0.4 / float(weight.norm() if threat.norm_name == "l2" else weight.abs().sum())
    assert (found.distances >= exact * (1 - 1e-4)).all()
    assert (found.distances <= 1.1 * exact).all()
    assert len(set(found.distances.tolist())) == 3, "each image draws its own directions"


def test_draws_follow_the_ids_whatever_the_batch():
    images, labels, ids = make_batch(NETWORK, 5)
    whole = nearest(L2(0.5), 300, NETWORK, images, labels, ids)
    part = nearest(L2(0.5), 300, NETWORK, images[[4, 1]], labels[[4, 1]], ids[[4, 1]])
    assert torch.allclose(part.distances, whole.distances[[4, 1]], rtol=1e-2)
    assert whole.model_images == 5 * 300


class Remembers(Decisions):
    """Decisions, with the points that were asked for and the classes that they got."""

    def __init__(self, network):
        super().__init__(network)
        self.points, self.classes = [], []

    def forward(self, images):
        decisions = super().forward(images)
        self.points.append(images.double())
        self.classes.append(decisions.argmax(1))
        return decisions


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.05)], ids=str)
def test_no_example_that_was_seen_is_lost(threat):
    images, labels, ids = make_batch(NETWORK, 6)
    for row in range(len(images)):
        one = slice(row, row + 1)
        seen = Remembers(NETWORK).eval()
        nearest_found = nearest(threat, 130, seen, images[one], labels[one], ids[one]).distances
        points, classes = torch.cat(seen.points), torch.cat(seen.classes)
        distances = threat.norm(points - images[one].double())[classes != labels[row]]
        assert float(nearest_found) == float(distances.min())


@pytest.mark.parametrize("steps", [1, 2, 10, 150])
def test_no_image_is_asked_for_more_often_than_steps_allow(steps):
    images, labels, ids = make_batch(NETWORK, 3)
    counted = Decisions(NETWORK).eval()
    for eps in (0.001, 0.5):
        for row in range(len(images)):
            one = slice(row, row + 1)
            counted.queries = 0
            attacked = attacks.HopSkipJump(L2(eps), steps=steps)(counted, images[one], labels[one], ids=ids[one])
            assert counted.queries == attacked.model_images <= steps
            assert eps > 0.1 or counted.queries == steps


def test_a_model_that_nothing_fools_keeps_its_images():
    class Stubborn(nn.Module):
        def forward(self, images):
            return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    images = torch.rand(2, 3, 4, 4)
    for threat in (L2(0.5), Linf(1.0)):
        attacked = attacks.HopSkipJump(threat, steps=200)(Stubborn(), images, torch.zeros(2, dtype=torch.int64))
        assert torch.equal(attacked.images, images)
        assert not attacked.fooled.any()
    found = nearest(L2(0.5), 200, Stubborn(), images, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    assert found.distances.tolist() == [math.inf] * 2
    assert torch.equal(found.images, images)
    assert not found.zero_gradient.any(), "a search without gradients cannot miss one"


class Threshold:
    """An estimator that gives classes alone."""

    classes_ = np.array([0, 1])

    def fit(self, images, labels):
        return self

    def predict(self, flat):
        return (flat.mean(1) > 0.5).astype(int)


def test_a_black_box_that_gives_classes_alone_is_attacked_by_its_decisions():
    model = adapt(Threshold())
    images = torch.full((2, 1, 3, 3), 0.45)
    labels = torch.zeros(2, dtype=torch.int64)
    attacked = attacks.HopSkipJump(L2(0.2), steps=300)(model, images, labels)
    assert attacked.fooled.all()
    assert (attacked.distances <= 0.2).all()
    with pytest.raises(SpecError, match=r"square learns from scores, and the model gives classes alone.*hop-skip-jump"):
        attacks.Square(L2(0.2))(model, images, labels)
    with pytest.raises(SpecError, match="follows gradients"):
        attacks.FMN(L2(0.2))(model, images, labels)


class Striped:
    """An estimator that gives classes alone: 1 where columns alternate, which no plain colour and no noise do."""

    classes_ = np.array([0, 1])

    def fit(self, images, labels):
        return self

    def predict(self, flat):
        columns = flat.reshape(len(flat), 8, 8)
        return ((columns[:, :, ::2].mean((1, 2)) - columns[:, :, 1::2].mean((1, 2))) > 0.5).astype(int)


def striped(count, label):
    """Grey images, and for the label 1 striped ones."""
    difference = 0.35 * label * torch.tensor([1.0, -1.0]).repeat(4)
    return (0.5 + difference + 0.02 * Streams(5).uniform(torch.arange(count), (1, 8, 8))).clamp(0, 1)


@pytest.mark.filterwarnings("ignore:.*gives classes and no scores")
def test_images_of_other_labels_are_a_first_point_where_no_colour_or_noise_is():
    images, labels = torch.cat([striped(3, 0), striped(3, 1)]), [0] * 3 + [1] * 3
    attack = attacks.HopSkipJump(L2(1), steps=400)
    whole = minimum_norms(adapt(Striped()), (images, labels), attack)
    assert max(whole.values) < 3
    assert minimum_norms(adapt(Striped()), (images, labels), attack, batch_size=2).values == whole.values
    result = evaluate(adapt(Striped()), (images, labels), "hop-skip-jump-400", threat=L2(3))
    assert result.rows[1].accuracy == 0
    assert not any(doubt.startswith(("no-first-point", "probabilities")) for doubt in result.doubts)


@pytest.mark.filterwarnings("ignore:.*gives classes and no scores")
def test_where_it_begins_depends_neither_on_other_parts_nor_on_what_it_is_given_at_a_time():
    images, labels = torch.cat([striped(3, 0), striped(3, 1)]), torch.tensor([0] * 3 + [1] * 3)
    table = as_table((images, labels))
    decisions = attacks.HopSkipJump(Linf(0.5), steps=200)
    first = attacks.HopSkipJump(Linf(0.001), steps=1)
    several = attacks.CustomAttack(Linf(0.5), components=(*first.parts, *decisions.parts))
    for attack in (decisions, several):
        assert craft(adapt(Striped()), table, attack).fooled_by_part.ge(0).all()
    looks = records_in_order(adapt(Striped()), table, decisions, batch_size=1)
    assert not any(right for records in looks for right in records.correct)
    few = craft(adapt(Striped()), table.subset(labels == 0), decisions, others=table)
    assert few.fooled_by_part.ge(0).all()


@pytest.mark.filterwarnings("ignore:.*gives classes and no scores")
def test_images_without_a_first_point_stand_as_they_are_and_raise_a_doubt():
    images, labels = striped(3, 0), [0] * 3
    examples = craft(adapt(Striped()), (images, labels), attacks.HopSkipJump(Linf(0.1), steps=60))
    assert torch.equal(examples.images, images)
    result = evaluate(adapt(Striped()), (images, labels), "hop-skip-jump-60", threat=Linf(0.1))
    (flag,) = [flag for flag in result.reliability.flags if flag.name == "no-first-point"]
    assert flag.text.startswith("hop-skip-jump-60 had nothing to begin with for 3 of 3 images")
    assert flag.images == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*gives classes and no scores")
def test_images_that_stand_although_they_had_a_first_point_are_moved_towards_it_and_raise_no_doubt():
    images, labels = torch.cat([striped(3, 0), striped(3, 1)]), [0] * 3 + [1] * 3
    threat = Linf(0.05)
    examples = craft(adapt(Striped()), (images, labels), attacks.HopSkipJump(threat, steps=60))
    assert (examples.fooled_by_part < 0).all()
    assert ((examples.distances - threat.eps).abs() < 1e-6).all()
    result = evaluate(adapt(Striped()), (images, labels), "hop-skip-jump-60", threat=threat)
    assert result.rows[1].accuracy == 1
    assert not any(flag.name == "no-first-point" for flag in result.reliability.flags)
