"""A study of its own: does adversarial training hold against a black-box search, on the stripes of another plugin?"""

from unfool.attacks import make_attack
from unfool.core.config import configured
from unfool.studies.framework import (
    STUDIES,
    Above,
    Attacked,
    Claim,
    Clean,
    Difference,
    Examples,
    Images,
    NetworkSpec,
    Study,
)
from unfool.training import RunConfig, StageConfig, TaskConfig

SETTINGS = {"normal": {}, "hardened": {"perturb": "pgd-2", "threat": "linf:16/255"}}


@configured
class Scale:
    """How long the networks are trained."""

    epochs: int


@STUDIES.add("hardened-stripes")
class HardenedStripes(Study[Scale]):
    """Two networks of the plugged-in trunk, one of them trained on perturbed images."""

    name = "hardened-stripes"
    title = "Stripes under random signs"
    scales = {"tiny": Scale(epochs=3)}  # noqa: RUF012

    def networks(self, scale):
        return [self.network(scale, model) for model in SETTINGS]

    def network(self, scale, model):
        labels = {"labels": TaskConfig(task="labels")}
        stage = StageConfig(tasks=labels, epochs=scale.epochs, learning_rate=0.02, **SETTINGS[model])
        config = RunConfig(data="stripes", stages=(stage,), trunk={"name": "patches", "side": 8})
        return NetworkSpec(key={"data": "stripes", "model": model}, config=config)

    def measurements(self, scale, networks):
        images, attack = Images(data="stripes").sample(48), make_attack("random-signs-5", "linf:16/255")
        attacked = [
            Attacked(system=network, examples=Examples(network=network, attack=attack, images=images))
            for network in networks
        ]
        return [*(Clean(system=network, images=images) for network in networks), *attacked]

    def claims(self, scale):
        under = {"attack": "random-signs-5"}
        evidence = Difference(a={"model": "hardened"}, b={"model": "normal"}, under=under)
        text = "Adversarial training helps against random signs"
        return [Claim(id="helps", text=text, evidence=evidence, rule=Above(0))]
