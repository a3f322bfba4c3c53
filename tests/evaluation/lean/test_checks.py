"""What lean makes of examples that its own checks came upon, and of batch-mates."""

import pytest
import torch
from masking_layers import images, network
from torch import nn

from unfool import EvaluationSettings, Linf, ProxySettings, attacks, classify, craft, evaluate
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.lean import checks
from unfool.evaluation.reliability.report import reliability

THREAT = Linf(16 / 255)
FEW = {"steps": 20, "queries": 20}


class Valley(nn.Module):
    """Four classes, two of them likely, and a margin that follows how much brighter an image is, in eps: below 0
    between 0.3 and 0.6 where the first pixel is bright, which steps of 2 eps pass over, else above it up to 1.5."""

    KNOTS = torch.tensor([-3.0, 0.45, 0.8, 1.5, 9.0])
    DEEP, FLAT = torch.tensor([6.67, -1.0, 1.5, 0.0, -20.0]), torch.tensor([3.5, 1.85, 1.5, 0.0, -20.0])

    def forward(self, x):
        brighter = (x[:, :, 1:].mean((1, 2, 3)) - 0.5) / THREAT.eps
        place = torch.searchsorted(self.KNOTS, brighter.detach()).clamp(1, 4)
        share = (brighter - self.KNOTS[place - 1]) / (self.KNOTS[place] - self.KNOTS[place - 1])
        deep = (x[:, 0, 0, 0] > 0.8)[:, None]
        values = torch.where(deep, self.DEEP, self.FLAT)
        at = values.gather(1, torch.stack([place - 1, place], 1))
        margin = at[:, 0] + share * (at[:, 1] - at[:, 0])
        zero = torch.zeros_like(margin)
        return torch.stack([margin, zero, zero - 30, zero - 31], 1)


def valleys(count, deep):
    """Images of class 0, as many ``deep`` ones as said."""
    batch = 0.4 + 0.2 * Streams(3).uniform(torch.arange(count), (3, 5, 5))
    batch[:, :, 1:] -= batch[:, :, 1:].mean((1, 2, 3), keepdim=True) - 0.5
    batch[:, 0, 0, 0] = torch.where(torch.arange(count) < deep, 0.95, 0.2)
    return Table.from_tensors(batch, [0] * count)


def right(model, examples):
    return torch.tensor(classify(model, examples).correct)


def test_one_image_that_the_checks_fooled_has_fallen_and_all_others_are_attacked():
    model, table = Valley(), valleys(24, deep=1)
    examples = craft(model, table, attacks.Lean(THREAT, **FEW))
    assert examples.settings["remark"] == (
        "the checks fooled 1 of the 24 images that stood; FAB-T and Square attacked all 23 images that stood, and "
        "fooled none"
    )
    assert right(model, examples).tolist() == [False] + [True] * 23
    assert examples.successes_per_part["pgd-20"] == 1
    assert examples.distances.max() <= THREAT.eps + 1e-6


def test_several_images_that_the_checks_fooled_call_for_autoattack():
    model, table = Valley(), valleys(64, deep=12)
    examples = craft(model, table, attacks.Lean(THREAT, **FEW))
    assert "escalated to AutoAttack" in examples.settings["remark"]
    assert "because attacks of the checks fooled " in examples.settings["remark"]
    assert torch.equal(right(model, examples), torch.arange(64) >= 12)


def test_what_the_checks_fooled_is_kept_in_the_folder(tmp_path, monkeypatch):
    model, table, attack = Valley(), valleys(24, deep=1), attacks.Lean(THREAT, **FEW)
    first = craft(model, table, attack, folder=tmp_path / "state")
    # Of a run that was stopped there, the checks are all that is left of what follows them.
    for path in [*tmp_path.glob("state/checks/*"), *tmp_path.glob("state/whole/*")]:
        path.unlink()
    monkeypatch.setattr(checks, "reliability", None)
    again = craft(model, table, attack, folder=tmp_path / "state")
    assert torch.equal(first.images, again.images)
    assert (first.parts, first.settings) == (again.parts, again.settings)


def test_nothing_that_the_checks_fooled_is_kept_as_well(tmp_path):
    model, attack = network(), attacks.Lean(Linf(0.002), steps=6, queries=20)
    table = Table.from_tensors(images(20), {"label": model(images(20)).argmax(1)})
    first, again = (craft(model, table, attack, folder=tmp_path / "state") for _ in range(2))
    assert first.settings == again.settings


class Rough(nn.Module):
    """Wrong where neighbours differ both ways, as in noise, though not in Square's stripes nor in PGD's starts."""

    def forward(self, x):
        rough = torch.minimum(x.diff(dim=2).abs().mean((1, 2, 3)), x.diff(dim=3).abs().mean((1, 2, 3)))
        return torch.stack([(rough < 0.8 * THREAT.eps).float(), (rough >= 0.8 * THREAT.eps).float()], 1)


@pytest.mark.parametrize(("model", "attack"), [(Valley(), "pgd-20"), (Rough(), "noise")])
def test_examples_of_the_checks_fool_within_the_threat_model(model, attack):
    table = valleys(24, deep=24) if attack == "pgd-20" else Table.from_tensors(torch.full((24, 3, 9, 9), 0.5), [0] * 24)
    examples = {}
    reliability(model, table, threat=THREAT, examples=examples)
    assert attack in {example.attack for example in examples.values()}
    batch = torch.stack([examples[number].image for number in sorted(examples)])
    assert (model(batch).argmax(1) == 1).all()
    assert (batch - table.batch(torch.tensor(sorted(examples))).images).abs().max() <= THREAT.eps + 1e-6


def test_checks_search_on_the_copy_that_attacks_search_on(monkeypatch):
    proxies, whole = [], checks.reliability
    monkeypatch.setattr(
        checks,
        "reliability",
        lambda *values, **settings: proxies.append(settings["proxy"]) or whole(*values, **settings),
    )
    model, proxy = network(), ProxySettings(dtype="bf16")
    table = Table.from_tensors(images(20), {"label": model(images(20)).argmax(1)})
    craft(model, table, attacks.Lean(Linf(0.002), steps=6, queries=20), proxy=proxy)
    assert proxies == [proxy]


class Ranked(nn.Module):
    """Scores less the batch's mean score: how bright others are decides too."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4))
        with torch.no_grad():
            for number, weight in enumerate(self.parameters()):
                weight.copy_(Streams(number).normal(torch.arange(1), tuple(weight.shape))[0] / 4)

    def forward(self, x):
        scores = self.scores(x)
        return scores - scores.mean(0, keepdim=True)


@pytest.fixture(scope="module")
def ranked():
    model = Ranked().eval()
    batch = Streams(2).uniform(torch.arange(48), (3, 4, 4))
    return model, Table.from_tensors(batch, {"label": model(batch).argmax(1)})


@pytest.mark.parametrize("eps", [0.01, 0.02, 0.05])
def test_where_mates_decide_whole_batches_are_attacked_too(ranked, eps):
    model, table = ranked
    batch = table.batch()
    together = attacks.CWPGD(Linf(eps), steps=40, goal="last")(model, batch.images, table.labels())
    reached = (model(together.images).argmax(1) == table.labels()).double().mean()
    examples = craft(model, table, attacks.Lean(Linf(eps), steps=8, queries=20))
    correct = right(model, examples)
    assert correct.double().mean() <= reached
    # What is said to have fallen is wrong among the mates that it has in the set.
    assert torch.equal(correct, examples.fooled_by_part < 0)
    assert examples.settings["remark"].startswith("escalated to one attack on whole batches, which no image leaves (")
    assert examples.distances.max() <= eps + 1e-6


def test_where_mates_decide_no_draw_is_blamed(ranked):
    settings = EvaluationSettings(threat="linf:0.02")
    doubts = evaluate(*ranked, attacks.Lean(Linf(0.02), steps=8, queries=20), settings=settings).doubts
    assert any(doubt.startswith("batch-dependence") for doubt in doubts)
    assert not any("evaluated again" in doubt for doubt in doubts)


def test_an_attack_on_whole_batches_resumes_in_a_folder(ranked, tmp_path):
    attack = attacks.Lean(Linf(0.02), steps=8, queries=20)
    first, again = (craft(*ranked, attack, folder=tmp_path / "state") for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert (first.parts, first.settings, first.model_images) == (again.parts, again.settings, again.model_images)
