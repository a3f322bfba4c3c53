"""A model with a batch size of its own is never given a single image that would be without mates."""

import pytest
import torch
from tiny_systems import HEADS, make_network, make_table
from torch import nn

from unfool import LadderSettings, Linf, audit, classify, craft, ladder, make_defense
from unfool.evaluation.crafting.batches import spans_for


class Mates(nn.Module):
    own_batch_size = 4

    def forward(self, images):
        assert len(images) > 1
        return images.mean((2, 3))


def test_an_image_left_over_joins_the_batch_before_it():
    model = Mates()
    assert [(span.start, span.stop) for span in spans_for(model, 9, 2)] == [(0, 4), (4, 9)]
    assert [(span.start, span.stop) for span in spans_for(nn.Identity(), 5, 2)] == [(0, 2), (2, 4), (4, 5)]
    table = make_table(9, classes=3)
    examples = craft(model, table, "square-5")
    assert classify(model, examples).count == 9
    standing = int((examples.fooled_by_part < 0).sum())
    assert 0 < standing < 9


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_an_audit_of_in_batch_negatives_takes_any_number_of_images():
    network = make_network(heads={**HEADS, "contrast": {"kind": "mlp", "hidden": 8, "outputs": 16}})
    table = make_table(9)
    defense = make_defense("reverse:task=contrast,size=16,hidden=8,steps=1,negatives=batch,batch_size=8", network)
    examples = craft(network, table, "fgsm", threat="linf:0.01")
    assert audit(defense, table, examples).attack == "fgsm"


def test_the_last_image_that_an_attack_has_left_gets_a_mate():
    images = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = images.mean((2, 3)).argmax(1)
    labels[:3] = (labels[:3] + 1) % 3  # wrong as they are
    examples = craft(Mates(), (images, labels), "square-5", threat="linf:0.001")
    assert (examples.fooled_by_part < 0).all()
    assert classify(Mates(), examples).correct == [False, False, False, True]


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_so_does_the_last_that_the_passes_through_a_defense_have_left():
    network = make_network(heads={**HEADS, "contrast": {"kind": "mlp", "hidden": 8, "outputs": 16}})
    defense = make_defense("reverse:task=contrast,size=16,hidden=8,steps=1,negatives=batch,batch_size=4", network)
    images = make_table(4).batch().images
    labels = defense(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4  # wrong as they are
    few = LadderSettings(threat=Linf(0.001), steps=2, queries=3, draws=2, targets=1, lambdas=(1.0,), images=4)
    rungs = ladder(defense, (images, labels), "fgsm", settings=few, rungs="abcf").rungs
    assert {"b", "c", "f"} <= set(rungs)
