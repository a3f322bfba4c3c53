"""Lean sees through what masks a gradient: it finds the part, passes the gradient straight through it, and says so."""

import sys
from pathlib import Path

import pytest

from unfool import Linf, attacks, classify, craft
from unfool.data.table import Table

sys.path.append(str(Path(__file__).parents[2] / "models" / "surrogates"))
from masking_layers import SteppedSparse, images, network

THREAT = Linf(0.012)
FEW = {"steps": 8, "queries": 10}


def table_of(model, count=32):
    """Random images with the model's own classes."""
    return Table.from_tensors(images(count), {"label": model(images(count)).argmax(1)})


@pytest.fixture(scope="module")
def honest():
    """An honest network and its accuracy under the lean attack."""
    model = network()
    examples = craft(model, table_of(model), attacks.Lean(THREAT, **FEW))
    return classify(model, examples).accuracy, examples.settings["remark"]


def test_an_honest_network_escalates_to_nothing(honest):
    assert "FAB-T and Square attacked" in honest[1]
    assert "escalated" not in honest[1]


def test_ninety_percent_of_a_planted_gap_are_won_back(honest):
    model = network(SteppedSparse())
    table = table_of(model)
    masked = classify(model, craft(model, table, attacks.APGD(THREAT, steps=20))).accuracy
    examples = craft(model, table, attacks.Lean(THREAT, **FEW))
    seen = classify(model, examples)
    assert seen.protocol == "white-box"
    print(masked, seen.accuracy, honest[0], examples.settings["remark"])
    assert "gradients passed straight through 1 (SteppedSparse) (BPDA)" in examples.settings["remark"]
    assert masked - honest[0] > 0.2
    assert masked - seen.accuracy >= 0.9 * (masked - honest[0])
