"""The ladder: obfuscation is seen through, the deployed defense is the judge, and what was stopped goes on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted_defenses import fit, perceptron, small_digits
from tiny_systems import make_network, make_table
from torch import nn

from unfool.attacks import make_attack
from unfool.core.errors import OutputError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.defenses.gate import Gate
from unfool.evaluation import classify, craft
from unfool.evaluation.adaptive.defense_attack import DefenseAttack
from unfool.evaluation.adaptive.defense_aware import AWARE_STEPS
from unfool.evaluation.adaptive.ladder import discard_ladder
from unfool.evaluation.adaptive.ladder import ladder as climb
from unfool.evaluation.adaptive.ladder_run import WarmStarts
from unfool.evaluation.adaptive.rung import RungContext, parse_rung
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.intervals import wilson
from unfool.evaluation.results.check import check_results

HEADS = {"labels": {"kind": "linear", "outputs": 4}, "contrast": {"kind": "mlp", "outputs": 8, "hidden": 8}}
REVERSE = "reverse:task=contrast,size=8,hidden=8,bank=16,drawn=8,steps=2,eps=4/255,temperature=0.2"
FEW = {"steps": 4, "draws": 2, "lambdas": (1.0, 10.0), "targets": 2, "queries": 5}


def ladder(defense, table, attack="autoattack", **values):
    """The ladder with the values that are settings as its settings."""
    names = LadderSettings.__dataclass_fields__.keys()
    settings = {key: values.pop(key) for key in names & values.keys()}
    return climb(defense, table, attack, settings=LadderSettings(**settings), **values)


class Purifier(nn.Module):
    """A defense by shape alone: a network, and something done to the images before it."""

    def __init__(self, network, change):
        super().__init__()
        self.network = network
        self.change = change
        self.eval()

    def purify(self, images, ids=None, streams=None):
        return SimpleNamespace(images=self.change(images))

    def forward(self, images):
        return self.network(self.purify(images).images)


def quantised(images):
    """Steps smaller than the attack's reach; rounding has no gradient."""
    return (images * 120).round() / 120


def misleading(images):
    """Stairs that rise with the image while each of them slopes down: the gradient points the wrong way."""
    along = images * 40
    return images - 2 / 40 * (along - along.detach().floor() - 0.5)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("UNFOOL_DATA_DIR", raising=False)
        return small_digits("train"), small_digits("test").sample(100, Streams(0))


@pytest.fixture(scope="module")
def network(digits):
    """A perceptron, 96 % clean and over half under attack at 0.05."""
    return fit(perceptron(), digits[0], epochs=20, rate=0.003)


@pytest.fixture(scope="module")
def reverse():
    return make_defense(REVERSE, make_network(heads=HEADS), {"label": 4}, data=make_table(20, split="train"))


@pytest.fixture(scope="module")
def told(reverse):
    """Images with the labels that the network gives them, so that there is something to break."""
    table = make_table(12)
    with torch.no_grad():
        labels = reverse.network(table.batch().images).argmax(1)
    names = {"label": list("abcd")}
    return Table(
        DecodedPixels(table.images), table.ids, {"label": labels}, names, label_column="label", name="m", split="test"
    )


@pytest.fixture(scope="module")
def climbed(reverse, told):
    return ladder(reverse, told, attack="pgd-5", name="net", defended="reverse", **FEW)


@pytest.mark.parametrize("change", [quantised, misleading])
def test_an_obfuscating_defense_falls_back_to_the_network(network, digits, change):
    defense, threat = Purifier(network, change), "linf:0.05"
    found = ladder(defense, digits[1], threat=threat, attack="pgd-20", rungs="abcdf", steps=20, draws=2)
    static = found.records["a"]
    naive = classify(defense, craft(defense, digits[1], make_attack("pgd-20", threat)))
    assert naive.accuracy >= static.accuracy + 0.1
    assert found.records["f"].accuracy <= naive.accuracy
    assert found.worst.accuracy <= static.interval()[1]
    assert found.verdict != "helps"
    assert found.records["c"].accuracy < naive.accuracy - 0.1
    for records in found.common.values():
        if records is not found.records["a"]:
            assert found.worst.accuracy <= records.accuracy


def test_noise_that_only_moves_the_target_is_seen_through(network, digits):
    """Every image gets its own noise, a function of the image: replayed examples miss, BPDA does not."""

    def noisy(images):
        key = (images.flatten(1).sum(1) * 1e3).long()
        return (images + 0.12 * (Streams(0).uniform(key, tuple(images.shape[1:])) - 0.5)).clamp(0, 1)

    found = ladder(Purifier(network, noisy), digits[1], threat="linf:0.05", attack="pgd-20", rungs="abcd", steps=20)
    assert found.worst.accuracy <= found.records["a"].interval()[1]
    assert found.verdict != "helps"


def test_the_worst_case_is_the_worst_of_each_image(climbed):
    assert list(climbed.rungs) == list("abcdefhi")
    after = [climbed.records[letter].correct for letter in "bcdefhi"]
    assert climbed.worst.correct == np.array(after).all(0).tolist()
    assert climbed.worst.losses == np.array([climbed.records[letter].losses for letter in "bcdefhi"]).max(0).tolist()
    assert all(climbed.worst.accuracy <= sum(row) / len(row) for row in after)


def test_every_rung_is_judged_by_the_deployed_defense_within_the_ball(climbed, reverse, told):
    images = told.batch().images
    for letter, examples in climbed.sets.items():
        assert examples.ids.tolist() == told.ids.tolist()
        assert (examples.images - images).abs().max() <= 8 / 255 + 1e-6
        judged = classify(reverse if letter != "a" else reverse.network, examples)
        assert judged.correct == climbed.records[letter].correct
        assert judged.protocol == "white-box"
    assert classify(reverse, climbed.sets["a"]).correct == climbed.records["b"].correct
    assert climbed.records["b"].protocol == "transfer"


def test_adaptive_rungs_start_from_the_static_examples(climbed):
    """An image that its replayed example fools needs no search: nothing of (b) is lost on the way up."""
    replayed = np.array(climbed.records["b"].correct)
    for letter in "cdef":
        assert not np.array(climbed.records[letter].correct)[~replayed].any(), letter
        assert climbed.sets[letter].parts[0].endswith("from (a)")


def test_a_gate_less_defense_says_why_there_is_no_rung_g(climbed, network, digits):
    surrogates = {
        "j": "no part of the model blocks its gradient",
        "k": "the model is not random",
    }
    assert climbed.absent == {"g": "the defense has no gate", **surrogates}
    few = digits[1].subset(torch.arange(4))
    found = ladder(Purifier(network, quantised), few, attack="fgsm", rungs="abe", steps=2)
    assert found.absent == {"e": "the defense has no pretext loss that an attacker could keep low"}
    assert found.comparison is None
    assert found.verdict == "undecided"
    assert "No adaptive rung was run" in found.sentences()[1]


def test_rows_are_those_of_a_study(climbed):
    rows = climbed.rows()
    assert [(row.attack, row.protocol, row.defense, row.rung) for row in rows] == [
        ("none", "clean", "none", None),
        ("none", "clean", "reverse", None),
        ("pgd-5", "white-box", "none", "a"),
        ("pgd-5", "transfer", "reverse", "b"),
        ("bpda", "adaptive", "reverse", "c"),
        ("bpda-eot", "adaptive", "reverse", "d"),
        ("defense-aware", "adaptive", "reverse", "e"),
        ("unrolled", "adaptive", "reverse", "f"),
        ("targeted", "adaptive", "reverse", "h"),
        ("square", "adaptive", "reverse", "i"),
        ("worst-case", "adaptive", "reverse", "worst-case"),
    ]
    results = json.loads(json.dumps(climbed.to_json(), allow_nan=False))
    check_results(results)
    for row in rows:
        assert (row.low, row.high) == tuple(round(end, 6) for end in wilson(round(row.accuracy * row.n), row.n))


def test_the_cost_of_a_prediction_and_of_each_rung_is_counted(climbed, reverse, told):
    price = reverse.images_per_prediction
    assert climbed.images_per_prediction == price == 2 * 2 + 1
    bare, defended = climbed.clean
    assert (bare.model_images, defended.model_images) == (12, 12 * price)
    assert climbed.records["b"].model_images == climbed.sets["a"].model_images + 12 * price
    for letter in "cdef":
        assert climbed.records[letter].model_images == climbed.sets[letter].model_images + 12 * price
    assert f"sends {price} images" in climbed.sentences()[2]


SEEN: list[int] = []


def _note(module, inputs):
    # A global: what a hook closes over would count towards the identity.
    SEEN.append(len(inputs[0]))


@pytest.mark.parametrize("letter", ["c", "d", "f"])
def test_counted_images_are_those_that_go_through_the_network(network, digits, letter):
    SEEN.clear()
    handle = network[1].register_forward_pre_hook(_note)
    few = digits[1].subset(torch.arange(10))
    try:
        found = ladder(
            Purifier(network, quantised), few, threat="linf:0.05", attack="fgsm", rungs=letter, batch_size=10, **FEW
        )
    finally:
        handle.remove()
    # Both clean rows, (a), (b) without the crafting of (a), the rung; and three examples of two rungs, each pictured
    # clean and attacked by the network and by the defense.
    counted = 20 + found.records["a"].model_images + 10 + found.records[letter].model_images
    # The fast copy is folded and compared with the network's own logits in three passes of four images; a fourth shows
    # in which order its gradients are. System and network each see the ten images once more, for draws at random.
    assert sum(SEEN) == counted + 2 * (6 + 6) + 4 * 4 + 2 * 10


@pytest.mark.parametrize("letter", ["c", "d", "e", "f"])
def test_every_view_of_a_reversal_is_counted(reverse, climbed, told, letter):
    """The hook is copied with the network, so that the reversal's fast copy counts as well."""
    defense = make_defense(REVERSE, make_network(heads=HEADS), {"label": 4}, data=make_table(20, split="train"))
    first = next(iter(defense.network.trunk.parts.values()))
    first.register_forward_pre_hook(_note)
    context = RungContext(
        defense=defense,
        threat=ThreatModel.parse("linf:8/255"),
        starts=WarmStarts(climbed.sets["a"]),
        settings=LadderSettings(**FEW),
    )
    rung = parse_rung(letter)
    adaptive = rung.attack(context)
    if letter == "e":
        assert {part.engine.steps for part in adaptive.parts} == {AWARE_STEPS * FEW["steps"]}
    attack = DefenseAttack.of(adaptive, rung.name, climbed.images_per_prediction)
    SEEN.clear()
    examples = craft(defense, told, attack, batch_size=12)
    assert sum(SEEN) == examples.model_images > 12


@pytest.fixture(scope="module")
def gated(reverse, told):
    """A gate that half of the images pass."""
    gate = Gate(reverse, 0.0)
    with torch.no_grad():
        gate.threshold = float(gate.losses(told.batch().images).median())
    return gate


def test_a_gate_is_attacked_jointly(gated, told):
    found = ladder(gated, told, attack="pgd-5", rungs="cefg", **(FEW | {"lambdas": (1.0,)}))
    assert list(found.rungs) == list("abcefg")
    assert found.absent == {}
    assert found.worst.correct == np.array([found.records[letter].correct for letter in "bcefg"]).all(0).tolist()
    assert classify(gated, found.sets["g"]).correct == found.records["g"].correct
    assert found.notes == []
    rows = {row.rung: row for row in found.rows() if row.rung is not None}
    assert (rows["g"].attack, rows["g"].protocol) == ("gate-aware", "adaptive")


def test_an_abstention_is_an_error_and_said_to_be(gated, told):
    gate = Gate(gated.defense, gated.threshold, "abstain")
    found = ladder(gate, told, attack="fgsm", rungs="c", **FEW)
    with torch.no_grad():
        abstained = gate(told.batch().images).argmax(1) == 4
    assert 0 < int(abstained.sum()) < 12
    assert found.clean[1].correct == (~abstained).tolist()
    assert found.notes == ["An abstention counts as an error, on clean images and under attack."]


def test_fewer_images_for_a_costly_rung_lie_inside_the_others(reverse, told):
    images = {"a": 10, "c": 6, "f": 4}
    found = ladder(reverse, told, attack="fgsm", rungs="acf", images=images, **FEW)
    assert {letter: one.count for letter, one in found.records.items()} == {"a": 10, "b": 10, "c": 6, "f": 4}
    ids = {letter: set(one.ids) for letter, one in found.records.items()}
    assert set(found.worst.ids) == ids["f"] <= ids["c"] <= ids["a"]
    assert found.comparison is not None
    assert found.comparison.n == 4
    shares = {row.rung: row.common for row in found.rows() if row.rung is not None}
    assert {share.n for share in shares.values()} == {4}
    assert all(shares["worst-case"].accuracy <= shares[letter].accuracy for letter in "bcf")


def test_stopped_between_rungs_it_goes_on_and_ends_the_same(reverse, told, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    whole = ladder(reverse, told, attack="fgsm", rungs="acd", **FEW)

    class StoppedError(Exception):
        pass

    def stop(what, done, total, note=""):
        if what.startswith("(d)"):
            raise StoppedError

    with pytest.raises(StoppedError):
        ladder(reverse, told, attack="fgsm", rungs="acd", folder=folder, progress=stop, **FEW)
    crafted = {path: path.stat().st_mtime_ns for path in folder.glob("[ac]/batch-*")}
    assert len(crafted) == 2
    again = ladder(reverse, told, attack="fgsm", rungs="acd", folder=folder, **FEW)
    assert {path: path.stat().st_mtime_ns for path in crafted} == crafted
    for letter in "acd":
        assert torch.equal(whole.sets[letter].images, again.sets[letter].images)
    assert again.worst.correct == whole.worst.correct
    with monkeypatch.context() as patch:  # nothing that is finished is repeated, whatever the last call was killed in
        patch.setattr("unfool.evaluation.adaptive.ladder_run.classify", None)
        third = ladder(reverse, told, attack="fgsm", rungs="acd", folder=folder, **FEW)
    assert [rung.records for rung in third.rungs.values()] == [rung.records for rung in again.rungs.values()]
    assert third.clean == again.clean
    with pytest.raises(OutputError, match="settings"):
        ladder(reverse, told, attack="fgsm", rungs="ac", folder=folder, **(FEW | {"steps": 6}))
    other = make_defense(REVERSE.replace("steps=2", "steps=3"), reverse.network, {"label": 4}, data=make_table(20))
    with pytest.raises(OutputError, match="crafted_on"):
        ladder(other, told, attack="fgsm", rungs="ac", folder=folder, **FEW)
    discard_ladder(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rungs": "abz"}, "rung of the ladder 'z'"),
        ({"images": {"c": 13}}, "13 images of rung c"),
        ({"images": {"a": 5, "c": 6}}, "rung a has 5 images"),
        ({"images": {"a": 5, "b": 6}}, "rung a has 5 images"),
        ({"steps": 1}, "steps"),
        ({"lambdas": ()}, "lambdas"),
        ({"attack": "pdg-5"}, "did you mean 'pgd'"),
    ],
)
def test_what_is_not_understood_is_refused(reverse, told, more, words):
    with pytest.raises(SpecError, match=words):
        ladder(reverse, told, **({"attack": "fgsm"} | more))


def test_the_network_and_the_defense_come_back_as_they_were(reverse, told):
    before = {name: value.clone() for name, value in reverse.state_dict().items()}
    reverse.train()
    modes = [part.training for part in reverse.modules()]
    state = torch.random.get_rng_state()
    ladder(reverse, told.subset(torch.arange(4)), attack="fgsm", rungs="cdef", **(FEW | {"lambdas": (1.0,)}))
    assert torch.equal(state, torch.random.get_rng_state())
    assert [part.training for part in reverse.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in reverse.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in reverse.parameters())
    reverse.eval()


def test_examples_show_clean_attacked_and_purified(climbed):
    assert [example.rung for example in climbed.examples] == ["b"] * 3 + ["i"] * 3
    for example in climbed.examples:
        assert [picture.kind for picture in example.pictures] == ["clean", "attacked", "purified"]
        assert len(example.path) == 3
        for picture in example.pictures:
            shares = [each.probability for each in picture.classes]
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) <= 1.001


def test_threats_of_other_norms_climb_as_well(reverse, told):
    few = told.subset(torch.arange(4))
    for text in ("l2:0.5", "l1:8"):
        found = ladder(reverse, few, threat=text, attack="pgd-3", rungs="ce", **(FEW | {"lambdas": (1.0,)}))
        threat = ThreatModel.parse(text)
        for examples in found.sets.values():
            clean = few.batch().images
            assert (threat.norm(examples.images.double() - clean.double()) <= threat.eps + 1e-6).all()
        assert found.worst.threat == text
