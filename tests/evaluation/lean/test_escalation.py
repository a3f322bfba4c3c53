"""The lean attack in an evaluation: what follows its gradient runs, and that it resumes."""

import pytest
import torch
from torch import nn

from unfool import EvaluationSettings, Linf, attacks, craft, evaluate
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.lean import escalation
from unfool.evaluation.lean.replay import replayed
from unfool.models.surrogates.probing import Probe

FEW = {"steps": 6, "queries": 20}
THREAT = Linf(0.03)


class Planes(nn.Module):
    """Five smooth logits; counts the images that it sees."""

    def __init__(self, quantised=False, noise=0.0):
        super().__init__()
        self.weight = nn.Parameter(Streams(6).normal(torch.arange(5), (48,)) / 4, requires_grad=False)
        self.quantised = quantised
        self.noise = noise
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        images = (images * 16).round() / 16 if self.quantised else images
        scores = (images - 0.5).flatten(1) @ self.weight.T
        return scores + self.noise * torch.randn_like(scores) if self.noise else scores


def table_of(model, count=32):
    """Random images with the model's own classes."""
    ids = torch.arange(count)
    images = Streams(2).uniform(ids, (3, 4, 4))
    return Table.from_tensors(images, {"label": model(images).argmax(1)})


def verdicts(examples):
    return (examples.fooled_by_part >= 0).tolist()


def test_a_sample_of_what_stands_is_attacked_by_the_other_parts():
    model = Planes()
    examples = craft(model, table_of(model), attacks.Lean(THREAT, share=0.2, fewest=3, **FEW))
    standing = int((examples.fooled_by_part < 0).sum())
    assert 5 <= standing < 35
    assert f"attacked {max(3, -(-standing // 5))} of the {standing} images that stood" in examples.settings["remark"]
    assert examples.attack == "lean-6"
    assert examples.parts == ["short", "ce", "targets", "near", "edge", "finish"]


def test_the_verdicts_are_those_of_autoattack():
    model = Planes()
    table = table_of(model)
    ours = craft(model, table, attacks.Lean(THREAT, **FEW))
    theirs = craft(model, table, attacks.AutoAttack(THREAT, steps=20, queries=50))
    assert verdicts(ours) == verdicts(theirs)


def test_neither_batches_nor_processes_change_the_sample():
    model = Planes()
    table = table_of(model)
    attack = attacks.Lean(THREAT, **FEW)
    whole, split = craft(model, table, attack), craft(model, table, attack, batch_size=7)
    assert whole.settings["remark"] == split.settings["remark"]
    assert verdicts(whole) == verdicts(split)


def test_a_masked_model_escalates_and_says_so():
    model = Planes(quantised=True)
    table = table_of(model)
    examples = craft(model, table, attacks.Lean(Linf(0.05), **FEW))
    assert (
        "escalated to gradients passed straight through what gives the logits of Planes (BPDA)"
        in (examples.settings["remark"])
    )
    whole = craft(model, table, attacks.AutoAttack(Linf(0.05), queries=20))
    assert sum(verdicts(examples)) >= sum(verdicts(whole)) > 0
    assert sum(verdicts(examples)) > 1.2 * sum(verdicts(whole))
    right = model(examples.images).argmax(1) == examples.labels
    assert torch.equal(right, examples.fooled_by_part < 0)


def test_a_random_model_meets_the_version_for_random_ones():
    model = Planes(noise=0.05)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        examples = craft(model, table_of(model, 20), attacks.Lean(THREAT, **FEW))
    assert "the model is random" in examples.settings["remark"]
    assert "apgd-dlr" in examples.parts or "escalated" in examples.settings["remark"]


def test_too_few_images_for_the_checks_escalate():
    model = Planes()
    examples = craft(model, table_of(model, 9), attacks.Lean(THREAT, **FEW))
    assert "too few images are classified correctly" in examples.settings["remark"]


def test_too_few_images_for_the_checks_do_not_hide_what_blocks_gradients():
    model = Planes(quantised=True)
    examples = craft(model, table_of(model, 9), attacks.Lean(Linf(0.05), **FEW))
    assert "passed straight through what gives the logits of Planes (BPDA)" in examples.settings["remark"]
    assert all(verdicts(examples))


@pytest.mark.parametrize("fewest", [2, 40])
def test_if_the_sample_falls_all_are_attacked(monkeypatch, fewest):
    monkeypatch.setattr(escalation, "reasons", lambda report, examples, standing: [])
    monkeypatch.setattr(escalation, "checked", lambda run, reached, examples: reached)
    monkeypatch.setattr(escalation, "probed", lambda *_: Probe())
    model = Planes(quantised=True)
    table = table_of(model)
    examples = craft(model, table, attacks.Lean(Linf(0.06), fewest=fewest, steps=4, queries=40))
    # Square fools many images of a quantiser, which is more than gradients may miss.
    assert "FAB-T and Square fooled" in examples.settings["remark"]
    assert "escalated to AutoAttack" in examples.settings["remark"]
    assert examples.successes_per_part["square"] > 0
    right = model(examples.images).argmax(1) == examples.labels
    assert torch.equal(right, examples.fooled_by_part < 0)


def test_it_resumes_in_a_folder(tmp_path):
    model = Planes(quantised=True)
    table = table_of(model)
    attack = attacks.Lean(Linf(0.05), **FEW)
    first = craft(model, table, attack, folder=tmp_path / "state")
    model.seen = 0
    again = craft(model, table, attack, folder=tmp_path / "state")
    # Which images stand is looked at anew, and what masks their gradients in two probings; nothing is attacked.
    assert model.seen <= 3 * len(table) + 2 * 6 * 16
    assert torch.equal(first.images, again.images)
    assert (first.parts, first.settings) == (again.parts, again.settings)
    assert first.model_images == again.model_images


def test_a_replay_gives_what_the_sets_hold():
    model = Planes()
    table = table_of(model)
    first = craft(model, table.subset(torch.arange(20)), attacks.APGD(THREAT, steps=5))
    second = craft(model, table.subset(torch.arange(15, 32)), attacks.Square(THREAT, steps=30))
    attack = replayed("both", THREAT, [first, second], {})
    both = craft(model, table, attack)
    assert attack.learns_from == ["gradient", "scores"]
    expected = torch.zeros(32, dtype=torch.bool)
    expected[:20] |= first.fooled_by_part >= 0
    expected[15:] |= second.fooled_by_part >= 0
    assert torch.equal(both.fooled_by_part >= 0, expected)


def test_a_claim_is_not_settled_by_verdicts_on_all_images_together():
    model = Planes()
    with pytest.raises(SpecError, match="a claim is settled on a few at a time; give autoattack"):
        evaluate(model, table_of(model, 4), "lean", settings=EvaluationSettings(claim=">=0.2"))


def test_an_evaluation_says_what_was_skipped():
    model = Planes()
    settings = EvaluationSettings(threat=THREAT, reliability=False)
    evaluation = evaluate(model, table_of(model), attacks.Lean(THREAT, **FEW), settings=settings)
    row = evaluation.rows[1]
    assert row.attack == "lean-6"
    assert "images that stood" in row.remark
    assert row.from_json(row.to_json()).remark == row.remark
    assert "remark" not in evaluation.rows[0].to_json()
