"""The claims of system C, each under FGSM as its authors attacked, and again under the strong attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from unfool.evaluation.adaptive.rung_result import restricted
from unfool.evaluation.statistics.gains import SAME_NETWORK
from unfool.studies import framework as fw
from unfool.studies.transfer import networks, scales
from unfool.studies.transfer.networks import AS_THEY_ARE, STANDARDISED, WORKFLOW
from unfool.studies.transfer.scales import COMPARED, PRETRAININGS, Model, Plan, Scale

NO_ATTACK, FGSM, ABOVE = "none", "fgsm", fw.Above(0)


def study_claims(scale: Scale) -> Iterator[fw.Claim]:
    """The source's claims at every budget of FGSM, since its own is not known; then what it leaves open."""
    hard = [(scale.strong.partition(":")[0], scale.threat)]
    weak, unattacked = [(FGSM, threat) for threat in scale.budgets], [(NO_ATTACK, scale.threat)]

    def claims(
        name: str,
        text: str,
        ours: Plan,
        theirs: Plan,
        attacks: Sequence[tuple[str, str]],
        rule: fw.Rule = ABOVE,
        near: Sequence[str] = (),
    ) -> Iterator[fw.Claim]:
        """What ``theirs`` keeps under each attack of ``near`` must be near the source's figure: none for a question of
        our own, on which the source has no figure."""
        alike = [ours.images] if ours.images == theirs.images else []
        for attack, threat in attacks:
            under = ", ".join([*alike, *([f"{attack} within {threat}"] if attack != NO_ATTACK else [])])
            sides = [networks.words(scale, plan) for plan in (ours, theirs)]
            evidence = fw.Difference(*sides, under={"attack": attack, "threat": threat})
            # Rows of clean images name the threat of the scale, whatever the budget of an attack.
            budgets = [(each, scale.threat if each == NO_ATTACK else threat) for each in near]
            controls = (fw.Control({**sides[1], "attack": each, "threat": budget}) for each, budget in budgets)
            yield fw.Claim(f"{name} {under}", f"{text} ({under})", evidence, rule, tuple(controls))

    def claimed(
        name: str, text: str, ours: Plan, theirs: Plan, attacks: Sequence[tuple[str, str]]
    ) -> Iterator[fw.Claim]:
        """The source's claim, by half of what it has for one under FGSM less what it has for the other; the source ran
        no other attack, so a claim under one is held to what the source has under FGSM."""
        gain = scales.PUBLISHED.gain(scales.cell(ours, FGSM), scales.cell(theirs, FGSM))
        for attack in attacks:
            rule = fw.HalfOf(gain, of="" if attack[0] == FGSM else "under FGSM")
            yield from claims(name, text, ours, theirs, [attack], rule, (FGSM, NO_ATTACK))

    compared = {name: Plan(model=name, share=COMPARED) for name in PRETRAININGS}
    clean = {name: replace(plan, images=scales.CLEAN) for name, plan in compared.items()}
    whole = {name: replace(plan, trainable="all") for name, plan in compared.items()}
    control = Plan(model=Model.CONTROL, trainable="all")
    for images in scales.LEARNS_FROM:
        scratch, ours = replace(control, images=images), replace(WORKFLOW, images=images)
        for attacks, share in ((weak, 1.0), (hard, COMPARED)):
            text = f"SimCLR pretraining and {share:.0%} of the labels are more robust than training from scratch"
            some = replace(ours, share=share)
            yield from claimed(f"scratch {share:g}", text, some, scratch, attacks)
        # The source has 68 % and 63 %.
        text = "Against training from scratch SimCLR pretraining costs clean accuracy only marginally, at most 5 points"
        yield from claims("marginal", text, ours, scratch, unattacked, fw.AtLeast(-0.05), (NO_ATTACK,))
    text = "1% of the labels is enough: SimCLR pretraining with it is more robust than training from scratch"
    few, scratch = (replace(plan, images=scales.CLEAN) for plan in (replace(WORKFLOW, share=0.01), control))
    yield from claimed("few labels", text, few, scratch, weak)
    for better, worse in ((Model.SIMCLR, Model.JIGSAW), (Model.JIGSAW, Model.ROTATION)):
        title = {Model.SIMCLR: "SimCLR", Model.JIGSAW: "Jigsaw"}[better]
        text = f"{title} pretraining is more robust than {worse} pretraining"
        yield from claimed(f"{better} {worse}", text, compared[better], compared[worse], [*weak, *hard])
    # It is counted from epochs, however near the accuracy of a network comes to the source's: it needs no control.
    text = "SimCLR and adversarial fine-tuning cost less than supervised adversarial training of as many epochs"
    yield fw.Claim(id="cost", text=text, evidence=partial(_cost, scale), rule=fw.Below(1))
    for model in scale.baselines:
        text = f"SimCLR and adversarial fine-tuning are more robust than {model}"
        yield from claims(f"against {model}", text, WORKFLOW, Plan(model=model, trainable="all"), hard)
    text = "SimCLR, rotation and jigsaw together are more robust than SimCLR alone"
    yield from claims("combination", text, compared[Model.COMBINATION], compared[Model.SIMCLR], hard)
    text = "Adversarial contrastive pretraining is more robust than SimCLR, both fine-tuned on clean images"
    yield from claims("adversarial contrast", text, clean[Model.ADVERSARIAL], clean[Model.SIMCLR], hard)
    text = (
        "Adversarial contrastive pretraining is enough: fine-tuned on clean images it is at most 2 points less robust "
        "than supervised adversarial training of as many epochs"
    )
    yield from claims("enough", text, clean[Model.ADVERSARIAL], control, hard, fw.AtLeast(-0.02))
    text = "SimCLR, all layers moving, is more robust with 30 % of the labels than training from scratch with all"
    yield from claims("all layers scratch", text, whole[Model.SIMCLR], control, hard)
    for name, title in ((Model.SIMCLR, "SimCLR"), (Model.ADVERSARIAL, "adversarial contrast")):
        text = f"After {title}, moving all layers is more robust than the added layer alone"
        yield from claims(f"all layers {name}", text, whole[name], compared[name], hard)
    text = "On the second data set SimCLR pretraining is more robust than training from scratch"
    other = replace(WORKFLOW, other=True), replace(control, other=True)
    yield from claims("second set", text, *other, [weak[-1], *hard])
    text = f"FGSM alone overstates robustness: the same networks stand up to it more often than to {hard[0][0]}"
    evidence = partial(_overstated, scale, compared[Model.SIMCLR], hard[0][0])
    yield fw.Claim(id="overstates", text=f"{text} (within {scale.threat})", evidence=evidence, rule=ABOVE)
    for features in (AS_THEY_ARE, STANDARDISED):
        text = f"A linear probe of SimCLR's last stage beats random weights by 15 points ({features})"
        sides = ({"model": model, "linear_probe": f"stage last, {features}"} for model in (Model.SIMCLR, Model.RANDOM))
        evidence = fw.Difference(*sides, under={"attack": NO_ATTACK})
        yield fw.Claim(id=f"probe {features}", text=text, evidence=evidence, rule=fw.AtLeast(0.15))


def _cost(scale: Scale, results: fw.Results) -> fw.Estimate:
    """The title's claim: what the source calls efficient, counted."""
    control = networks.fine_tuned(scale, Plan(model=Model.CONTROL, trainable="all"), 0)
    specs = networks.pretrained(scale, Model.SIMCLR, 0), networks.fine_tuned(scale, WORKFLOW, 0), control
    runs = [results.run(spec) for spec in specs]
    images, seconds = [run.model_images for run in runs], [run.cpu_seconds for run in runs]
    detail = (
        "Images through the network: {:,} in pretraining and {:,} in fine-tuning, against {:,}. ".format(*images)
        + "CPU seconds: {:.0f} and {:.0f}, against {:.0f}: fine-tuning alone is what is saved, once a pretrained trunk "
        "is at hand. The sum of images over those of supervised training".format(*seconds)
    )
    # Every image goes through the network twice an epoch: as two views, or to be moved and then learnt from.
    first, then = scales.FULL.pretrain[Model.SIMCLR].epochs, scales.FULL.epochs[scales.SHARES.index(1.0)]
    more = f"With the source's own {first} and {then} epochs on sets of one size it is {(first + then) / then:.1f}."
    return fw.counted((images[0] + images[1]) / images[2], detail, more)


def _overstated(scale: Scale, plan: Plan, strong: str, results: fw.Results) -> fw.Estimate:
    """FGSM and the strong attack on the same images of the same networks."""
    words = {**networks.words(scale, plan), "threat": scale.threat}
    strongly, weakly = (results.by_seed(**words, attack=attack) for attack in (strong, FGSM))
    some = [restricted(weakly[seed], records.ids) for seed, records in strongly.items()]
    detail = (
        f"SimCLR, {COMPARED:.0%} of the labels: accuracy under FGSM minus that under {strong} on {some[0].count} images"
    )
    return replace(fw.gain(some, [*strongly.values()]), detail=detail, pair=SAME_NETWORK)
