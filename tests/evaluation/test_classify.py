"""Crafting and judging: what is recorded is what the model does, and whose examples they were."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_systems import Defended, Gives, make_network, make_table

from unfool.attacks import ProxySettings, make_attack
from unfool.core.errors import DataError, ImagesError, NonFiniteError, SpecError, UnfoolError
from unfool.core.threat import ThreatModel
from unfool.evaluation import classify, craft, identity
from unfool.evaluation.classify import BATCH_SIZE

THREAT = "linf:8/255"


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def examples(network, table):
    return craft(network, table, make_attack("pgd-3", THREAT, {"goal": "last"}), seed=2)


def test_clean_records_are_what_the_network_says(network, table):
    batch = table.batch()
    with torch.no_grad():
        logits = network(batch.images)
    found = classify(network, table)
    labels = table.columns["label"]
    assert found.correct == (logits.argmax(1) == labels).tolist()
    assert found.losses == pytest.approx(F.cross_entropy(logits, labels, reduction="none").tolist(), abs=1e-5)
    assert found.ids == table.ids.tolist()
    assert set(found.distances) == {0.0}
    assert (found.protocol, found.attack, found.crafted_on, found.judged_on) == ("clean", "none", None, None)
    assert (found.data, found.split, found.model_images) == ("made-up", "test", len(table))


def test_crafted_sets_are_within_the_ball_and_say_whose_they_are(network, table, examples):
    threat = ThreatModel.parse(THREAT)
    distances = threat.norm(examples.images - table.batch().images)
    assert torch.allclose(distances, examples.distances)
    assert float(distances.max()) <= threat.eps + 1e-6
    assert float(distances.min()) > 0
    assert examples.crafted_on == identity(network)
    assert (examples.data, examples.split, examples.column, examples.seed) == ("made-up", "test", "label", 2)
    assert examples.labels.tolist() == table.columns["label"].tolist()
    assert examples.ids.tolist() == table.ids.tolist()
    assert (examples.attack, examples.threat, examples.settings["steps"]) == ("pgd-3", THREAT, 3)
    assert examples.model_images == len(table) * 5  # one of them clean: what was wrong before is nobody's success


def test_the_protocol_follows_from_who_was_attacked_and_who_is_judged(network, table, examples):
    assert classify(network, examples).protocol == "white-box"
    assert classify(copy.deepcopy(network).train(), examples).protocol == "white-box"
    for other in (make_network(seed=1), Defended(network), make_network(normalisation="none")):
        found = classify(other, examples)
        assert found.protocol == "transfer"
        assert found.row("any", settings={"protocol": "white-box"}).protocol == "transfer"
        assert found.crafted_on == identity(network) != found.judged_on == identity(other)


def test_a_set_crafted_on_the_bare_network_is_transfer_behind_a_defense_and_the_reverse(network, table):
    defended = Defended(network, steps=2)
    attack = make_attack("fgsm", THREAT)
    assert classify(network, craft(defended, table, attack)).protocol == "transfer"
    assert classify(defended, craft(defended, table, attack)).protocol == "white-box"
    assert classify(Defended(network, steps=5), craft(defended, table, attack)).protocol == "transfer"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_fast_search_keeps_the_identity_of_its_source(network, table, dtype):
    found = classify(network, craft(network, table, make_attack("pgd-4", THREAT), proxy=ProxySettings(dtype=dtype)))
    assert found.protocol == "white-box"
    assert found.crafted_on == identity(network)


@settings(max_examples=30, deadline=None)
@given(seeds=st.tuples(st.integers(0, 3), st.integers(0, 3)), steps=st.tuples(st.integers(1, 2), st.integers(1, 2)))
def test_white_box_means_equal_hashes_and_nothing_else(network, table, examples, seeds, steps):
    crafter, judged = (Defended(make_network(seed), count) for seed, count in zip(seeds, steps, strict=True))
    few = make_table(2)
    found = classify(judged, craft(crafter, few, make_attack("fgsm", THREAT)))
    assert (found.protocol == "white-box") == (seeds[0] == seeds[1] and steps[0] == steps[1])
    assert (found.protocol == "white-box") == (found.crafted_on == found.judged_on)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 1000])
def test_judging_and_crafting_do_not_depend_on_the_batch_size(network, table, examples, batch_size):
    assert batch_size != BATCH_SIZE
    for on in (table, examples):
        found, expected = classify(network, on, batch_size=batch_size), classify(network, on)
        assert found.correct == expected.correct
        assert found.losses == pytest.approx(expected.losses, abs=1e-5)
        assert (found.ids, found.distances) == (expected.ids, expected.distances)
    again = craft(network, table, make_attack("fgsm", THREAT), batch_size=batch_size)
    whole = craft(network, table, make_attack("fgsm", THREAT))
    # A pixel without a gradient to speak of may take either sign.
    assert float(((again.images - whole.images).abs() > 1e-6).float().mean()) < 1e-3
    assert again.model_images == whole.model_images


def test_attacks_lower_the_accuracy_they_are_judged_by(table):
    """The network's own classes as labels: accuracy 1 when clean, and a strong attack on a wide ball ends it."""
    network = make_network()
    own = table.subset(torch.arange(len(table)))
    with torch.no_grad():
        own.columns["label"] = network(own.batch().images).argmax(1)
    assert classify(network, own).accuracy == 1.0
    attacked = classify(network, craft(network, own, make_attack("pgd-10", "linf:0.5")))
    assert attacked.accuracy < 0.5
    assert sum(attacked.losses) > sum(classify(network, own).losses)


def test_judging_leaves_the_model_as_it_was(table, examples):
    network = make_network().train()
    network.trunk.parts["block1"].eval()
    before = copy.deepcopy(network.state_dict())
    modes = [part.training for part in network.modules()]
    state = torch.random.get_rng_state()
    classify(network, table)
    classify(network, examples)
    craft(network, table, make_attack("pgd-2", THREAT))
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_other_label_columns_are_judged_on_request(network, table, examples):
    found = classify(network, table, column="parity")
    assert found.correct == (network(table.batch().images).argmax(1) == table.columns["parity"]).tolist()
    crafted = craft(network, table, make_attack("fgsm", THREAT), column="parity")
    assert crafted.column == "parity"
    assert crafted.labels.tolist() == table.columns["parity"].tolist()
    assert classify(network, crafted, column="parity").correct == classify(network, crafted).correct
    with pytest.raises(DataError, match="parity"):
        classify(network, examples, column="parity")
    with pytest.raises(SpecError, match="did you mean 'parity'"):
        classify(network, table, column="party")


def test_costs_are_counted(network, table, examples):
    found = classify(network, examples)
    assert found.model_images == len(table) + examples.model_images
    assert found.cpu_seconds >= examples.cpu_seconds > 0
    reported = []
    craft(network, table, make_attack("fgsm", THREAT), batch_size=7, progress=lambda *at: reported.append(at))
    assert reported == [("fgsm", done, 20) for done in (0, 7, 14, 20)]


def test_a_network_without_a_gradient_is_flagged(table):
    constant = make_network()
    torch.nn.init.zeros_(constant.heads["labels"][0].weight)
    found = classify(constant, craft(constant, table, make_attack("pgd-3", THREAT)))
    # An image that the constant network gets wrong all the same needs no gradient, and is no reason for doubt.
    assert found.zero_gradient == sum(found.correct) > 0
    assert all(math.isfinite(loss) for loss in found.losses)
    assert classify(make_network(), craft(make_network(), table, make_attack("pgd-3", THREAT))).zero_gradient == 0


# What goes wrong

WRONG_OUTPUTS = {
    "pixels": lambda images: images,
    "one number an image": lambda images: images.flatten(1).sum(1),
    "half the batch": lambda images: images.flatten(1)[::2, :4],
    "too few classes": lambda images: images.flatten(1)[:, :2],
}


@pytest.mark.parametrize("give", WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_outputs_that_are_no_logits_for_these_labels_are_refused(table, give):
    for act in (
        lambda: classify(Gives(give), table),
        lambda: craft(Gives(give), table, make_attack("pgd-2", THREAT)),
    ):
        with pytest.raises(ImagesError) as error:
            act()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "give", [lambda images: (images,), lambda images: images.flatten(1).long(), lambda images: None]
)
def test_outputs_that_are_no_tensor_of_logits_are_refused_by_judge(table, give):
    with pytest.raises(ImagesError, match="not floating logits"):
        classify(Gives(give), table)


def test_labels_below_zero_are_refused(network, table):
    unlabelled = table.subset(torch.arange(4))
    unlabelled.columns["label"] = unlabelled.columns["label"].clone()
    unlabelled.columns["label"][2] = -1
    with pytest.raises(ImagesError, match="label -1"):
        classify(network, unlabelled)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error_and_not_an_accuracy(table, bad):
    broken = Gives(lambda images: images.flatten(1)[:, :4] * bad)
    with pytest.raises(NonFiniteError):
        classify(broken, table)
    with pytest.raises(NonFiniteError):
        craft(broken, table, make_attack("pgd-2", THREAT))


def test_empty_tables_and_batches_are_refused(network, table):
    empty = table.subset(torch.arange(0))
    with pytest.raises(DataError, match="no images"):
        classify(network, empty)
    with pytest.raises(DataError, match="no images"):
        craft(network, empty, make_attack("fgsm", THREAT))
    with pytest.raises(SpecError, match="batch size"):
        classify(network, table, batch_size=0)
    with pytest.raises(UnfoolError):
        classify(network, table, threat="linf:300")
