"""A study of three seeds of two small networks, the second of which begins with the first's weights."""

from typing import ClassVar

from unfool import Linf
from unfool.attacks import PGD
from unfool.studies import Study
from unfool.studies.framework import Attacked, Clean, Examples, Images, NetworkSpec
from unfool.training import RunConfig, StageConfig, TaskConfig


class Small(Study):
    name, title = "small-study", "Do a second run of steps help?"
    scales: ClassVar[dict[str, int]] = {"tiny": 150}

    def networks(self, steps):
        stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=steps, batch_size=16)
        for seed in (0, 1, 2):
            config = RunConfig(data="digits", trunk="convnet:widths=4-8-8", stages=(stage,), seed=seed)
            first = NetworkSpec(key={"model": "first", "seed": seed}, config=config)
            yield first
            yield NetworkSpec(key={"model": "second", "seed": seed}, config=config, start=first)

    def measurements(self, steps, networks):
        images = Images(data="digits").sample(40)
        for network in networks:
            yield Clean(system=network, images=images)
            examples = Examples(network=network, attack=PGD(Linf(8 / 255), steps=2), images=images, kept=True)
            yield Attacked(system=network, examples=examples)
