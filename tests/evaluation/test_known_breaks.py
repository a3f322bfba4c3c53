"""Published defenses that were broken, at small scale: the ladder breaks them too.

Shi et al. (SOAP, ICLR 2021) descend a rotation loss that the network learnt beside its labels; Wu et al. (Hedge
Defense, 2021) climb the cross-entropy to all classes. Both keep examples of an attacker who does not know them; Croce
et al. (ICML 2022) found neither better than its network.
"""

import pytest
from planted_defenses import small_digits

from unfool import LadderSettings, Linf, ladder, make_defense
from unfool.core.streams import Streams
from unfool.training import RunConfig, StageConfig, TaskConfig, train

THREAT = Linf(0.06)
DEFENSES = {
    "rotation reversed as SOAP does": "reverse:task=rotation,augmentation=none,start=image,keep=best,steps=5,eps=0.06",
    "hedged": "hedge:steps=8,eps=0.06",
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Digits and rotations, learnt together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        tasks = {"labels": TaskConfig(task="labels"), "rotation": TaskConfig(task="rotation", weight=0.5)}
        stage = StageConfig(tasks=tasks, epochs=5, learning_rate=0.01, batch_size=32)
        trunk = {"name": "convnet", "stem": "strided", "widths": [8, 16, 24]}
        config = RunConfig(data="digits", trunk=trunk, stages=(stage,), classifier="labels")
        return train(config, small_digits("train"), tmp_path_factory.mktemp("runs") / "both").network.eval()


@pytest.mark.parametrize("name", DEFENSES)
def test_a_broken_defense_ends_at_or_below_its_network(network, name):
    defense = make_defense(DEFENSES[name], network)
    few = small_digits("test").sample(80, Streams(0))
    settings = LadderSettings(threat=THREAT, steps=10, draws=2)
    result = ladder(defense, few, "pgd-20", settings=settings, rungs="bcf")
    bare = result.records["a"].accuracy
    assert 0.1 < bare < result.clean[1].accuracy - 0.2
    assert result.records["b"].accuracy > bare + 0.05, "it keeps some examples that were made without it"
    assert result.worst.accuracy <= bare
    assert result.verdict != "helps"
