"""Published defenses that were broken, at small scale, under the ladder.

Shi et al. (SOAP, ICLR 2021) descend a rotation loss that the network learnt beside its labels; Wu et al. (Hedge
Defense, 2021) climb the cross-entropy to all classes. Both keep examples of an attacker who does not know them.
"""

import pytest
from planted_defenses import small_digits

from unfool import LadderSettings, Linf, ladder, make_defense
from unfool.core.streams import Streams
from unfool.training import RunConfig, StageConfig, TaskConfig, train

SETTINGS = LadderSettings(threat=Linf(0.03), steps=10, draws=2)
SOAP = "reverse:task=rotation,augmentation=none,start=image,keep=best,steps=5,eps=0.03"
HEDGE = "hedge:steps=8,eps=0.03"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Digits and rotations, learnt together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        tasks = {"labels": TaskConfig(task="labels"), "rotation": TaskConfig(task="rotation", weight=0.5)}
        stage = StageConfig(
            tasks=tasks, epochs=8, learning_rate=0.1, batch_size=32, optimizer="sgd", schedule="triangle"
        )
        trunk = {"name": "convnet", "stem": "strided", "widths": [8, 16, 24]}
        config = RunConfig(data="digits", trunk=trunk, stages=(stage,), classifier="labels")
        return train(config, small_digits("train"), tmp_path_factory.mktemp("runs") / "both").network.eval()


def climbed(network, text, rungs):
    few = small_digits("test").sample(60, Streams(0))
    result = ladder(make_defense(text, network), few, "pgd-20", settings=SETTINGS, rungs=rungs)
    bare, replayed = (result.records[key].accuracy for key in "ab")
    assert bare < result.clean[1].accuracy - 0.2
    assert replayed > bare + 0.05, "it keeps some examples that were made without it"
    return bare, replayed, result


def test_a_rotation_reversal_as_in_soap_loses_most_of_what_it_keeps_of_replayed_examples(network):
    bare, replayed, result = climbed(network, SOAP, "bc")
    assert result.worst.accuracy - bare <= (replayed - bare) / 2
    assert result.verdict != "helps"


def test_hedging_loses_nearly_all_that_it_keeps_of_replayed_examples(network):
    bare, replayed, result = climbed(network, HEDGE, "ch")
    assert result.worst.accuracy - bare <= (replayed - bare) / 4
    assert result.verdict != "helps"
    highest = result.records["h"]
    assert highest.accuracy < result.records["c"].accuracy
    assert highest.fooled_by["from highest margins"] > highest.fooled_by["random start 1"]
