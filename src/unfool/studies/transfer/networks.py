"""The networks of system C: pretrained without labels, then fine-tuned on a share of them; and the controls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.studies import framework as fw
from unfool.studies.transfer.scales import (
    COMPARED,
    LEARNS_FROM,
    PERTURBED,
    PRETRAININGS,
    SHARES,
    TASKS_OF,
    Model,
    Plan,
    Scale,
)
from unfool.training import RunConfig, TaskConfig

AS_THEY_ARE, STANDARDISED = "features as they are", "features standardised"
PROBES = (
    *((name, AS_THEY_ARE) for name in (*PRETRAININGS, Model.RANDOM)),
    *((name, STANDARDISED) for name in (Model.SIMCLR, Model.RANDOM)),
)
"""Trunks that are probed, and what the probe reads: random weights gain most from standardised features."""
WORKFLOW = Plan(model=Model.SIMCLR)
"""The source's efficient workflow: SimCLR, then the added layer on FGSM examples of all labelled images."""


def plans(scale: Scale) -> dict[Plan, int]:
    """Every fine-tuned network of the study, and over how many seeds: several where a claim compares it."""
    seeds = {}
    for model, share, images in itertools.product(PRETRAININGS, SHARES, LEARNS_FROM):
        # A figure of the source, or a claim, is about some cells of the grid.
        compared = model == Model.SIMCLR or (share, images) == (COMPARED, PERTURBED)
        seeds[Plan(model=model, share=share, images=images)] = scale.seeds if compared else 1
    for images in LEARNS_FROM:
        seeds[Plan(model=Model.CONTROL, images=images, trainable="all")] = scale.seeds
        for trainable in scale.policies:
            seeds[Plan(model=Model.SIMCLR, share=COMPARED, images=images, trainable=trainable)] = 1
    seeds[Plan(model=Model.ADVERSARIAL, share=COMPARED, trainable="all")] = 1
    seeds[Plan(model=Model.SIMCLR, other=True)] = scale.seeds
    seeds[Plan(model=Model.CONTROL, trainable="all", other=True)] = scale.seeds
    seeds[Plan(model=Model.QUARTER, trainable="all")] = 1
    return seeds


def runs(scale: Scale) -> Iterator[tuple[Plan, int]]:
    """Every fine-tuned network with each of its seeds."""
    return ((plan, seed) for plan, seeds in plans(scale).items() for seed in range(seeds))


def attacked_strongly(plan: Plan, seed: int) -> bool:
    """Every seed of the controls and where hardly an image stands; one where robust networks would take minutes."""
    if plan.other or not (plan.share == COMPARED or plan.model in (Model.CONTROL, Model.QUARTER) or plan == WORKFLOW):
        return False
    return seed == 0 or plan.model == Model.CONTROL or (plan.trainable == "heads" and plan.model != Model.ADVERSARIAL)


def pretrained(scale: Scale, model: str) -> fw.NetworkSpec:
    """A network that was shown no label; random weights are those that every pretraining begins with."""
    name = model if model in PRETRAININGS else Model.SIMCLR
    tasks = {task: TaskConfig(task=task, settings=scale.tasks[task]) for task in TASKS_OF[name]}
    stages = tuple(replace(stage, tasks=tasks, threat=scale.threat) for stage in scale.pretrain[name])
    return fw.NetworkSpec(
        key={"model": model, "data": scale.unlabelled},
        config=RunConfig(data=scale.unlabelled, trunk=scale.trunk, stages=stages),
        trained=model in PRETRAININGS,
    )


def words(scale: Scale, plan: Plan) -> dict[str, str]:
    """What the rows of a fine-tuned network are selected by, but for its seed."""
    column = {"label_column": scale.other[1]} if plan.other else {}
    return {"model": plan.model, **plan.settings, **column}


def fine_tuned(scale: Scale, plan: Plan, seed: int) -> fw.NetworkSpec:
    """A network that follows a pretraining, or a control, which follows none."""
    data, column = scale.other if plan.other else (scale.data, "")
    stage = replace(
        scale.head if plan.trainable == "heads" else scale.whole,
        tasks={"labels": TaskConfig(task="labels", settings={"column": column} if column else {})},
        trainable=plan.trainable,
        perturb=scale.perturb if plan.images == PERTURBED else None,
        threat=scale.threat,
    )
    config = RunConfig(data=data, trunk=scale.trunk, stages=(stage,), fraction=plan.share, seed=seed)
    key = {"data": data, **words(scale, plan), "seed": seed}
    if plan.model == Model.QUARTER:
        after = (pretrained(scale, Model.SIMCLR), fine_tuned(scale, WORKFLOW, 0))

        def cheaper(work: fw.Workspace) -> RunConfig:
            """Fast adversarial training, of two images through the network for each, at a quarter of that cost."""
            images = sum(work.get(network).model_images for network in after)
            steps = max(1, round(images / (4 * 2 * scale.whole.batch_size)))
            return replace(config, stages=(replace(stage, epochs=1, steps=steps, perturb=scale.fast),))

        return fw.NetworkSpec(key=key, config=cheaper, after=after)
    start = pretrained(scale, plan.model) if plan.model in PRETRAININGS else None
    return fw.NetworkSpec(key=key, config=config, start=start)


def measured(scale: Scale, plan: Plan, seed: int) -> Iterator[fw.Measurement]:
    """Clean images, FGSM, PGD, and the strong attack where the source compares tasks and on the controls."""
    network = fine_tuned(scale, plan, seed)
    test, column = fw.Images(data=network.data), scale.other[1] if plan.other else None
    yield fw.Clean(system=network, images=test, threat=scale.threat, column=column)
    attacks = {"fgsm": scale.attacked, scale.pgd: scale.attacked}
    if attacked_strongly(plan, seed):
        attacks[scale.strong] = scale.strongly
    for attack, count in attacks.items():
        examples = fw.Examples(
            network=network,
            attack=make_attack(attack, scale.threat),
            images=test.sample(min(count, scale.attacked)),
            column=column,
            precision=scale.precision,
        )
        yield fw.Attacked(system=network, examples=examples)


def probes(scale: Scale, model: str, features: str) -> fw.Probed:
    """A linear probe of a trunk's last stage, which is also what the added layer reads."""
    return fw.Probed(
        system=pretrained(scale, model),
        images=fw.Images(data=scale.data, split="train"),
        test=fw.Images(data=scale.data),
        settings=replace(scale.probe, standardise=features == STANDARDISED),
        threat=scale.threat,
        words={"linear_probe": f"stage {{stage}}, {features}"},
        name=features,
    )
