"""A model with a batch size of its own is given such batches, and a single image that is left over has a mate."""

import pytest
import torch
from tiny_systems import HEADS, Gives, make_network, make_table, table_of
from torch import nn

from unfool import (
    CurvePoints,
    EvaluationSettings,
    LadderSettings,
    Linf,
    ProxySettings,
    attacks,
    audit,
    classify,
    craft,
    defenses,
    evaluate,
    ladder,
    make_defense,
    minimum_norms,
)
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses.pretext import TaskLoss
from unfool.evaluation.adaptive.purification import purification
from unfool.evaluation.crafting.batches import spans_for
from unfool.evaluation.curves import curve
from unfool.evaluation.reliability.attack_checks import Trial, black_box_wins
from unfool.evaluation.reliability.evidence import Evidence
from unfool.evaluation.reliability.model_checks import Subject
from unfool.evaluation.reliability.report import reliability
from unfool.evaluation.reliability.trial_runs import TrialRuns
from unfool.evaluation.statistics.settling import evaluate_claim

REVERSE = "reverse:task=contrast,size=16,hidden=8,steps=1,negatives=batch,batch_size=8"
LADDER = LadderSettings(threat=Linf(0.001), steps=2, queries=3, draws=2, targets=1, lambdas=(1.0,), images=8)
SMALL = EvaluationSettings(threat="linf:0.001", reliability=False)
pytestmark = pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")


class Mates(nn.Module):
    own_batch_size = 4

    def forward(self, images):
        assert len(images) > 1
        return images.mean((2, 3))


def test_an_image_left_over_joins_the_batch_before_it():
    model = Mates()
    assert [(span.start, span.stop) for span in spans_for(model, 9, 2)] == [(0, 4), (4, 9)]
    assert [(span.start, span.stop) for span in spans_for(nn.Identity(), 5, 2)] == [(0, 2), (2, 4), (4, 5)]
    table = make_table(9, classes=3)
    examples = craft(model, table, "fgsm")
    assert classify(model, examples).count == 9


def in_batch_negatives(text=REVERSE):
    return make_defense(text, make_network(heads={**HEADS, "contrast": {"kind": "mlp", "hidden": 8, "outputs": 16}}))


@pytest.fixture(scope="module")
def defense():
    return in_batch_negatives()


@pytest.fixture(scope="module")
def table(defense):
    """Eight images of which the defense, as it classifies them together, has one right."""
    images = make_table(8).batch().images
    labels = defense(images).argmax(1)
    labels[1:] = (labels[1:] + 1) % 4
    return Table.from_tensors(images, labels, name="made-up")


def tried(defense, table):
    """The attacks of the reliability report on a single image, and on a proxy."""
    batch = table.subset(torch.arange(1)).batch()
    subject = Subject(defense, batch.images, batch.labels("label"), batch.ids)
    return Trial(subject, Linf(0.001), Evidence(), Streams(0), TrialRuns(), ProxySettings())


def attacked(defense, table, text, **proxy):
    batch = table.batch()
    return attacks.make_attack(text, "linf:0.001")(defense, batch.images, batch.labels("label"), **proxy)


ENTRIES = {
    "the defense": lambda defense, table: defense(table.batch().images[:1]),
    "its purification": lambda defense, table: purification(defense, table.batch().images[:1]),
    "a gate": lambda defense, table: defenses.Gate(defense, threshold=0.0)(table.batch().images[:1]),
    "a gate that abstains": lambda defense, table: defenses.Gate(defense, threshold=0.0, action="abstain")(
        table.batch().images[:1]
    ),
    "an attack": lambda defense, table: attacked(defense, table, "square-5"),
    "an attack on a proxy": lambda defense, table: attacked(defense, table, "square-5", proxy=ProxySettings()),
    "an ensemble on a proxy": lambda defense, table: attacked(
        defense, table, "autoattack:steps=2,queries=3", proxy=ProxySettings()
    ),
    "classify": lambda defense, table: classify(defense, table.subset(torch.arange(1))),
    "craft": lambda defense, table: craft(defense, table.subset(torch.arange(1)), "pgd-2"),
    "minimum norms": lambda defense, table: minimum_norms(defense, table, attacks.FMN(Linf(1.0), steps=3)),
    "checks of the model": lambda defense, table: reliability(defense, table, threat=Linf(0.001), images=8),
    "checks by attacks": lambda defense, table: black_box_wins(tried(defense, table)) or "no flag",
    "evaluate": lambda defense, table: evaluate(defense, table, ["pgd-2", "square-5"], threat="linf:0.001"),
    "autoattack": lambda defense, table: evaluate(defense, table, "autoattack:steps=2,queries=3", settings=SMALL),
    "lean": lambda defense, table: attacked(defense, table, "lean:queries=3"),
    "a curve": lambda defense, table: curve(
        defense, table, "square-5", CurvePoints(threats=(Linf(0.0005), Linf(0.001)))
    ),
    "a claim": lambda defense, table: evaluate_claim(defense, make_table(33), "pgd-2", ">=0.97", alpha=1e-4),
    "an audit": lambda defense, table: audit(
        defense, make_table(1), craft(defense.classifier, make_table(1), "fgsm", threat="linf:0.01")
    ),
    "the ladder": lambda defense, table: ladder(defense, table, "fgsm", settings=LADDER),
    "the ladder of a gate": lambda defense, table: ladder(
        defenses.Gate(defense, threshold=0.0), table, "fgsm", settings=LADDER
    ),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_single_image_has_a_mate_wherever_it_is_left(defense, table, entry, monkeypatch):
    sizes, forward = [], TaskLoss.forward

    def watched(self, images, ids, streams):
        sizes.append(len(images))
        return forward(self, images, ids, streams)

    monkeypatch.setattr(TaskLoss, "forward", watched)
    assert entry(defense, table) is not None
    assert 1 in sizes, "the entry was meant to leave a single image"


def test_an_audit_of_in_batch_negatives_takes_any_number_of_images(defense):
    table = make_table(9)
    examples = craft(defense.classifier, table, "fgsm", threat="linf:0.01")
    assert audit(defense, table, examples).attack == "fgsm"


def test_the_exact_gradient_reaches_a_single_image():
    defense = in_batch_negatives(f"{REVERSE},norm=l2,eps=1")
    image = make_table(1).batch().images.requires_grad_()
    through = defenses.backward.Unrolled(defense)(image)
    (gradient,) = torch.autograd.grad(through.square().sum(), image)
    assert torch.equal(through.detach(), defense(image.detach()))
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_mate_of_a_single_image_is_always_the_same_picture(defense):
    images = make_table(3).batch().images
    alone = [defense(image) for image in images.split(1)]
    again = [defense(image) for image in images.flip(0).split(1)][::-1]
    assert torch.equal(torch.cat(alone), torch.cat(again))
    assert torch.equal(torch.cat(alone), torch.cat([in_batch_negatives()(image) for image in images.split(1)]))
    descents = [defense.purify(image).losses for image in images.split(1)]
    assert all(torch.isfinite(losses).all() and losses.shape == (2, 1) for losses in descents)


class Watched(Gives):
    """Gives the mean colours, and keeps which images it was given together."""

    own_batch_size = 8

    def __init__(self):
        super().__init__(lambda images: images.mean((2, 3)))
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return super().forward(images)


def test_a_claim_is_settled_on_batches_of_the_model_s_own():
    model = Watched()
    result = evaluate_claim(model, make_table(17, classes=3), "fgsm", ">=0.5", batch_size=2)
    assert set(model.sizes) <= {8, 9}
    assert result.records.count in (8, 17)


def test_the_points_of_a_curve_attack_whole_batches():
    model, table = Watched(), table_of(Watched(), 10)
    table.columns["label"][3] = (table.labels()[3] + 1) % 3  # wrong as it is, which no attack counts
    threats = tuple(Linf(eps) for eps in (0.001, 0.005, 0.01, 0.02))
    points = curve(model, table, "fgsm", CurvePoints(threats=threats))
    assert set(model.sizes) <= {8, 2}
    assert len({point.accuracy for point in points}) >= 3
    stands = torch.ones(10, dtype=torch.bool)
    for point, threat in zip(points, threats, strict=True):
        stands &= torch.tensor(classify(model, craft(model, table, "fgsm", threat=threat)).correct)
        assert point.correct == stands.tolist()
    fooled = [sum(point.fooled_by.values()) for point in points]
    assert fooled == [point.correct.count(False) - 1 for point in points]
