"""The reliability report: planted defenses are caught and broken, honest networks raise nothing."""

import copy
import dataclasses
import json
from typing import Any

import planted_defenses as planted
import pytest
import torch
from planted_defenses import convnet, fit, perceptron, small_digits

from unfool.attacks import make_attack
from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.evaluation import classify, craft, wilson
from unfool.evaluation.reliability.model_checks import Subject, train_mode
from unfool.evaluation.reliability.report import reliability
from unfool.evaluation.results.reliability import ATTACK_CHECKS, MODEL_CHECKS
from unfool.models.foreign import adapt

THREAT = "linf:0.15"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(table to train on, table to attack)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("UNFOOL_DATA_DIR", raising=False)
        return small_digits("train"), small_digits("test")


@pytest.fixture(scope="module")
def network(digits):
    """A normally trained convnet, 98 % clean, which PGD-50 fools on every image."""
    return fit(convnet(), digits[0], epochs=4, rate=0.02)


@pytest.fixture(scope="module")
def robust(digits):
    """An adversarially trained one, 97 % clean and over half under attack."""
    return fit(convnet(1), digits[0], epochs=5, rate=0.02, attack=make_attack("pgd-3:goal=last", "linf:0.1"))


@pytest.fixture(scope="module")
def quick(digits):
    """A perceptron on unnormalised images, 96 % clean and over half under attack at 0.05."""
    return fit(perceptron(), digits[0], epochs=20, rate=0.003)


@pytest.fixture(scope="module")
def attacked(digits, network):
    """48 images that the undefended network classifies correctly."""
    correct = classify(network, digits[1]).correct
    return digits[1].subset(torch.tensor(correct)).sample(48, Streams(0))


@pytest.fixture(scope="module")
def transferred(network, attacked):
    """Adversarial examples of the undefended network."""
    return craft(network, attacked, make_attack("pgd-50:goal=best", THREAT))


@pytest.fixture(autouse=True)
def _draws():
    """Random defenses draw from the global state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def names(found):
    return {flag.name for flag in found.flags}


def flag_of(found, name):
    return next(flag for flag in found.flags if flag.name == name)


# The planted and the honest

PLANTED = {
    "a quantiser": (planted.Quantiser, "vanishing-gradients", "square-500", None),
    "a softmax with temperature 1000": (planted.Sharpened, "vanishing-gradients", "cw-pgd-50", None),
    "dropout left on": (planted.DropoutLeftOn, "randomised-output", "autoattack:version=rand,steps=20,draws=8", None),
    "random resizing": (planted.RandomResizing, "randomised-output", "cw-pgd-20:goal=best", 8),
    "a gradient-shattering layer": (planted.Staircase, "black-box-wins", "transfer", None),
    "a batch-dependent model": (planted.BatchDependent, "batch-dependence", "cw-pgd-50", None),
    "probabilities for logits": (planted.Probabilities, "probabilities", "cw-pgd-50", None),
}


@pytest.mark.parametrize(("defense", "name", "breaker", "draws"), PLANTED.values(), ids=PLANTED)
def test_a_planted_defense_is_caught_and_broken(network, attacked, transferred, defense, name, breaker, draws):
    model = defense(network)
    # Small batches, since a random defense may draw once for a whole one.
    assert classify(model, attacked, batch_size=6).accuracy > 0.85
    found = reliability(model, attacked, threat=THREAT)
    assert name in names(found)
    assert not found.trustworthy
    undefended = classify(network, transferred).correct
    if breaker == "transfer":
        examples = transferred
    else:
        attack = make_attack(breaker, THREAT)
        examples = craft(model, attacked, dataclasses.replace(attack, eot_draws=draws) if draws else attack)
    broken = classify(model, examples, batch_size=6)
    assert broken.protocol == ("transfer" if breaker == "transfer" else "white-box")
    assert broken.accuracy <= wilson(sum(undefended), len(undefended))[1]


def test_an_honest_convnet_raises_no_flag(digits, network):
    for threat in ("linf:0.05", "l2:1"):
        found = reliability(network, digits[1], threat=threat, attacks=[make_attack("pgd-20", threat)])
        assert found.flags == []
        assert found.trustworthy


def test_an_adversarially_trained_one_raises_no_flag_however_it_is_evaluated(digits, robust):
    some = digits[1].sample(120, Streams(3))
    pgd, square = (make_attack(text, "linf:0.1") for text in ("pgd-20", "square-300"))
    sets = [craft(robust, some, pgd), craft(robust, some, square), craft(convnet(5).eval(), some, pgd)]
    records = [classify(robust, examples) for examples in sets[:2]] + [classify(robust, some)]
    assert 0.3 < records[0].accuracy < 0.8
    found = reliability(robust, some, threat="linf:0.1", attacks=[pgd, square], records=records, sets=sets)
    assert found.flags == []
    assert {*found.checked} == {*MODEL_CHECKS, *ATTACK_CHECKS} - {"missing-normalisation"}


def test_a_foreign_network_without_normalisation_raises_no_flag(digits, quick):
    found = reliability(quick, digits[1], threat="linf:0.05", attacks=[make_attack("apgd-ce:steps=20", "linf:0.05")])
    assert found.flags == []
    assert {*found.checked} == {*MODEL_CHECKS, *ATTACK_CHECKS} - {"transfer-wins"}


# The checks, one by one


def test_a_model_left_in_train_mode_is_named_and_left_so(network, attacked):
    model = copy.deepcopy(network)
    model.trunk.parts["block2"].train()
    found = reliability(model, attacked, threat=THREAT, images=8)
    assert "trunk.parts.block2" in flag_of(found, "train-mode").text
    assert [part.training for part in model.modules()].count(True) == len([*model.trunk.parts["block2"].modules()])


def test_train_mode_is_named_only_where_it_changes_something(network):
    class Own(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.dropout(x, training=self.training)

    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LayerNorm(9))
    assert train_mode(adapt(plain.train())) is None
    for part in (torch.nn.BatchNorm2d(4), torch.nn.Dropout(), Own()):
        assert train_mode(torch.nn.Sequential(plain, part).train()).name == "train-mode"
        assert train_mode(torch.nn.Sequential(plain.train(), part.eval())) is None


ASKING = [planted.by_grad, planted.by_backward, planted.by_autograd_backward, planted.by_functional]


@pytest.mark.parametrize("ask", ASKING)
def test_inference_that_takes_gradients_is_dynamic(network, attacked, ask):
    found = reliability(planted.Dynamic(network, ask), attacked, threat=THREAT, images=8)
    assert names(found) == {"dynamic-inference", "not-checked"}


def test_a_missing_normalisation_is_found_and_named(digits, network):
    bare = copy.deepcopy(network)
    bare.mean.zero_()
    bare.std.fill_(1.0)
    flag = flag_of(reliability(bare, digits[1], threat=THREAT, images=32), "missing-normalisation")
    assert "--mean cifar10 --std cifar10" in flag.text
    clean = classify(bare, digits[1]).accuracy, classify(network, digits[1]).accuracy
    assert flag.share == pytest.approx(clean[1] - clean[0], abs=0.1)
    for whole in (network, adapt(bare, "cifar10", "cifar10")):
        found = reliability(whole, digits[1], threat=THREAT, images=8)
        assert "missing-normalisation" not in names(found) | {*found.checked}


def test_a_model_that_refuses_normalised_images_misses_no_normalisation(digits):
    class Guarded(planted.Planted):
        def forward(self, images):
            if images.min() < 0:
                raise RuntimeError("these are no images")
            return self.network(images)

    found = reliability(Guarded(perceptron().eval()), digits[1], threat=THREAT, images=16)
    assert "missing-normalisation" in found.checked
    assert "missing-normalisation" not in names(found)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("pgd-3", True),
        ("pgd-4", False),
        ("pgd-10:step_size=0.015", False),
        ("fgsm", False),
        ("fgsm:step_size=0.1", True),
    ],
)
def test_steps_that_cannot_cross_the_ball_are_told(network, attacked, text, short):
    found = reliability(network, attacked, threat=THREAT, images=8, attacks=[make_attack(text, THREAT)])
    assert ("short-steps" in names(found)) == short


def test_a_batch_position_that_matters_is_random_output(attacked, network):
    class Numbered(planted.Planted):
        def forward(self, images):
            return self.network(images) + torch.linspace(0, 1, len(images))[:, None] * torch.arange(10)

    assert "randomised-output" in names(reliability(Numbered(network), attacked, threat=THREAT, images=8))


def test_mates_that_only_a_padded_batch_has_are_tried(attacked, network):
    class Padded(planted.Planted):
        def forward(self, images):
            black = (images.flatten(1).amax(1) == 0).any()
            return self.network(images) + black * torch.arange(10)

    found = reliability(Padded(network), attacked, threat=THREAT, images=8)
    assert names(found) == {"batch-dependence", "not-checked"}
    assert len(flag_of(found, "batch-dependence").images) == 8


def test_a_model_that_fails_on_a_single_image_depends_on_its_batch(attacked, network):
    class Squeezed(planted.Planted):
        def forward(self, images):
            return self.network(images).squeeze()

    flag = flag_of(reliability(Squeezed(network), attacked, threat=THREAT, images=8), "batch-dependence")
    assert "fails on a single image (ImagesError)" in flag.text


def test_rounding_is_no_change_in_the_precision_that_a_model_computes_in(network, attacked):
    batch = attacked.batch()
    whole = Subject(network, batch.images, batch.labels("label"), batch.ids)
    half = Subject(copy.deepcopy(network).bfloat16(), batch.images, batch.labels("label"), batch.ids)
    logits = whole.logits(batch.images)
    for subject, same, other in ((whole, 2e-5, 1e-3), (half, 0.01, 0.1)):
        largest = logits.abs().amax(1, keepdim=True) == logits.abs().max()
        assert not subject.changed(logits, logits + same * logits.abs().max()).any()
        assert subject.changed(logits, logits + largest * other * logits.abs().max()).sum() == largest.sum()


# What attacks reveal


def test_more_steps_are_tried_on_the_attack_in_use(digits, robust):
    def found(*texts):
        attacks = [make_attack(text, "linf:0.1") for text in texts]
        return names(reliability(robust, digits[1], threat="linf:0.1", attacks=attacks, images=48))

    assert found("pgd-1:step_size=0.1") == {"more-steps-win"}
    assert found("pgd-1:step_size=0.1", "apgd-ce:steps=20") == set()


def test_wins_of_examples_from_elsewhere_are_listed_by_origin(digits, quick):
    model, some = planted.Staircase(quick), digits[1].sample(100, Streams(4))
    transferred = craft(quick, some, make_attack("pgd-50:goal=best", THREAT))
    judged = classify(model, transferred)
    name = f"pgd-50 from {transferred.crafted_on}"
    fooled = {number for number, correct in zip(judged.ids, judged.correct, strict=True) if not correct}
    # From a set, and the same from its records; but the set of another threat model says nothing.
    other = dataclasses.replace(transferred, threat="linf:0.2")
    pasts: tuple[dict[str, Any], ...] = ({"sets": [transferred, other]}, {"records": [judged], "sets": [other]})
    for past in pasts:
        found = reliability(model, some, threat=THREAT, images=20, **past)
        flag = flag_of(found, "transfer-wins")
        assert set(flag.images) == set(found.missed_by_gradients[name]) <= fooled
        # No gradient attack fools this model, so nearly all that are compared are wins.
        assert 18 <= len(flag.images) <= 20
        assert flag.share == len(flag.images) / 20
    assert "transfer-wins" not in reliability(model, some, threat=THREAT, images=20, sets=[other]).checked


def test_in_l0_a_search_without_gradients_shows_that_they_mislead(network, attacked):
    found = reliability(planted.Staircase(network), attacked, threat="l0:12", images=16)
    assert "black-box-wins" in names(found)
    assert "not-checked" not in names(found)
    honest = reliability(network, attacked, threat="l0:12", images=16)
    assert "black-box-wins" in honest.checked
    assert "black-box-wins" not in names(honest)


def test_wins_inside_an_ensemble_are_read_from_its_set(digits, quick):
    """Two parts on 100 images: what the second, a random search, fooled after the first is a win of Square."""
    some = digits[1].sample(100, Streams(4))
    examples = craft(quick, some, make_attack("pgd-20", "linf:0.05"))
    stood = (examples.fooled_by_part < 0).nonzero().squeeze(1)
    by = examples.fooled_by_part.clone()
    by[stood[:5]] = 1
    two = dataclasses.replace(
        examples,
        fooled_by_part=by,
        parts=["apgd-ce", "square"],
        follows_gradients=[True, False],
        attack="autoattack",
    )
    found = reliability(quick, some, threat="linf:0.05", sets=[two], images=32)
    assert set(found.missed_by_gradients["square"]) <= set(some.ids[stood[:5]].tolist())
    assert len(found.missed_by_gradients["square"]) >= 3
    assert "black-box-wins" in names(found)


def test_images_that_a_set_found_without_gradient_are_flagged(digits, quick):
    some = digits[1].sample(100, Streams(4))
    examples = craft(quick, some, make_attack("pgd-20", "linf:0.05"))
    stood = (examples.fooled_by_part < 0).nonzero().squeeze(1)[:6]
    flat = torch.zeros(100, dtype=torch.bool)
    flat[stood] = True
    found = reliability(
        quick, some, threat="linf:0.05", sets=[dataclasses.replace(examples, zero_gradient=flat)], images=32
    )
    assert names(found) == {"vanishing-gradients"}
    assert set(found.flags[0].images) <= set(some.ids[stood].tolist())


def test_a_model_that_counts_as_it_runs_is_itself_in_the_report(digits, quick):
    class Counting(planted.Planted):
        def forward(self, images):
            self.calls = getattr(self, "calls", 0) + 1
            return self.network(images)

    model, some = Counting(quick), digits[1].sample(40, Streams(0))
    examples = craft(model, some, make_attack("pgd-20", "linf:0.05"))
    found = reliability(model, some, threat="linf:0.05", records=[classify(model, examples)], sets=[examples])
    assert found.flags == []
    assert classify(model, examples).protocol == "white-box"
    assert "transfer-wins" not in found.checked


# What cannot be computed, what is refused, and what it leaves behind


def test_every_check_is_either_run_or_told(network, attacked):
    found = reliability(planted.DropoutLeftOn(network), attacked, threat=THREAT)
    assert "batch-dependence" in flag_of(found, "not-checked").text
    assert "batch-dependence" not in found.checked
    assert {*found.checked} == {*MODEL_CHECKS, *ATTACK_CHECKS} - {
        "batch-dependence",
        "missing-normalisation",
        "transfer-wins",
        "wrong-gradients",
    }


def test_the_same_seed_gives_the_same_report_and_the_model_is_left_as_it_was(quick, attacked):
    model = torch.nn.Sequential(copy.deepcopy(quick), torch.nn.Dropout()).train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    told = []
    with torch.inference_mode():
        found = reliability(
            model, attacked, threat="linf:0.03", images=16, progress=lambda what, *done: told.append(done)
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(part.training for part in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert all(done <= total for done, total in told)
    again = reliability(model, attacked, threat=ThreatModel("linf", 0.03), images=16)
    one, two = json.loads(json.dumps(found.to_json())), json.loads(json.dumps(again.to_json()))
    assert one["cost"].pop("cpu_seconds") >= 0
    two["cost"].pop("cpu_seconds")
    assert one == two
    assert one["trustworthy"] is False
    assert [flag["name"] for flag in one["flags"]] == ["train-mode"]
    assert one["images"] == 16
    assert one["cost"]["model_images"] > 16


def test_bad_requests_are_refused(network, attacked):
    with pytest.raises(SpecError, match="0 images"):
        reliability(network, attacked, threat=THREAT, images=0)
    with pytest.raises(DataError, match="no images"):
        reliability(network, attacked.subset(torch.arange(0)), threat=THREAT)
    with pytest.raises(SpecError, match="did you mean"):
        reliability(network, attacked, threat=THREAT, column="labell")
    broken = copy.deepcopy(network)
    broken.heads["labels"][0].bias.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        reliability(broken, attacked, threat=THREAT)
