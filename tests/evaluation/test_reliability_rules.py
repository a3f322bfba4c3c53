"""The rules of the reliability report, on models that nobody had to train."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted_defenses import TwoBasins
from scipy.stats import binomtest
from tiny_systems import Gives, make_network, make_table, table_of
from torch import nn

from unfool import evaluate
from unfool.attacks import Attack, CustomAttack, Part, Perturbed, make_attack
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.evaluation import classify, craft
from unfool.evaluation.reliability.attack_checks import huge
from unfool.evaluation.reliability.evidence import BLACK_BOX, gather
from unfool.evaluation.reliability.flags import CHANCE, SHARE, more_than_chance, too_many
from unfool.evaluation.reliability.report import reliability
from unfool.evaluation.results.reliability import ATTACK_CHECKS, Flag, Reliability

THREAT = "linf:0.15"


def names(found):
    return {flag.name for flag in found.flags}


def flag_of(found, name):
    return next(flag for flag in found.flags if flag.name == name)


def one_pixel(count=64):
    """Images that TwoBasins classifies as 0."""
    ids = torch.arange(count)
    pixels = Streams(0).integers(ids, 256, (1, 4, 4)).to(torch.uint8)
    pixels[:, 0, 0, 0] = 128
    columns = {"label": torch.zeros(count, dtype=torch.int64)}
    return Table(
        DecodedPixels(pixels), ids, columns, {"label": ["a", "b"]}, label_column="label", name="made-up", split="test"
    )


def test_what_only_noise_other_starts_or_square_find_is_flagged_and_listed():
    found = reliability(TwoBasins().eval(), one_pixel(), threat="linf:0.1", attacks=[make_attack("pgd-20", "linf:0.1")])
    assert names(found) == {"black-box-wins", "noise-wins", "more-restarts-win", "blocked-gradients"}
    restarts = flag_of(found, "more-restarts-win")
    # A start leads up with probability 1/4: of 64 images 48 stand after one, and 27 after three.
    assert 10 < len(restarts.images) < 32
    assert restarts.share == len(restarts.images) / 64
    assert set(found.missed_by_gradients) == {"square-200", "noise, 20 draws"}
    assert flag_of(found, "black-box-wins").images == found.missed_by_gradients["square-200"]
    assert flag_of(found, "noise-wins").images == found.missed_by_gradients["noise, 20 draws"]


@pytest.mark.parametrize("text", ["pgd-20", "autoattack:steps=10,queries=20"])
def test_where_no_image_stands_none_is_attacked_again(text, monkeypatch):
    network = make_network()
    table = table_of(network, 64)
    for eps in (0.02, 0.5):
        runs, run = [], Attack.run
        with monkeypatch.context() as patch:
            attack = make_attack(text, ThreatModel("linf", eps))
            examples = craft(network, table, attack)
            patch.setattr(Attack, "run", lambda *arguments, run=run, runs=runs: runs.append(1) or run(*arguments))
            found = reliability(
                network,
                table,
                threat=attack.threat,
                attacks=[attack],
                records=[classify(network, examples)],
                sets=[examples],
            )
        assert bool(runs) == (eps == 0.02) == ("black-box-wins" in found.checked)
        assert found.needless == ([] if runs else list(ATTACK_CHECKS))
        assert "batch-dependence" in found.checked
        assert found.images == 64
        assert Reliability.from_json(found.to_json()) == found
        assert ("were not needed" in found.no_doubt) == (eps == 0.5)


class NoisyRound(nn.Module):
    """Random logits behind a rounding whose gradient is that of a line: gradients win draws, and no image falls."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        coarse = images + ((4 * images).round() / 4 - images).detach()
        logits = self.network(coarse)
        return logits + 0.1 * torch.randn_like(logits)


def test_an_attack_on_a_random_model_is_not_taken_at_its_word():
    torch.manual_seed(0)
    model = NoisyRound(make_network()).eval()
    table = table_of(make_network(), 64)
    attack = make_attack("pgd-20:restarts=10", "linf:0.1")
    examples = craft(model, table, attack)
    everything = dataclasses.replace(examples, fooled_by_part=torch.zeros(64, dtype=torch.int64))
    records = dataclasses.replace(classify(model, everything), correct=[False] * 64)
    found = reliability(model, table, threat=attack.threat, attacks=[attack], records=[records], sets=[everything])
    assert "randomised-output" in names(found)
    assert found.needless == []
    assert "black-box-wins" in found.checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guess:
    """Tries the two ends of the first pixel's range, by the model's predictions alone."""

    threat: ThreatModel

    def run(self, problem):
        rows = torch.arange(len(problem.images))
        images, fooled = problem.images.clone(), torch.zeros(len(rows), dtype=torch.bool)
        for step in (-self.threat.eps, self.threat.eps):
            points = problem.images.clone()
            points[:, 0, 0, 0] = (points[:, 0, 0, 0] + step).clamp(0, 1)
            success = problem.objective(points, rows).fooled & ~fooled
            images[success], fooled = points[success], fooled | success
        return Perturbed(
            images=images,
            losses=fooled.float(),
            fooled=fooled,
            zero_gradient=torch.zeros_like(fooled),
            model_images=2 * len(rows),
        )


@pytest.mark.parametrize("name", ["pgd-guess", "gradient descent"])
def test_an_outside_attack_without_gradients_shows_that_they_mislead_whatever_its_name(name):
    """Of 64 images gradients lead PGD from a start to the narrow basin on few; the guess finds the wide one on all."""
    threat = ThreatModel.parse("linf:0.1")
    part = Part(name=name, engine=Guess(threat=threat), learns_from="scores")
    guess = CustomAttack(threat, label=name, components=(part,))
    table = one_pixel()
    found = evaluate(TwoBasins().eval(), table, ["pgd-20", guess])
    assert found.records[2].follows_gradients is False
    assert found.records[3].follows_gradients is None
    flag = flag_of(found.reliability, "black-box-wins")
    assert name in flag.text
    missed = set(found.reliability.missed_by_gradients[name])
    pgd = {number for number, correct in zip(table.ids.tolist(), found.records[1].correct, strict=True) if not correct}
    assert len(missed) > 16
    assert not missed & pgd
    # The same attack, had it followed gradients, would be no sign of anything.
    following = dataclasses.replace(guess, components=(dataclasses.replace(part, learns_from="gradient"),))
    both = evaluate(TwoBasins().eval(), table, ["pgd-20", following])
    assert name not in both.reliability.missed_by_gradients


def test_images_fooled_before_are_no_wins_of_square():
    table = one_pixel()
    model = TwoBasins().eval()
    examples = craft(model, table, make_attack("pgd-20:restarts=40", "linf:0.1"))
    pgd = make_attack("pgd-20", "linf:0.1")
    records = classify(model, examples)
    assert not any(records.correct)
    one = dataclasses.replace(records, correct=[True, *records.correct[1:]])
    found = reliability(model, table, threat="linf:0.1", attacks=[pgd], records=[one])
    # It jumps where its basins meet, which its gradient does not say; nothing else speaks against it.
    assert names(found) == {"blocked-gradients"}
    assert found.needless == []
    missed = found.missed_by_gradients
    assert {number for ids in missed.values() for number in ids} <= {records.ids[0]}
    assert "square-200" in missed


def test_few_classes_are_told_with_the_attacks_that_lose_their_loss():
    table = make_table(20, classes=3)
    model = make_network(heads={"labels": {"kind": "linear", "outputs": 3}}, normalisation="none")

    def flags(*texts):
        attacks = [make_attack(text, THREAT) for text in texts]
        return [flag.text for flag in reliability(model, table, threat=THREAT, attacks=attacks).flags]

    told = [text for text in flags("apgd-dlr", "apgd-t") if "has 3 classes" in text]
    assert len(told) == 1
    assert "apgd-t" in told[0]
    assert "apgd-dlr" not in told[0]
    # Cross-entropy needs no third class.
    assert not [text for text in flags("pgd-20") if "has 3 classes" in text]


def test_what_cannot_be_computed_is_said():
    table, model = make_table(24), make_network(normalisation="none")
    correct = sum(classify(model, table).correct)
    assert correct < 16
    found = reliability(model, table, threat=THREAT)
    assert names(found) == {"not-checked", "chance"}
    assert f"only {correct} of 24" in flag_of(found, "not-checked").text
    assert all(name in flag_of(found, "not-checked").text for name in ATTACK_CHECKS)
    few = reliability(model, table.subset(torch.arange(3)), threat=THREAT)
    assert "missing-normalisation" in flag_of(few, "not-checked").text


@given(st.integers(1, 1000).flatmap(lambda total: st.tuples(st.integers(0, min(total, 60)), st.just(total))))
def test_more_than_chance_is_the_exact_binomial_test(case):
    count, total = case
    assert more_than_chance(count, total) == (binomtest(count, total, SHARE, alternative="greater").pvalue < CHANCE)


def test_one_image_is_never_too_many_and_one_percent_is_allowed():
    assert [too_many(count, 64) for count in (0, 1, 2)] == [False, False, True]
    assert [too_many(count, 1000) for count in (10, 11)] == [False, True]
    assert [more_than_chance(count, 64) for count in (3, 4)] == [False, True]


def test_a_huge_ball_holds_grey_images():
    images = Streams(0).uniform(torch.arange(20), (3, 4, 4))
    for text in ("linf:0.01", "l2:0.1", "l1:1"):
        wide = huge(ThreatModel.parse(text), (3, 4, 4))
        assert float(wide.norm(images - 0.5).max()) <= wide.eps
    grey, corner = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4)
    for text in ("linf:0.01", "l2:0.1", "l1:1"):
        wide = huge(ThreatModel.parse(text), (3, 4, 4))
        assert float(wide.norm(grey - corner)) == pytest.approx(wide.eps)


def test_a_flag_has_a_known_name():
    with pytest.raises(SpecError, match="did you mean 'noise-wins'"):
        Flag(name="noise-win", text="")


@pytest.mark.parametrize(
    ("change", "counts"),
    [({}, True), ({"data": "another"}, False), ({"split": "train"}, False), ({"threat": "linf:0.1"}, False)],
)
def test_only_results_on_these_images_in_this_threat_model_are_evidence(change, counts):
    network, table = make_network(), make_table(12)
    records = classify(network, craft(network, table, make_attack("fgsm", THREAT)))
    changed = dataclasses.replace(records, **change)
    gathered = gather(network, table, ThreatModel.parse(THREAT), [changed], ())
    assert bool(gathered.evidence.tried) is counts


def own_set(model, table):
    """An attack on the model itself, as if what stood had fallen to a search without gradients."""
    examples = craft(model, table, make_attack("fgsm", THREAT))
    by = torch.where(examples.fooled_by_part < 0, 1, examples.fooled_by_part)
    return dataclasses.replace(examples, fooled_by_part=by, parts=["fgsm", "square"], follows_gradients=[True, False])


def test_clean_records_of_another_system_excuse_no_win():
    """They name no system: whether an image was wrong before is for the model itself to say."""
    network, table = make_network(), table_of(make_network(), 12)
    other = classify(Gives(lambda images: -network(images)), table)
    assert not any(other.correct)
    examples = own_set(network, table)
    wins = [
        gather(network, table, ThreatModel.parse(THREAT), records, [examples]).evidence.missed_by_gradients(BLACK_BOX)
        for records in ([], [other])
    ]
    assert wins[0] == wins[1] != {}


def test_images_that_the_model_has_wrong_are_no_wins():
    network, table = make_network(), table_of(make_network(), 12)
    table.columns["label"][:6] = (table.columns["label"][:6] + 1) % 4
    examples = own_set(network, table)
    gathered = gather(network, table, ThreatModel.parse(THREAT), (), [examples])
    assert gathered.evidence.wrong_before == set(table.ids[:6].tolist())
    (wins,) = gathered.evidence.missed_by_gradients(BLACK_BOX).values()
    assert wins
    assert not set(wins) & set(table.ids[:6].tolist())


@pytest.mark.parametrize("threat", [THREAT, "l2:1", "l1:9", "l0:5"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_set_of_other_images_or_labels_is_no_evidence(threat, elsewhere):
    network, table = make_network(), make_table(8)
    source = make_network(1) if elsewhere else network
    examples = craft(source, table, make_attack("pgd-3", threat))
    images, labels = table.batch().images, table.labels()

    def tried(images, labels):
        other = Table.from_tensors(images, labels, ids=table.ids, name=table.name, split=table.split)
        return gather(network, other, ThreatModel.parse(threat), (), [examples]).evidence.tried

    assert tried(images, labels)
    assert not tried(images.flip(3), labels)
    assert not tried(images, (labels + 1) % 4)
    # An image alone that is another one: the set is not of these images.
    assert not tried(torch.cat([images[:7], images[7:].flip(3)]), labels)


def test_records_under_other_labels_are_no_evidence():
    network, table = make_network(), make_table(8)
    records = classify(network, craft(network, table, make_attack("fgsm", THREAT)))
    table.columns["label"] = (table.columns["label"] + 1) % 4
    assert not gather(network, table, ThreatModel.parse(THREAT), [records], ()).evidence.tried


class Linear(nn.Module):
    """A linear model that computes in another precision."""

    def __init__(self, dtype, noise=0.0):
        super().__init__()
        weights = Streams(3).normal(torch.arange(48), (4,)).to(dtype)
        self.weights, self.noise = nn.Parameter(weights), noise

    def forward(self, images):
        logits = (images.flatten(1).to(self.weights.dtype) @ self.weights).float()
        return logits + self.noise * torch.randn_like(logits)


@pytest.mark.parametrize("noise", [0.0, 1e-2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_checks_that_half_precision_hides_are_named(dtype, noise):
    model, images = Linear(dtype, noise), Streams(2).uniform(torch.arange(24), (3, 4, 4))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        table = Table.from_tensors(images, Linear(dtype)(images).argmax(1))
        report = reliability(model, table, threat="linf:0.02", images=16)
    missed = [flag.text for flag in report.flags if flag.name == "not-checked"]
    for name in ("wrong-gradients", "blocked-gradients"):
        assert (name in report.checked) != any(name in text for text in missed)
    half = dtype != torch.float32
    assert any("8 to 11 bits" in text for text in missed) is half
    assert ("blocked-gradients" in report.checked) is not half
    assert report.trustworthy or half or noise
