"""The claims of system C, each under FGSM as its authors attacked, and again under the strong attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import SAME_NETWORK
from unfool.studies import framework as fw
from unfool.studies.framework import counted, gain
from unfool.studies.framework.pieces import slug
from unfool.studies.transfer import networks, scales
from unfool.studies.transfer.networks import AS_THEY_ARE, PROBES, STANDARDISED, WORKFLOW
from unfool.studies.transfer.scales import COMPARED, PRETRAININGS, Model, Plan, Scale

NATURAL, FGSM = "none", "fgsm"
PROBE_GAIN = 0.15
"""What a linear probe of SimCLR's last stage must gain over random weights for the pretraining to count as real."""
MARGINAL = 0.05
"""A loss of clean accuracy that the source calls marginal: it has 68 % against 63 %."""
FEW = min(scales.SHARES)


def study_claims(scale: Scale) -> Iterator[fw.Claim]:
    """The source's claims, then what its title and its discussion leave open."""
    strong = scale.strong.partition(":")[0]

    def claims(name: str, text: str, ours: Plan, theirs: Plan, rule: fw.Rule, *attacks: str) -> Iterator[fw.Claim]:
        for attack in attacks:
            alike = [ours.images] if ours.images == theirs.images else []
            under = ", ".join([*alike, *([attack] if attack != NATURAL else [])])
            evidence = partial(_compared, scale, (ours, theirs), attack)
            yield fw.Claim(id=slug(f"{name} {under}"), text=f"{text} ({under})", evidence=evidence, rule=rule)

    compared = {name: Plan(model=name, share=COMPARED) for name in PRETRAININGS}
    clean = {name: replace(plan, images=scales.CLEAN) for name, plan in compared.items()}
    whole = {name: replace(plan, trainable="all") for name, plan in compared.items()}
    simclr, control = Plan(model=Model.SIMCLR), Plan(model=Model.CONTROL, trainable="all")
    for images in scales.LEARNS_FROM:
        scratch, ours = replace(control, images=images), replace(simclr, images=images)
        for attack, share in ((FGSM, 1.0), (strong, COMPARED)):
            text = f"SimCLR pretraining and {share:.0%} of the labels are more robust than training from scratch"
            rule = fw.HalfOf(_source_gain(share, images))
            yield from claims(f"scratch {share:g}", text, replace(ours, share=share), scratch, rule, attack)
        text = "SimCLR pretraining costs clean accuracy only marginally, against training from scratch"
        yield from claims("marginal", text, ours, scratch, fw.AtLeast(-MARGINAL), NATURAL)
    text = f"{FEW:.0%} of the labels is enough: SimCLR pretraining with it is more robust than training from scratch"
    few, scratch = replace(simclr, share=FEW, images=scales.CLEAN), replace(control, images=scales.CLEAN)
    yield from claims("few labels", text, few, scratch, fw.HalfOf(_source_gain(FEW, scales.CLEAN)), FGSM)
    for attack in (FGSM, strong):
        for better, worse in ((Model.SIMCLR, Model.JIGSAW), (Model.JIGSAW, Model.ROTATION)):
            title = {Model.SIMCLR: "SimCLR", Model.JIGSAW: "Jigsaw"}[better]
            text = f"{title} pretraining is more robust than {worse} pretraining"
            rule = fw.HalfOf((scales.TASKS_TABLE[better] - scales.TASKS_TABLE[worse]) / 100)
            yield from claims(f"{better} {worse}", text, compared[better], compared[worse], rule, attack)
    text = "SimCLR and adversarial fine-tuning cost less than supervised adversarial training of as many steps"
    yield fw.Claim(id="cost", text=text, evidence=partial(_cost, scale), rule=fw.Below(1))
    above = fw.Above(0)
    text = "SimCLR and adversarial fine-tuning are more robust than adversarial training at a quarter of their cost"
    yield from claims("cheaper", text, WORKFLOW, Plan(model=Model.QUARTER, trainable="all"), above, FGSM, strong)
    text = "SimCLR, rotation and jigsaw together are more robust than SimCLR alone"
    yield from claims("combination", text, compared[Model.COMBINATION], compared[Model.SIMCLR], above, FGSM, strong)
    text = "Adversarial contrastive pretraining is more robust than SimCLR, both fine-tuned on clean images"
    yield from claims("adversarial contrast", text, clean[Model.ADVERSARIAL], clean[Model.SIMCLR], above, strong)
    text = (
        "Adversarial contrastive pretraining is enough: fine-tuned on clean images it is as robust as supervised "
        "adversarial training of as many steps"
    )
    yield from claims("enough", text, clean[Model.ADVERSARIAL], control, fw.AtLeast(0), strong)
    text = "SimCLR, all layers moving, is more robust with 30 % of the labels than training from scratch with all"
    yield from claims("all layers scratch", text, whole[Model.SIMCLR], control, above, strong)
    for name, title in ((Model.SIMCLR, "SimCLR"), (Model.ADVERSARIAL, "adversarial contrast")):
        text = f"After {title}, moving all layers is more robust than the added layer alone"
        yield from claims(f"all layers {name}", text, whole[name], compared[name], above, strong)
    text = "On the second data set SimCLR pretraining is more robust than training from scratch"
    yield from claims("second set", text, replace(simclr, other=True), replace(control, other=True), above, FGSM)
    text = f"FGSM alone overstates robustness: the same networks stand up to it more often than to {strong}"
    evidence = partial(_overstated, scale, compared[Model.SIMCLR], strong)
    yield fw.Claim(id="overstates", text=text, evidence=evidence, rule=above)
    for features in (AS_THEY_ARE, STANDARDISED):
        text = (
            f"A linear probe of SimCLR's last stage beats random weights by {100 * PROBE_GAIN:.0f} points ({features})"
        )
        evidence, rule = partial(_probed, scale, features), fw.AtLeast(PROBE_GAIN)
        yield fw.Claim(id=slug(f"probe {features}"), text=text, evidence=evidence, rule=rule)


def _source_gain(share: float, images: str) -> float:
    """What the source's table has for SimCLR under FGSM less what it has for training from scratch."""
    place = 2 * scales.LEARNS_FROM.index(images) + 1
    return (scales.TABLE[Model.SIMCLR, share][place] - scales.TABLE[Model.CONTROL, 1.0][place]) / 100


def mean_accuracy(records: Sequence[Records]) -> float:
    """The mean over seeds."""
    return sum(item.accuracy for item in records) / len(records)


def _name(plan: Plan) -> str:
    settings = plan.settings
    return f"{plan.model}, {settings['labels']} of the labels, {settings['moved']} on {settings['fine_tuned_on']}"


def by_seed(results: fw.Results, scale: Scale, plan: Plan, attack: str) -> dict[int, Records]:
    """The records of a fine-tuned network under an attack, by seed."""
    return results.by_seed(**{"label_column": None, **networks.words(scale, plan)}, attack=attack)


def _compared(scale: Scale, pair: tuple[Plan, Plan], attack: str, results: fw.Results) -> fw.Estimate:
    """The difference of two networks, over the seeds that both were attacked with."""
    ours, theirs = (by_seed(results, scale, plan, attack) for plan in pair)
    seeds = sorted(set(ours) & set(theirs))
    sides = [[ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]]
    means = [mean_accuracy(records) for records in sides]
    accuracies = "; ".join(f"{_name(plan)} {100 * mean:.1f} %" for plan, mean in zip(pair, means, strict=True))
    several = "; one pretraining, several fine-tunings" if len(seeds) > 1 else ""
    under = "On clean images" if attack == NATURAL else f"Under {attack}"
    detail = f"{under} ({sides[0][0].count} images{several}): {accuracies}; the difference"
    return replace(gain(*sides), detail=detail)


def _cost(scale: Scale, results: fw.Results) -> fw.Estimate:
    """The title's claim: what the source calls efficient, counted."""
    control = networks.fine_tuned(scale, Plan(model=Model.CONTROL, trainable="all"), 0)
    specs = networks.pretrained(scale, Model.SIMCLR), networks.fine_tuned(scale, WORKFLOW, 0), control
    pretraining, tuning, whole = (results.run(spec) for spec in specs)
    detail = (
        f"Images through the network: {pretraining.model_images:,} in pretraining and {tuning.model_images:,} in "
        f"fine-tuning, against {whole.model_images:,}. CPU seconds: {pretraining.cpu_seconds:.0f} and "
        f"{tuning.cpu_seconds:.0f}, against {whole.cpu_seconds:.0f}: fine-tuning alone is what is saved, once a "
        "pretrained trunk is at hand. The sum of images over those of supervised training"
    )
    return counted((pretraining.model_images + tuning.model_images) / whole.model_images, detail)


def _overstated(scale: Scale, plan: Plan, strong: str, results: fw.Results) -> fw.Estimate:
    """FGSM and the strong attack on the same images of the same networks."""
    strongly, weakly = (by_seed(results, scale, plan, attack) for attack in (strong, FGSM))
    some = [_restricted(weakly[seed], records.ids) for seed, records in strongly.items()]
    detail = f"{_name(plan)}, accuracy under FGSM minus that under {strong} on {some[0].count} images"
    return replace(gain(some, list(strongly.values())), detail=detail, pair=SAME_NETWORK)


def _restricted(records: Records, ids: Sequence[int]) -> Records:
    """The records of some of the images."""
    place = {image: number for number, image in enumerate(records.ids)}
    rows = [place[image] for image in ids]
    parts = ("ids", "correct", "losses", "distances", "labels")
    return replace(records, **{name: [getattr(records, name)[row] for row in rows] for name in parts})


def probe_records(results: fw.Results, scale: Scale, features: str) -> dict[str, list[Records]]:
    """The probes of every trunk on these features, one record a seed."""
    return {
        model: results[networks.probes(scale, model, features)].records["last", "test"]
        for model, read in PROBES
        if read == features
    }


def _probed(scale: Scale, features: str, results: fw.Results) -> fw.Estimate:
    """Whether anything was learnt without labels at all."""
    records = probe_records(results, scale, features)
    listed = ", ".join(f"{name} {100 * mean_accuracy(items):.1f} %" for name, items in records.items())
    detail = f"{listed}; SimCLR minus random weights (one pretraining, seeds of the probe)"
    return replace(gain(records[Model.SIMCLR], records[Model.RANDOM]), detail=detail)
