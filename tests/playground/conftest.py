"""One playground for all tests: two networks of the package on digits, and one that learnt nothing."""

import pytest

from unfool import Network, TrunkSpec, open_run, open_table
from unfool.playground import Playground, PlaygroundSystem


def digits(name: str) -> PlaygroundSystem:
    table = open_table("digits", "test")
    return PlaygroundSystem(
        name=name,
        network=open_run(name).network,
        classes=table.classes["label"],
        shape=table.shape,
        examples=table,
        calibration=open_table("digits", "train"),
    )


def natural() -> PlaygroundSystem:
    trunk = TrunkSpec(name="convnet", widths=(4, 4, 4))
    network = Network.build(trunk, {"labels": {"kind": "linear", "outputs": 3}}, classifier="labels")
    classes = ["cat", "<b>dog</b>", "owl"]
    return PlaygroundSystem(name="natural", network=network.eval(), classes=classes, shape=(3, 32, 32))


@pytest.fixture(scope="session")
def play() -> Playground:
    names = ("zoo:digits", "zoo:digits-robust")
    openers = {name: (lambda name=name: digits(name)) for name in names}
    return Playground({**openers, "natural": natural})
