"""The binarization test: sound attacks pass it, weak and broken ones fail, and it says when it is void."""

import dataclasses
import importlib
import json

import pytest
import torch
from planted_defenses import small_digits
from tiny_systems import make_network, make_table
from torch import nn

from unfool.attacks import CustomAttack, make_attack
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Perturbed
from unfool.core.errors import DataError, SpecError
from unfool.core.threat import ThreatModel
from unfool.data.catalog import open_table
from unfool.evaluation.reliability.binarization_test import binarization_test
from unfool.training import RunConfig, StageConfig, TaskConfig, train

LINF, L2, L1 = "linf:0.1", "l2:1", "l1:12"
IMAGES, INNER = 32, 40


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("UNFOOL_DATA_DIR", raising=False)
        return small_digits("train"), small_digits("test")


def trained(table, folder, perturb):
    stage = StageConfig(
        tasks={"labels": TaskConfig(task="labels")},
        epochs=2,
        batch_size=50,
        optimizer="sgd",
        schedule="triangle",
        learning_rate=0.1,
        precision="bf16",
        perturb=perturb,
        threat=LINF,
    )
    trunk = {"name": "convnet", "stem": "strided", "widths": [8, 16, 32]}
    return train(RunConfig(data="digits", stages=(stage,), trunk=trunk), table, folder).network.eval()


@pytest.fixture(scope="module")
def network(digits, tmp_path_factory):
    """A small network trained on the digits."""
    return trained(digits[0], tmp_path_factory.mktemp("normal") / "run", None)


@pytest.fixture(scope="module")
def whole_digits():
    """The digits at twice that size, where a robust network leaves the strong attacks a margin."""
    return open_table("digits", "train"), open_table("digits", "test")


@pytest.fixture(scope="module")
def robust(whole_digits, tmp_path_factory):
    """The same, trained on perturbed digits."""
    perturb = "fgsm:random_start=true,step_size=0.125"
    return trained(whole_digits[0], tmp_path_factory.mktemp("robust") / "run", perturb)


@pytest.fixture
def systems(digits, network, whole_digits, robust):
    """Networks by name, each with the digits that it is attacked on."""
    return {"network": (network, digits), "robust": (robust, whole_digits)}


def run(network, digits, attack, threat=LINF):
    attack = make_attack(attack, threat) if isinstance(attack, str) else attack
    return binarization_test(network, digits[1], attack, images=IMAGES, inner=INNER)


CASES = [("network", LINF), ("robust", LINF), ("network", L2), ("robust", L1)]


@pytest.mark.parametrize(
    ("which", "threat", "attack"), [(*case, "pgd-50") for case in CASES] + [("network", LINF, "apgd-ce")]
)
def test_strong_attacks_pass(systems, which, threat, attack):
    result = run(*systems[which], attack, threat)
    assert result.passed, result.text
    assert result.success >= 0.95
    assert (result.images, result.dropped) == (IMAGES, 0)
    assert result.random_success == 0
    assert "passed" in result.text


@pytest.mark.parametrize(("which", "threat"), CASES)
def test_fgsm_fails(systems, which, threat):
    result = run(*systems[which], "fgsm", threat)
    assert not result.passed
    assert result.high < 0.95
    assert "FAILED" in result.text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Around:
    """Runs an engine on an objective that was tampered with, and claims a threat model for it."""

    engine: object
    threat: ThreatModel
    change: object

    def run(self, problem):
        return self.engine.run(dataclasses.replace(problem, objective=self.change(problem.objective)))


def attack_with(engine):
    return CustomAttack(engine.threat, label="broken", components=(Part(name="broken", engine=engine),))


def broken(threat=LINF, change=lambda objective: objective, uphill=True, ball=None):
    """PGD-50, but for what is said; ``ball`` is what it projects to."""
    sound = make_attack("pgd-50", threat)
    engine = dataclasses.replace(sound.engine, uphill=uphill, threat=ThreatModel.parse(ball or threat))
    return attack_with(Around(engine=engine, threat=sound.threat, change=change))


def relabelled(objective):
    return LabelLoss(objective.model, 1 - objective.labels, by_row=True)


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (broken(uphill=False), "found 0 of"),
        (broken(change=relabelled), "found 0 of"),
        (broken(), "passed"),
    ],
    ids=["wrong sign", "wrong labels", "sound"],
)
def test_broken_attacks_fail(network, digits, attack, told):
    result = run(network, digits, attack)
    assert told in result.text
    assert result.passed == (told == "passed")


def test_an_attack_that_does_not_project_fails_and_is_told_so(network, digits):
    result = run(network, digits, broken(ball="linf:1"))
    assert not result.passed
    assert result.success == 0
    assert f"left {LINF} or the box" in result.text


class Claims:
    """An engine that claims success everywhere and gives what it was told to."""

    def __init__(self, threat, give):
        self.threat = ThreatModel.parse(threat)
        self.give = give

    def run(self, problem):
        images = problem.images
        everywhere = torch.ones(len(images), dtype=torch.bool)
        return Perturbed(
            images=self.give(images),
            losses=everywhere.float(),
            fooled=everywhere,
            zero_gradient=~everywhere,
            model_images=1,
        )


def test_the_attacks_own_word_counts_for_nothing():
    result = binarization_test(make_network(), make_table(12), attack_with(Claims(LINF, torch.clone)), inner=10)
    assert (result.success, result.images) == (0, 12)


class Features(nn.Module):
    """A foreign classifier that names its features."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, images):
        return self.features(images).flatten(1)[:, :4]


def test_a_foreign_classifier_needs_no_more_than_features():
    network = Features(nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Tanh()))
    result = binarization_test(network, make_table(8), make_attack("pgd-50", LINF), inner=20)
    assert result.passed
    assert result.images == 8


def test_a_model_without_features_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(SpecError, match=r"--features MODULE\.PATH"):
        binarization_test(model, make_table(4), make_attack("fgsm", LINF))


def test_what_random_search_solves_says_nothing():
    one_pixel = Features(lambda images: images[:, :1, 8, 8])
    result = binarization_test(one_pixel, make_table(20), make_attack("pgd-50", LINF), inner=20)
    assert result.random_success > 0.9
    assert not result.passed
    assert "void: random search" in result.text


def test_features_that_do_not_vary_separate_nothing():
    constant = Features(lambda images: images.flatten(1)[:, :3] * 0 + 1)
    result = binarization_test(constant, make_table(6), make_attack("pgd-50", LINF), inner=5)
    assert (result.images, result.dropped, result.passed) == (0, 6, False)
    assert "void: no head separates" in result.text
    for threat in (LINF, L2):
        still = make_attack("fgsm", ThreatModel(threat.partition(":")[0], 0.0))
        assert binarization_test(make_network(), make_table(6), still, inner=5).dropped == 6


def test_an_attack_on_shattered_gradients_is_too_weak(network, whole_digits):
    """The examples are there, as the test above shows; without a gradient nothing leads to them."""
    shattered = Features(lambda images: network.features((images * 63).round() / 63))
    result = run(shattered, whole_digits, "pgd-50")
    assert result.images > IMAGES / 2
    assert result.success < 0.2
    assert not result.passed


def test_nothing_depends_on_batch_mates(digits, monkeypatch):
    network, table = make_network(), digits[1]

    def results():
        done = []
        result = binarization_test(
            network, table, make_attack("pgd-10", LINF), images=16, inner=10, progress=lambda *at: done.append(at)
        )
        return result, done

    whole, _ = results()
    monkeypatch.setattr(importlib.import_module("unfool.evaluation.reliability.binarization_test"), "BATCH_SIZE", 7)
    split, done = results()
    assert done == [("binarization test of pgd-10", count, 16) for count in (7, 14, 16)]
    assert 0 < whole.success < 1
    assert split.success == whole.success
    assert split.cost.model_images == whole.cost.model_images


def test_the_model_is_given_back_as_it_was():
    network = make_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    binarization_test(network, make_table(6), make_attack("pgd-3", LINF), inner=5)
    assert network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_result_is_json():
    result = binarization_test(make_network(), make_table(9), make_attack("fgsm", LINF), images=7, inner=5)
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert told["images"] + told["dropped"] == 7
    assert told["low"] <= told["success"] <= told["high"]
    assert set(told) == {field.name for field in dataclasses.fields(result)}
    assert told["cost"]["model_images"] > 7 * 5


def test_bad_counts_and_empty_tables_are_refused():
    attack = make_attack("fgsm", LINF)
    with pytest.raises(SpecError, match="inner 0 are not allowed"):
        binarization_test(make_network(), make_table(4), attack, inner=0)
    with pytest.raises(DataError, match="no images"):
        binarization_test(make_network(), make_table(4).subset(torch.arange(0)), attack)
