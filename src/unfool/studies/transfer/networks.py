"""The networks of system C: pretrained without labels, then fine-tuned on a share of them; and the controls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.attacks.ensemble import attack_passes
from unfool.studies import framework as fw
from unfool.studies.transfer.scales import COMPARED, LEARNS_FROM, PERTURBED, SHARES, TASKS_OF, Model, Plan, Scale
from unfool.training import RunConfig, TaskConfig

AS_THEY_ARE, STANDARDISED = "features as they are", "features standardised"
WORKFLOW = Plan(model=Model.SIMCLR)
"""The source's efficient workflow: SimCLR, then the added layer on FGSM examples of all labelled images."""


def runs(scale: Scale) -> list[tuple[Plan, int]]:
    """Every fine-tuned network of the study with each of its seeds: several where a claim compares it."""
    seeds = {}
    for model, share, images in itertools.product(scale.pretrain, SHARES, LEARNS_FROM):
        if model == Model.SIMCLR or share == COMPARED:
            seeds[Plan(model=model, share=share, images=images)] = scale.seeds
    for images in LEARNS_FROM:
        seeds[Plan(model=Model.CONTROL, images=images, trainable="all")] = scale.seeds
        for share in scale.whole_shares:
            seeds[Plan(model=Model.SIMCLR, share=share, images=images, trainable="all")] = scale.seeds
    if Model.ADVERSARIAL in scale.pretrain:
        seeds[Plan(model=Model.ADVERSARIAL, share=COMPARED, trainable="all")] = scale.seeds
    for trainable in scale.policies:
        seeds.setdefault(Plan(model=Model.SIMCLR, share=COMPARED, trainable=trainable), 1)
    for model, trainable in ((Model.SIMCLR, "heads"), (Model.CONTROL, "all")):
        seeds[Plan(model=model, trainable=trainable, other=True)] = scale.seeds
    seeds |= {Plan(model=model, trainable="all"): 1 for model in scale.baselines}
    return [(plan, seed) for plan, count in seeds.items() for seed in range(count)]


def pretrained(scale: Scale, model: str, seed: int) -> fw.NetworkSpec:
    """A network that was shown no label; random weights are those that every pretraining of the seed begins with."""
    name = model if model in TASKS_OF else Model.SIMCLR
    tasks = {task: TaskConfig(task=task, settings=scale.tasks[task]) for task in TASKS_OF[name]}
    stage = replace(scale.pretrain[name], tasks=tasks, threat=scale.threat)
    return fw.NetworkSpec(
        key={"data": scale.unlabelled, "model": model, "seed": seed},
        config=RunConfig(data=scale.unlabelled, trunk=scale.trunk, stages=(stage,), seed=seed),
        trained=name == model,
    )


def words(scale: Scale, plan: Plan) -> dict[str, str | None]:
    """What the rows of a fine-tuned network are selected by, but for seed and attack."""
    return {"model": plan.model, **plan.settings, "label_column": scale.other[1] if plan.other else None}


def fine_tuned(scale: Scale, plan: Plan, seed: int) -> fw.NetworkSpec:
    """A network that follows a pretraining of the same seed, or a control, which follows none."""
    data, column = scale.other if plan.other else (scale.data, "")
    stage = replace(
        scale.head if plan.trainable == "heads" else scale.whole,
        tasks={"labels": TaskConfig(task="labels", settings={"column": column} if column else {})},
        trainable=plan.trainable,
        perturb="fgsm" if plan.images == PERTURBED else None,
        threat=scale.threat,
    )
    if scale.epochs:
        stage = replace(stage, epochs=scale.epochs[-1 if plan.other else SHARES.index(plan.share)])
    size = scale.size if plan.other else 0
    config = RunConfig(data=data, size=size, trunk=scale.trunk, stages=(stage,), fraction=plan.share, seed=seed)
    key = {"data": data, **words(scale, plan), "label_column": column, "seed": seed}
    if plan.model in scale.baselines:
        perturb, part = scale.baselines[plan.model]
        after = (pretrained(scale, Model.SIMCLR, 0), fine_tuned(scale, WORKFLOW, 0))
        passes = 1 + attack_passes(make_attack(perturb, scale.threat).parts)

        def as_costly(work: fw.Workspace) -> RunConfig:
            """Adversarial training of all layers for as many images through the network as that part of the cost."""
            images = part * sum(work.get(network).model_images for network in after)
            steps = max(1, round(images / (passes * scale.whole.batch_size)))
            return replace(config, stages=(replace(stage, epochs=1, steps=steps, perturb=perturb),))

        return fw.NetworkSpec(key=key, config=as_costly, after=after)
    start = pretrained(scale, plan.model, seed) if plan.model in scale.pretrain else None
    return fw.NetworkSpec(key=key, config=config, start=start)


def measured(scale: Scale, plan: Plan, seed: int) -> Iterator[fw.Measurement]:
    """Clean images, FGSM within every budget, PGD and the strong attack."""
    network = fine_tuned(scale, plan, seed)
    column = scale.other[1] if plan.other else None
    test = fw.Images(data=network.data, size=scale.size if plan.other else 0)
    yield fw.Clean(system=network, images=test, threat=scale.threat, column=column)
    attacks = [("fgsm", threat, scale.attacked) for threat in scale.budgets]
    attacks += [(attack, scale.threat, scale.strongly) for attack in (scale.pgd, scale.strong)]
    for name, threat, count in attacks:
        examples = fw.Examples(
            network=network,
            attack=make_attack(name, threat),
            images=test.sample(min(count, scale.attacked)),
            column=column,
            precision=scale.precision,
        )
        yield fw.Attacked(system=network, examples=examples)


def probes(scale: Scale) -> dict[tuple[str, str], list[fw.Probed]]:
    """Linear probes of each trunk's last stage, which is also what the added layer reads, by trunk and features: one a
    seed. Random weights gain most from standardised features."""
    trunks = [(name, AS_THEY_ARE) for name in (*scale.pretrain, Model.RANDOM)]
    return {
        (model, features): [
            fw.Probed(
                system=pretrained(scale, model, seed),
                images=fw.Images(data=scale.data, split="train"),
                test=fw.Images(data=scale.data),
                settings=replace(scale.probe, standardise=features == STANDARDISED, seeds=(seed,)),
                threat=scale.threat,
                words={"linear_probe": f"stage {{stage}}, {features}"},
                name=features,
            )
            for seed in range(scale.seeds)
        ]
        for model, features in [*trunks, (Model.SIMCLR, STANDARDISED), (Model.RANDOM, STANDARDISED)]
    }
