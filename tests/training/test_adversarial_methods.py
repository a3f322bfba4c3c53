"""Methods of adversarial training are rows: one of a few lines, registered from outside, trains as its formula says."""

import pytest
import torch
import torch.nn.functional as F
from test_stage import make_stage
from tiny_runs import contrast, labels, make_table, run, stage

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.training import train
from unfool.training.adversarial.methods import ADVERSARIAL_METHODS, REWEIGHTING, AdversarialMethod, dynamic_mean


def logit_pairing(clean, perturbed, targets, beta):
    """Adversarial logit pairing (Kannan et al. 2018, equation 2): cross-entropy of both, and the logits' distance."""
    both = [F.cross_entropy(logits, targets, reduction="none") for logits in (clean, perturbed)]
    return sum(both) / 2 + beta * (clean - perturbed).square().sum(1)


OUTSIDE = {
    "alp": AdversarialMethod(description="adversarial logit pairing (labels tasks)", learns=logit_pairing),
    "quarter": AdversarialMethod(
        description="a quarter clean", combines=lambda clean, perturbed, strength: 0.25 * clean + 0.75 * perturbed
    ),
    "first climbs": AdversarialMethod(
        description="the first view climbs the distance of its logits",
        perturbs="first",
        climbs=lambda clean, perturbed, targets, beta: (clean - perturbed).square().sum(1),
        start_deviation=1e-3,
    ),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    list(ADVERSARIAL_METHODS)
    monkeypatch.setattr(ADVERSARIAL_METHODS, "_items", dict(ADVERSARIAL_METHODS._items))
    monkeypatch.setattr(ADVERSARIAL_METHODS, "_sources", dict(ADVERSARIAL_METHODS._sources))
    for name, method in OUTSIDE.items():
        ADVERSARIAL_METHODS.add(name)(method)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_new_row_trains(tmp_path, name):
    tasks = {"labels": labels(augmentation="simclr", views=2)}
    config = stage(tasks, perturb="pgd-2", adversarial=name, beta=0.5)
    trained = train(run(config), make_table(), tmp_path)
    plain = train(run(stage(tasks, perturb="pgd-2")), make_table(), tmp_path / "plain")
    weights, others = trained.network.state_dict(), plain.network.state_dict()
    assert any(not torch.equal(value, others[key]) for key, value in weights.items())
    assert trained.config.stages[0].adversarial == name


@pytest.mark.parametrize("name", ["alp", "quarter"])
def test_its_losses_are_its_formula_on_both_sets_of_views(name):
    made = make_stage(stage(perturb="pgd-2", adversarial=name, beta=0.5))
    batch = make_table().batch(torch.arange(8))
    (pair,) = made._view_pairs(batch, Streams(0))
    losses, _ = made._losses_and_scores([pair])
    network, targets = make_stage(stage()).network.train(), batch.labels("label")
    clean, perturbed = (
        network.heads["labels"](network.features(views["labels"].images)) for views in (pair.clean, pair.perturbed)
    )
    if name == "alp":
        expected = logit_pairing(clean, perturbed, targets, 0.5)
    else:
        parts = [F.cross_entropy(logits, targets, reduction="none") for logits in (clean, perturbed)]
        expected = 0.25 * parts[0] + 0.75 * parts[1]
    torch.testing.assert_close(losses["labels"], expected)


def test_rows_say_what_they_take():
    assert OUTSIDE["alp"].labels_only
    assert not OUTSIDE["alp"].may_separate
    assert OUTSIDE["quarter"].may_separate
    stage({"contrast": contrast()}, perturb="pgd-1", adversarial="quarter", statistics="separate")
    with pytest.raises(SpecError, match="compares predictions of classes"):
        make_stage(stage({"contrast": contrast()}, perturb="pgd-1", adversarial="alp"))
    with pytest.raises(SpecError, match="sets restarts, and training takes the last point of one run"):
        make_stage(stage(perturb="pgd-1:restarts=2", adversarial="first climbs"))
    with pytest.raises(SpecError, match="give one of the two"):
        AdversarialMethod(description="both", learns=logit_pairing, combines=OUTSIDE["quarter"].combines)


def test_an_unknown_method_is_answered_by_all_there_are():
    with pytest.raises(
        SpecError, match=r"did you mean 'trades'\? allowed: alp, dual-stream, .*, plain, quarter, trades"
    ):
        stage(perturb="pgd-1", adversarial="trade")


def test_the_dynamic_mean_moves_weight_to_the_perturbed_views_and_stays_a_mean():
    clean, perturbed = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 5.0])
    assert torch.equal(dynamic_mean(clean, perturbed, 1.0), (clean + perturbed) / 2)
    for strength in (0.0, 0.25, 0.75):
        moved = REWEIGHTING * (1 - strength)
        expected = [(1 - moved) / 2 * a + (1 + moved) / 2 * b for a, b in ((1.0, 2.0), (3.0, 5.0))]
        assert dynamic_mean(clean, perturbed, strength).tolist() == pytest.approx(expected)
        assert torch.allclose(dynamic_mean(clean, clean, strength), clean)
