"""The classifiers of system B, the sets crafted on them, and the defenses around them."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.core.errors import UnfoolWarning
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.evaluation import AdversarialSet
from unfool.studies.recipes import ROBUST
from unfool.studies.reverse_scales import Scale
from unfool.studies.workspace import Workspace
from unfool.training import RunConfig, StageConfig, TaskConfig, TrainedRun, cut_held_out

_STEP_SHARE = 0.25
"""Step size of attacks in eps: the source's 2/255 of 8/255."""


def path_of(base: str) -> str:
    """A base classifier's name as part of a path."""
    return base.replace(" ", "-")


def run_config(settings: Scale, base: str) -> RunConfig:
    """Labels first, under attack or not; then the contrastive head on the frozen trunk."""
    labels = StageConfig(tasks={"labels": TaskConfig(task="labels")}, **_stage(settings, base))
    head = {"contrast": TaskConfig(task="contrast", settings=settings.head)}
    return RunConfig(
        data=settings.data,
        trunk=settings.trunk,
        stages=(labels, StageConfig(tasks=head, **settings.contrast)),
        normalisation="none",
    )


def _stage(settings: Scale, base: str) -> dict[str, Any]:
    return settings.robust if base == ROBUST else settings.normal


def trained(settings: Scale, base: str, work: Workspace) -> TrainedRun:
    """A base classifier with its contrastive head."""
    return work.trained(path_of(base), run_config(settings, base))


def attacked_images(settings: Scale, work: Workspace) -> Table:
    """The test images that are attacked, the same for everyone; smaller draws lie inside larger ones."""
    table = work.table(settings.data, "test")
    return table.sample(min(settings.attacked, len(table)), Streams(0).named("attacked images"))


def crafted(settings: Scale, base: str, norm: str, steps: int, work: Workspace) -> AdversarialSet:
    """PGD on the bare classifier, last iterates, stored."""
    threat = ThreatModel.parse(settings.threats[norm])
    values = {"step_size": _STEP_SHARE * threat.eps, "goal": "last"}
    return work.adversarial(
        f"{path_of(base)}-{norm}",
        trained(settings, base, work),
        attacked_images(settings, work),
        make_attack(f"pgd-{steps}", str(threat), values),
        seed=0,
        proxy=ProxySettings(dtype=settings.precision),
        keep=True,
    )


def reversal(
    settings: Scale, base: str, work: Workspace, norm: str = "linf", gate: bool = False, **other: Any
) -> nn.Module:
    """The reversal around a base classifier, in ``norm`` within twice the attack's budget; ``other`` settings go first.

    Its bank is filled from training images, a gate's threshold and bank from those that the run held out.
    """
    own = {} if "preset" in other else {**_budget(settings, norm), **settings.reversal, **settings.head}
    values = {"precision": settings.precision, **own, **other}
    text = ("gate:" if gate else "reverse:") + ",".join(f"{key}={value}" for key, value in values.items())
    run = trained(settings, base, work)
    learnt, fresh = cut_held_out(run.config, work.table(settings.data, "train"))
    # A gate's threshold needs images that nothing was trained on.
    table = fresh if gate and fresh is not None else learnt
    classes = {column: len(names) for column, names in table.classes.items()}
    with warnings.catch_warnings():
        # That the reference's predictions depend on batch-mates is told on the page.
        warnings.simplefilter("ignore", UnfoolWarning)
        return make_defense(text, run.network, classes, data=table, streams=Streams(0).named("defense"))


def _budget(settings: Scale, norm: str) -> dict[str, Any]:
    """Twice the attack's eps, in steps of a quarter of the attack's, as the reference's 16/255 and 2/255."""
    eps = ThreatModel.parse(settings.threats[norm]).eps
    return {"norm": norm, "eps": 2 * eps, "step_size": _STEP_SHARE * eps}
