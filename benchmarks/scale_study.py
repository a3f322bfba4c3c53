"""A study of 48 small pieces, for ``scale.py``: eight networks, each evaluated clean and under four attacks."""

import os
from typing import ClassVar

from unfool import Linf
from unfool.attacks import PGD
from unfool.studies import Study
from unfool.studies.framework import Attacked, Clean, Examples, Images, NetworkSpec
from unfool.training import RunConfig, StageConfig, TaskConfig


class ManySmall(Study):
    """Eight seeds of one network on the digits."""

    name, title = "many-small", "What forty-eight small pieces take"
    scales: ClassVar[dict[str, int]] = {"small": int(os.environ.get("SCALE_STEPS", "300"))}

    def networks(self, steps):
        stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=steps, batch_size=64)
        for seed in range(8):
            config = RunConfig(data="digits", trunk="convnet:widths=8-16-32", stages=(stage,), seed=seed)
            yield NetworkSpec(key={"model": "small", "seed": seed}, config=config)

    def measurements(self, steps, networks):
        images = Images(data="digits").sample(300)
        for network in networks:
            yield Clean(system=network, images=images)
            for count in (10, 20, 40, 60):
                examples = Examples(network=network, attack=PGD(Linf(8 / 255), steps=count), images=images)
                yield Attacked(system=network, examples=examples)
