"""Who was attacked and who is judged decide what a result is called; nobody can call it otherwise."""

import dataclasses

import pytest
import torch

from unfool.attacks import ProxySettings, make_attack
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.evaluation import classify, craft
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec


def make_network(seed):
    return Network.build(
        TrunkSpec(name="convnet", widths=(3, 4, 6)),
        {"labels": {"kind": "linear", "outputs": 3}},
        classifier="labels",
        normalisation="none",
        streams=Streams(seed),
    )


def make_table(count=12):
    ids = torch.arange(count) + 40
    pixels = (Streams(0).uniform(ids, (3, 12, 12)) * 255).to(torch.uint8)
    labels, names = {"label": ids % 3}, {"label": ["a", "b", "c"]}
    return Table(DecodedPixels(pixels), ids, labels, names, label_column="label", name="noise", split="test")


@pytest.mark.parametrize("proxy", [None, ProxySettings(dtype="bf16")])
def test_only_the_system_that_was_attacked_is_judged_white_box(proxy):
    source, other, table = make_network(0), make_network(1), make_table()
    examples = craft(source, table, make_attack("pgd-2", "linf:8/255"), proxy=proxy)
    assert classify(source, examples).protocol == "white-box"
    assert classify(source, examples).row("model").protocol == "white-box"
    assert classify(other, examples).protocol == "transfer"
    assert classify(other, examples).row("model").protocol == "transfer"
    assert classify(source, table).protocol == "clean"


def test_one_changed_number_makes_it_transfer():
    network, table = make_network(0), make_table()
    examples = craft(network, table, make_attack("fgsm", "linf:8/255"))
    with torch.no_grad():
        next(buffer for name, buffer in network.named_buffers() if name.endswith("running_var"))[0] += 1e-6
    records = classify(network, examples)
    assert records.protocol == "transfer"
    with pytest.raises((AttributeError, TypeError)):
        dataclasses.replace(records, protocol="white-box")
