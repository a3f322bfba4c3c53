"""The audit tells a pretext loss that sees attacks from a blind one, and charges every rival the same."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_systems import make_network, make_table

from unfool.attacks import make_attack
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses import Defense, Gate, make_defense
from unfool.evaluation import classify, craft
from unfool.evaluation.adaptive.audit import audit
from unfool.evaluation.adaptive.audit_result import DEFENSE, NETWORK, NOISE, VIEWS
from unfool.evaluation.adaptive.settings import AuditSettings

HEADS = {"labels": {"kind": "linear", "outputs": 4}, "contrast": {"kind": "mlp", "outputs": 8, "hidden": 8}}
REVERSE = "reverse:task=contrast,bank=16,drawn=8,steps=3,eps=8/255,temperature=0.2"


class Rounded(Defense):
    """A user's own defense, with a pretext loss if it is given one."""

    images_per_prediction = 3

    def __init__(self, network, pretext=None):
        super().__init__()
        self.network = network
        self.own = pretext

    @property
    def classifier(self):
        return self.network

    @property
    def pretext(self):
        return self.own

    def purified_images(self, images, ids=None, streams=None, differentiable=False):
        return (images * 15).round() / 15


class Roughness:
    """Neighbours differ: a loss that no task of the library computes."""

    images_per_loss = 0

    def __call__(self, images, ids, streams):
        return images.diff(dim=3).abs().flatten(1).mean(1) + images.diff(dim=2).abs().flatten(1).mean(1)


@pytest.fixture(scope="module")
def defense():
    return make_defense(REVERSE, make_network(heads=HEADS), {"label": 4}, data=make_table(20, split="train"))


@pytest.fixture(scope="module")
def table():
    return make_table(16)


@pytest.fixture(scope="module")
def examples(defense, table):
    return craft(defense.network, table, make_attack("pgd-5:goal=best", "linf:8/255"))


@pytest.fixture(scope="module")
def found(defense, table, examples):
    return audit(defense, table, examples)


def losses(defense, images):
    """Written out: the task on its own views, one draw after another."""
    streams, ids = Streams(0).named("audit").named("looks"), torch.zeros(len(images), dtype=torch.int64)
    objective = defense.objective(ids, streams)
    rows = torch.arange(len(images))
    return sum(objective.losses(images, rows, call) for call in range(4)) / 4


def test_auroc_is_the_share_of_pairs_in_the_right_order(found, defense, table, examples):
    with torch.no_grad():
        clean, attacked = losses(defense, table.batch().images), losses(defense, examples.images)
    pairs = attacked[:, None] - clean[None]
    assert found.auroc == pytest.approx(float(((pairs > 0).double() + (pairs == 0) / 2).mean()), abs=0.01)
    assert found.means["clean"] == pytest.approx(float(clean.mean()), rel=1e-4)
    assert found.means["attacked"] == pytest.approx(float(attacked.mean()), rel=1e-4)
    assert found.means["purified"] < found.means["attacked"]


def test_the_histogram_holds_every_image(found):
    assert {sum(counts) for counts in found.counts.values()} == {16}
    assert list(found.counts) == ["clean", "attacked", "purified"]
    assert all(len(counts) == len(found.edges) - 1 for counts in found.counts.values())


def test_the_cosine_is_that_of_the_two_gradients(found, defense, examples):
    images = examples.images.clone().requires_grad_()
    (ours,) = torch.autograd.grad(losses(defense, images).sum(), images)
    (theirs,) = torch.autograd.grad(F.cross_entropy(defense.network(images), examples.labels, reduction="sum"), images)
    one, other = ours.flatten(1).double().numpy(), theirs.flatten(1).double().numpy()
    wanted = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert found.cosines == pytest.approx(wanted.tolist(), abs=1e-3)
    mean, low, high = found.cosine
    assert low < mean < high
    assert mean == pytest.approx(wanted.mean(), abs=1e-3)


def test_every_way_is_judged_on_the_same_images_at_a_stated_cost(found, defense, examples):
    price = defense.images_per_prediction
    assert {name: gain.images for name, gain in found.gains.items()} == {
        NETWORK: 1,
        DEFENSE: price,
        NOISE: price,
        VIEWS: price,
    }
    for name, system in ((NETWORK, defense.network), (DEFENSE, defense)):
        records = classify(system, examples)
        assert found.gains[name].accuracy == records.accuracy
        assert (found.correct[name], found.ids) == (records.correct, records.ids)
    assert found.gains[NETWORK].difference == 0
    gain = found.gains[DEFENSE]
    assert gain.difference == pytest.approx(gain.accuracy - found.gains[NETWORK].accuracy)
    assert gain.least <= gain.difference <= gain.most
    assert all(f"accuracy of {name} is" in text for name, text in zip(found.gains, found.sentences()[2:], strict=True))
    kept = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert kept["gains"][NOISE]["images"] == price
    assert sum(kept["correct"][NOISE]) / kept["n"] == kept["gains"][NOISE]["accuracy"]


def test_batches_do_not_matter_and_a_gate_is_looked_behind(found, defense, table, examples):
    small = audit(defense, table, examples, settings=AuditSettings(batch_size=5))
    assert small.cosines == pytest.approx(found.cosines, abs=1e-3)
    assert small.means == pytest.approx(found.means, rel=1e-3)
    gated = audit(Gate(defense, 0.0), table, examples)
    assert gated.auroc == pytest.approx(found.auroc)
    assert gated.gains[NOISE].images == Gate(defense, 0.0).images_per_prediction


def test_a_defense_of_one_s_own_is_audited_by_the_loss_that_it_declares(defense, table, examples):
    """Without a ball of its own there is no noise of its size to compare with."""
    result = audit(Rounded(defense.network, Roughness()), table, examples)
    assert list(result.gains) == [NETWORK, DEFENSE, VIEWS]
    assert result.gains[VIEWS].images == 3
    rough = Roughness()
    assert result.means["clean"] == pytest.approx(float(rough(table.batch().images, None, None).mean()), rel=1e-4)
    assert result.means["purified"] != result.means["attacked"]


def test_what_cannot_be_audited_is_refused(defense, table, examples):
    with pytest.raises(SpecError, match="has no network"):
        audit(defense.network, table, examples)
    with pytest.raises(SpecError, match="no pretext loss"):
        audit(Rounded(defense.network), table, examples)
    with pytest.raises(DataError, match="lacks image 46"):
        audit(defense, make_table(15), examples)


def test_images_that_the_examples_were_not_made_from_are_refused(defense, table, examples):
    """The same ids, names and split do not make them the same images."""
    images, labels = table.batch().images, table.labels()
    columns = {"label": labels.clone(), "parity": table.labels("parity")}
    others = Table.from_tensors(images.flip(3), columns, ids=table.ids, name=table.name, split=table.split)
    with pytest.raises(DataError, match=r"example 1 lies 0\.9.* from that image of the table, and the set says 0\.03"):
        audit(defense, others, examples)
    columns["label"][3] = (labels[3] + 1) % 4
    relabelled = Table.from_tensors(images, columns, ids=table.ids, name=table.name, split=table.split)
    with pytest.raises(DataError, match="image 10 has label"):
        audit(defense, relabelled, examples)
    with pytest.raises(DataError, match="images of 3×16×16, the table of 3×8×8"):
        audit(defense, make_table(16, side=8), examples)
    unchanged = dataclasses.replace(examples, distances=torch.zeros(16))
    with pytest.raises(DataError, match=r"lies 0\.03.* and the set says 0"):
        audit(defense, table, unchanged)


def test_a_result_is_short_in_print_and_a_table_on_demand(found, defense, table, examples):
    assert repr(found).startswith(f"AuditResult(AUROC {found.auroc:.2f}, cosine ")
    assert len(repr(found)) < 120
    frame = found.to_frame()
    assert frame["way"].tolist() == [NETWORK, DEFENSE, NOISE, VIEWS]
    assert frame["accuracy"].tolist() == [gain.accuracy for gain in found.gains.values()]
    assert "<table" in found._repr_html_()
    progress = []
    few = AuditSettings(batch_size=10)
    audit(defense, table, examples, settings=few, progress=lambda what, done, total, note="": progress.append(done))
    assert progress == [10, 16]


def test_an_attack_crafts_the_examples_on_the_bare_network(defense, table, examples, found):
    settings = AuditSettings(batch_size=8)
    by_name, by_object = (
        audit(defense, table, attack, settings=settings)
        for attack in ("pgd-5:goal=best", make_attack("pgd-5:goal=best", "linf:8/255"))
    )
    assert by_name.to_json() == by_object.to_json()
    assert (by_name.attack, by_name.threat) == (found.attack, found.threat) == ("pgd-5", "linf:8/255")
    assert by_name.gains[NETWORK].accuracy == found.gains[NETWORK].accuracy
    assert audit(defense, table, examples, settings=AuditSettings(draws=1)).means != found.means


def test_examples_of_another_network_are_transfer(defense, table, examples, found):
    assert found.protocol == found.to_json()["protocol"] == "white-box"
    others = craft(make_network(seed=5, heads=HEADS), table, make_attack("pgd-5:goal=best", "linf:8/255"))
    borrowed = audit(defense, table, others)
    assert borrowed.protocol == borrowed.to_json()["protocol"] == "transfer"
    assert borrowed.sentences()[0].startswith("The attacked images are TRANSFER: ")
    assert not any("On attacked images" in sentence for sentence in borrowed.sentences())
    assert "transferred images" in repr(borrowed)
    assert not any("transfer" in sentence.lower() for sentence in found.sentences())
    # Examples of the defense are none of the network that it stands before.
    assert audit(defense, table, craft(defense, table, make_attack("fgsm", "linf:8/255"))).protocol == "transfer"
