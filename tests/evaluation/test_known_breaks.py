"""Published defenses that were broken, at small scale, under the ladder.

Shi et al. (SOAP, ICLR 2021) descend a rotation loss that the network learnt beside its labels; Wu et al. (Hedge
Defense, 2021) climb the cross-entropy to all classes. Both keep examples of an attacker who does not know them.
"""

import pytest
from planted_defenses import small_digits

from unfool import LadderSettings, Linf, ladder, make_defense
from unfool.core.streams import Streams
from unfool.training import RunConfig, StageConfig, TaskConfig, train

SOAP = "reverse:task=rotation,augmentation=none,start=image,keep=best,steps=5,eps={eps}"
HEDGE = "hedge:steps=8,eps={eps}"


def joint(epochs, folder):
    """A network of digits and rotations, learnt together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(folder / "cache"))
        tasks = {"labels": TaskConfig(task="labels"), "rotation": TaskConfig(task="rotation", weight=0.5)}
        stage = StageConfig(
            tasks=tasks, epochs=epochs, learning_rate=0.1, batch_size=32, optimizer="sgd", schedule="triangle"
        )
        trunk = {"name": "convnet", "stem": "strided", "widths": [8, 16, 24]}
        config = RunConfig(data="digits", trunk=trunk, stages=(stage,), classifier="labels")
        return train(config, small_digits("train"), folder / "both").network.eval()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return joint(4, tmp_path_factory.mktemp("short"))


def climbed(network, text, rungs, eps=0.03):
    few = small_digits("test").sample(60, Streams(0))
    settings = LadderSettings(threat=Linf(eps), steps=10, draws=2)
    result = ladder(make_defense(text.format(eps=eps), network), few, "pgd-20", settings=settings, rungs=rungs)
    bare, replayed = (result.records[key].accuracy for key in "ab")
    assert bare < result.clean[1].accuracy - 0.2
    assert replayed > bare + 0.05, "it keeps some examples that were made without it"
    return bare, replayed, result


def test_a_rotation_reversal_as_in_soap_ends_at_or_below_its_network(network):
    """In a ball in which the network keeps next to nothing, as that of the paper did."""
    bare, replayed, result = climbed(network, SOAP, "bc", eps=0.08)
    assert replayed > bare + 0.15
    assert result.worst.accuracy <= bare
    assert result.verdict != "helps"


def test_a_rotation_reversal_loses_half_of_its_gain_where_the_network_keeps_much(tmp_path):
    bare, replayed, result = climbed(joint(8, tmp_path), SOAP, "bc")
    assert bare > 0.3
    assert result.worst.accuracy - bare <= (replayed - bare) / 2


def test_hedging_loses_nearly_all_that_it_keeps_of_replayed_examples(network):
    bare, replayed, result = climbed(network, HEDGE, "ch")
    assert result.worst.accuracy - bare <= (replayed - bare) / 4
    assert result.verdict != "helps"
    highest = result.records["h"]
    assert highest.accuracy < result.records["c"].accuracy
    assert highest.fooled_by["from highest margins"] > highest.fooled_by["random start 1"]
