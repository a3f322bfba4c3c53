"""Rungs are classes: registered, named, asked for what they need, and added by anybody in one of their own."""

import numpy as np
import pytest
import torch
from test_audit import Roughness, Rounded
from test_ladder import FEW, HEADS, REVERSE, Purifier, quantised
from tiny_systems import make_network, make_table

from unfool.attacks import make_attack
from unfool.attacks.objective import LOSSES
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses import Detector, make_defense
from unfool.evaluation import classify, craft
from unfool.evaluation.adaptive.defense_attack import DefenseLabelLoss
from unfool.evaluation.adaptive.ladder import ladder
from unfool.evaluation.adaptive.ladder_run import WarmStarts
from unfool.evaluation.adaptive.rung import RUNGS, AdaptiveRung, RungContext, all_rungs, parse_rungs
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.adaptive.targeted import TargetedAttack
from unfool.evaluation.adaptive.through_defense import StraightThrough

SURROGATES = {
    "j": "no part of the model blocks its gradient",
    "k": "the model is not random",
}
"""Why rungs that look for what hides a gradient are not run on a defense that declares what it does."""
SETTINGS = LadderSettings(**(FEW | {"lambdas": (1.0,)}))


@pytest.fixture(scope="module")
def network():
    return make_network(heads=HEADS)


@pytest.fixture(scope="module")
def table(network):
    """Images with the labels that the network gives them, so that there is something to break."""
    images = make_table(12)
    with torch.no_grad():
        labels = network(images.batch().images).argmax(1)
    return Table.from_tensors(images.images, labels)


def test_every_rung_has_a_key_a_name_and_a_title_of_its_own():
    rungs = all_rungs()
    assert [(rung.key, rung.name) for rung in rungs] == [
        ("a", "static"),
        ("b", "replayed"),
        ("c", "bpda"),
        ("d", "bpda-eot"),
        ("e", "defense-aware"),
        ("f", "unrolled"),
        ("g", "gate-aware"),
        ("h", "targeted"),
        ("i", "square"),
        ("j", "straight-through"),
        ("k", "fixed-draws"),
    ]
    assert len({rung.title for rung in rungs}) == len(rungs)
    assert all(RUNGS[rung.name] is type(rung) for rung in rungs)


@pytest.mark.parametrize(
    "rungs",
    ["cf", "bpda,unrolled", "f, c", ["bpda", "f"], [StraightThrough, "unrolled"], [StraightThrough(), "f", "b"]],
)
def test_rungs_are_named_by_key_name_class_or_object(rungs):
    assert "".join(rung.key for rung in parse_rungs(rungs)) == "abcf"


def test_one_name_is_no_row_of_keys():
    assert [rung.key for rung in parse_rungs("bpda")] == ["a", "b", "c"]
    assert [rung.key for rung in parse_rungs()] == list("abcdefghijk")
    with pytest.raises(SpecError, match="did you mean 'bpda'"):
        parse_rungs("bpdb,unrolled")


class TargetedStraightThrough(StraightThrough):
    """Aims at the two likeliest other classes, one by one."""

    key = "m"
    name = "bpda-targeted"
    title = "BPDA on a targeted loss"
    losses = ("difference", "dlr-targeted")

    def targets(self, settings):
        return 2


class RandomSearch(AdaptiveRung):
    """Square on the defended system: no gradient at all."""

    key = "n"
    name = "random-search"
    title = "random search"

    def attack(self, context):
        return make_attack("square:steps=30", context.threat)


def test_a_targeted_and_a_black_box_rung_are_one_class_each(network, table):
    defense = make_defense(REVERSE, network, {"label": 4}, data=make_table(20, split="train"))
    result = ladder(
        defense, table, "fgsm", rungs=["c", TargetedStraightThrough, RandomSearch()], settings=SETTINGS, name="net"
    )
    assert list(result.rungs) == ["a", "b", "c", "m", "n"]
    for key, name in (("m", "bpda-targeted"), ("n", "random-search")):
        rung = result.rungs[key]
        assert (rung.records.attack, rung.protocol) == (name, "adaptive")
        assert classify(defense, rung.examples).correct == rung.records.correct
        # A search through the defense pays for every prediction of it.
        assert rung.examples.model_images >= 12 * defense.images_per_prediction
    replayed = np.array(result.replayed.correct)
    assert not np.array(result.records["m"].correct)[~replayed].any()
    assert (~np.array(result.records["m"].correct)).sum() > (~replayed).sum()
    section = result.section()
    assert section.rungs[-1].title == "worst of (b) to (n) on each image"
    assert result.worst.correct == np.array([result.records[key].correct for key in "bcmn"]).all(0).tolist()


@pytest.mark.parametrize(("rung", "targets"), [(StraightThrough, 0), (TargetedAttack, 2)])
def test_a_rung_aims_at_as_many_classes_as_the_settings_say(network, table, rung, targets):
    defense, threat = make_defense(REVERSE, network, {"label": 4}, data=make_table(20)), ThreatModel.parse("linf:8/255")
    starts = WarmStarts(craft(network, table, make_attack("fgsm", threat)))
    attack = rung().attack(RungContext(defense=defense, threat=threat, starts=starts, settings=SETTINGS))
    aimed_at = [getattr(part.engine, "engine", part.engine).targets for part in attack.components]
    assert aimed_at == [targets] * (1 + SETTINGS.restarts)
    assert dict(attack.settings).get("targets", 0) == targets


def test_the_loss_of_a_defended_system_minds_targets_and_averages_passes(network, table):
    images, labels = table.batch().images, table.labels()
    passes = [network, lambda images: 2 * network(images)]
    loss = DefenseLabelLoss(passes, labels, images_per_prediction=3)
    targets, rows = (labels + 1) % 4, torch.tensor([4, 1])
    with torch.no_grad():
        value = loss.with_loss("difference", targets)(images[rows], rows)
        logits = network(images[rows])
    once, twice = (LOSSES["difference"](times * logits, labels[rows], targets[rows]) for times in (1, 2))
    assert torch.allclose(value.losses, (once + twice) / 2, atol=1e-5)
    assert loss.draws == 3
    assert torch.allclose(loss.logits(images[rows], rows).detach(), logits)


class Guarded(Rounded):
    """A user's own defense: rounds images that look rough, declares its loss and its gate."""

    @property
    def gate(self):
        return Detector(losses=lambda images: self.pretext(images, None, None), threshold=0.2, images_per_loss=0)


def test_a_defense_of_one_s_own_meets_every_rung_that_it_declares_what_is_needed_for(network, table):
    plain = ladder(Rounded(network), table, "fgsm", settings=SETTINGS)
    assert plain.absent == {
        "e": "the defense has no pretext loss that an attacker could keep low",
        "g": "the defense has no gate",
        **SURROGATES,
    }
    result = ladder(Guarded(network, Roughness()), table, "fgsm", settings=SETTINGS)
    assert result.absent == SURROGATES
    assert list(result.rungs) == list("abcdefghi")
    assert result.notes == [
        "Rung (f) follows the gradient that autograd gives through the purification, if it gives any."
    ]
    for key in "cdefghi":
        examples = result.sets[key]
        assert classify(Guarded(network, Roughness()), examples).correct == result.records[key].correct
    # One look at its loss sends nothing through a network, a prediction three images.
    steps = 4 * SETTINGS.steps
    assert result.sets["e"].model_images <= 12 * (3 * (1 + 2 * 3 + 2) + 2 * steps)


class DeclaringPurifier(Purifier):
    """No Defense, only a module, which declares what it has."""

    images_per_prediction = 2
    pretext = Roughness()
    gate = Detector(losses=lambda images: Roughness()(images, None, None), threshold=0.2, images_per_loss=0)


def test_a_module_that_is_no_defense_declares_the_same_way(network, table):
    result = ladder(DeclaringPurifier(network, quantised), table, "fgsm", rungs="eg", settings=SETTINGS)
    assert list(result.rungs) == ["a", "b", "e", "g"]
    assert result.images_per_prediction == 2


def test_attacks_and_threat_models_are_objects_or_text(network, table):
    defense = Rounded(network)
    attack = make_attack("pgd-3", "linf:0.1")
    by_object = ladder(defense, table, attack, rungs="c", settings=SETTINGS)
    at = {text: LadderSettings(threat=text, steps=4) for text in ("linf:0.1", "l2:1")}
    by_text = ladder(defense, table, "pgd-3", rungs="c", settings=at["linf:0.1"])
    parsed = LadderSettings(threat=ThreatModel.parse("linf:0.1"), steps=4)
    by_model = ladder(defense, table, "pgd-3", rungs="c", settings=parsed)
    assert by_object.worst.threat == by_text.worst.threat == "linf:0.1"
    assert by_object.to_json()["rows"][-1]["accuracy"] == by_text.to_json()["rows"][-1]["accuracy"]
    assert torch.equal(by_model.sets["c"].images, by_text.sets["c"].images)
    with pytest.raises(SpecError, match=r"stays within linf:0\.1"):
        ladder(defense, table, attack, settings=at["l2:1"])


def test_a_result_is_short_in_print_and_a_table_on_demand(network, table):
    images, labels = table.batch().images, table.labels()
    result = ladder(Rounded(network), (images, labels), "fgsm", rungs="c", settings=SETTINGS, name="net")
    assert repr(result).startswith("LadderResult('net' behind 'defense' at linf:8/255: ")
    assert len(repr(result)) < 150
    frame = result.to_frame()
    assert frame["rung"].tolist() == ["a", "b", "c", "worst"]
    assert frame["accuracy"].tolist()[-1] == round(result.worst.accuracy, 6)
    assert "<table" in result._repr_html_()


def test_one_number_of_images_is_that_of_every_rung(network, table):
    few = LadderSettings(steps=2, lambdas=(1.0,), images=5)
    result = ladder(Rounded(network), table, "fgsm", rungs="c", settings=few)
    assert {records.count for records in result.records.values()} == {5}
    named = LadderSettings(steps=2, lambdas=(1.0,), images={"static": 6, "bpda": 3})
    result = ladder(Rounded(network), table, "fgsm", rungs="c", settings=named)
    assert {key: records.count for key, records in result.records.items()} == {"a": 6, "b": 6, "c": 3}
