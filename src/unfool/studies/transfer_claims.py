"""The claims of system C, each judged under FGSM as its authors did, and again under the strong attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from unfool.evaluation import Records
from unfool.studies.claims import ABOVE_ZERO, FAILS, HOLDS, UNDECIDED, Gain, at_least, claim, gain
from unfool.studies.transfer_measures import AS_THEY_ARE, FGSM, NATURAL, PROBED, STANDARDISED, STRONG, Measured
from unfool.studies.transfer_networks import WORKFLOW, Plan
from unfool.studies.transfer_scales import (
    ADVERSARIAL,
    CLEAN,
    COMBINATION,
    COMPARED,
    CONTROL,
    JIGSAW,
    LEARNT,
    QUARTER,
    RANDOM,
    ROTATION,
    SHARES,
    SIMCLR,
    SOURCE,
    SOURCE_TASKS,
)
from unfool.training import TrainedRun

Found = Mapping[Plan, Sequence[Measured]]
"""Networks by plan, one a seed."""
Probes = Mapping[tuple[str, str], Sequence[Records]]
"""Records of linear probes by trunk and features, one a seed."""

PROBE_GAIN = 0.15
"""What a linear probe of SimCLR's last stage must gain over random weights for the pretraining to count as real."""
MARGINAL = 0.05
"""A loss of clean accuracy that the source calls marginal: it has 68 % against 63 %."""

_NAMES = {SIMCLR: "SimCLR", JIGSAW: "Jigsaw"}
"""Pretrainings at the beginning of a sentence."""


def judge_claims(found: Found, probes: Probes, workflow: tuple[TrainedRun, TrainedRun]) -> list[dict[str, Any]]:
    """Claims with verdicts and evidence: the source's, then what its title and its discussion leave open."""
    one = Plan(model=SIMCLR, share=COMPARED)
    whole = dataclasses.replace(one, moves="all")
    linear = Plan(model=ADVERSARIAL, share=COMPARED)
    tasks = {name: Plan(model=name, share=COMPARED) for name in (ROTATION, JIGSAW, SIMCLR, COMBINATION)}
    other = Plan(model=SIMCLR, other=True)
    quarter = Plan(model=QUARTER, moves="all")
    cheaper = "SimCLR and adversarial fine-tuning are more robust than adversarial training at a quarter of their cost"
    scratch = "SimCLR, all layers moving, is more robust with 30 % of the labels than training from scratch with all"
    together = "SimCLR, rotation and jigsaw together are more robust than SimCLR alone"
    return [
        *_against_scratch(found),
        *(
            _claimed(
                found,
                f"{_NAMES[better]} pretraining is more robust than {worse} pretraining",
                (tasks[better], tasks[worse]),
                attack,
                (SOURCE_TASKS[better] - SOURCE_TASKS[worse]) / 100,
            )
            for attack in (FGSM, STRONG)
            for better, worse in ((SIMCLR, JIGSAW), (JIGSAW, ROTATION))
        ),
        _cheaper(found, workflow),
        *(_more(found, cheaper, (WORKFLOW, quarter), attack) for attack in (FGSM, STRONG)),
        *(_more(found, together, (tasks[COMBINATION], one), attack) for attack in (FGSM, STRONG)),
        _more(
            found,
            "Adversarial contrastive pretraining is more robust than SimCLR, both fine-tuned on clean images",
            (dataclasses.replace(linear, learnt=CLEAN), dataclasses.replace(one, learnt=CLEAN)),
            STRONG,
        ),
        _enough(found, dataclasses.replace(linear, learnt=CLEAN)),
        _more(found, scratch, (whole, Plan(model=CONTROL, moves="all")), STRONG),
        _more(found, "After SimCLR, moving all layers is more robust than the added layer alone", (whole, one), STRONG),
        _more(
            found,
            "After adversarial contrast, moving all layers is more robust than the added layer alone",
            (dataclasses.replace(linear, moves="all"), linear),
            STRONG,
        ),
        _more(
            found,
            "On the second data set SimCLR pretraining is more robust than training from scratch",
            (other, Plan(model=CONTROL, moves="all", other=True)),
            FGSM,
        ),
        _overstates(found[one]),
        *(_real(probes, features) for features in (AS_THEY_ARE, STANDARDISED)),
    ]


def _against_scratch(found: Found) -> list[dict[str, Any]]:
    """The source's first table: against supervised training with all labels, for as many steps."""
    claims = []
    for learnt in LEARNT:
        control = Plan(model=CONTROL, learnt=learnt, moves="all")
        for attack, share in ((FGSM, 1.0), (STRONG, COMPARED)):
            text = f"SimCLR pretraining and {share:.0%} of the labels are more robust than training from scratch"
            claims.append(_claimed(found, text, _pair(share, control), attack, _source_gain(share, learnt, 1)))
        text = "SimCLR pretraining costs clean accuracy only marginally, against training from scratch"
        lost = _gain(found, _pair(1.0, control), NATURAL)
        claims.append(
            {
                "text": f"{text} ({learnt})",
                "verdict": at_least(lost, -MARGINAL),
                "evidence": f"{_detail(found, _pair(1.0, control), NATURAL)}: {lost.words()}. Rule: holds if the whole "
                f"95 % interval is above {-100 * MARGINAL:.0f} points, fails if none of it is.",
            }
        )
    control, few = Plan(model=CONTROL, learnt=CLEAN, moves="all"), min(SHARES)
    text = f"{few:.0%} of the labels is enough: SimCLR pretraining with it is more robust than training from scratch"
    return [*claims, _claimed(found, text, _pair(few, control), FGSM, _source_gain(few, CLEAN, 1))]


def _pair(share: float, control: Plan) -> tuple[Plan, Plan]:
    return Plan(model=SIMCLR, share=share, learnt=control.learnt), control


def _source_gain(share: float, learnt: str, column: int) -> float:
    """What the source's table has for SimCLR less what it has for training from scratch."""
    place = 2 * LEARNT.index(learnt) + column
    return (SOURCE[SIMCLR, share][place] - SOURCE[CONTROL, 1.0][place]) / 100


def _paired(found: Found, pair: tuple[Plan, Plan], attack: str) -> tuple[list[Records], list[Records]]:
    """Records of both networks for the seeds that both were judged with."""
    ours, theirs = ({one.seed: one.records[attack] for one in found[plan] if attack in one.records} for plan in pair)
    seeds = sorted(set(ours) & set(theirs))
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def _gain(found: Found, pair: tuple[Plan, Plan], attack: str) -> Gain:
    return gain(*_paired(found, pair, attack))


def mean_accuracy(records: Sequence[Records]) -> float:
    """The mean over seeds."""
    return sum(one.accuracy for one in records) / len(records)


def _detail(found: Found, pair: tuple[Plan, Plan], attack: str) -> str:
    """Which networks are compared, under what, and how accurate each is on average."""
    better, base = _paired(found, pair, attack)
    under = "On clean images" if attack == NATURAL else f"Under {better[0].attack}"
    seeds = "; one pretraining, several fine-tunings" if len(better) > 1 else ""
    ours, theirs = (
        f"{_words(plan)} {100 * mean_accuracy(records):.1f} %"
        for plan, records in zip(pair, (better, base), strict=True)
    )
    return f"{under} ({better[0].count} images{seeds}): {ours}; {theirs}; the difference"


def _words(plan: Plan) -> str:
    settings = plan.settings
    return f"{plan.model}, {settings['labels']} of the labels, {settings['moved']} on {settings['fine_tuned_on']}"


def _told(found: Found, text: str, pair: tuple[Plan, Plan], attack: str) -> str:
    """A claim's text with the images that both were fine-tuned on, where they agree, and the attack."""
    alike = f"{pair[0].learnt}, " if pair[0].learnt == pair[1].learnt else ""
    return f"{text} ({alike}{found[pair[0]][0].records[attack].attack})"


def _claimed(found: Found, text: str, pair: tuple[Plan, Plan], attack: str, claimed: float) -> dict[str, Any]:
    """A claim for which the source has a figure."""
    return claim(_told(found, text, pair, attack), _gain(found, pair, attack), claimed, _detail(found, pair, attack))


def _more(found: Found, text: str, pair: tuple[Plan, Plan], attack: str) -> dict[str, Any]:
    """A claim for which it has none."""
    change = _gain(found, pair, attack)
    return {
        "text": _told(found, text, pair, attack),
        "verdict": change.above(),
        "evidence": f"{_detail(found, pair, attack)}: {change.words()}. {ABOVE_ZERO}",
    }


def _cheaper(found: Found, workflow: tuple[TrainedRun, TrainedRun]) -> dict[str, Any]:
    """The title's claim: what the source calls efficient, counted."""
    pretraining, tuning = workflow
    control = found[Plan(model=CONTROL, moves="all")][0]
    images = pretraining.model_images + tuning.model_images
    return {
        "text": "SimCLR and adversarial fine-tuning cost less than supervised adversarial training of as many steps",
        "verdict": HOLDS if images < control.model_images else FAILS,
        "evidence": f"Images through the network: {pretraining.model_images:,} in pretraining and "
        f"{tuning.model_images:,} in fine-tuning, against {control.model_images:,}. CPU seconds: "
        f"{pretraining.cpu_seconds:.0f} and {tuning.cpu_seconds:.0f}, against {control.cpu_seconds:.0f}: fine-tuning "
        "alone is what is saved, once a pretrained trunk is at hand. Rule: holds if the sum of images is smaller.",
    }


def _enough(found: Found, plan: Plan) -> dict[str, Any]:
    """The last open question of the source's discussion."""
    pair = plan, Plan(model=CONTROL, moves="all")
    change = _gain(found, pair, STRONG)
    text = "Adversarial contrastive pretraining is enough: fine-tuned on clean images it is as robust as supervised "
    fallen = mean_accuracy(_paired(found, pair, STRONG)[1]) == 0
    return {
        "text": f"{text}adversarial training of as many steps ({found[plan][0].records[STRONG].attack})",
        "verdict": UNDECIDED if fallen else at_least(change, 0.0),
        "evidence": f"{_detail(found, pair, STRONG)}: {change.words()}. "
        "Rule: holds if the whole 95 % interval is at least 0, fails if none of it is, undecided if supervised "
        "adversarial training keeps nothing.",
    }


def _overstates(networks: Sequence[Measured]) -> dict[str, Any]:
    """FGSM and the strong attack on the same images of the same networks."""
    strong = [one.records[STRONG] for one in networks]
    change = gain(
        [_restricted(one.records[FGSM], other.ids) for one, other in zip(networks, strong, strict=True)], strong
    )
    name = strong[0].attack
    return {
        "text": f"FGSM alone overstates robustness: the same networks stand up to it more often than to {name}",
        "verdict": change.above(),
        "evidence": f"{_words(networks[0].plan)}, accuracy under FGSM minus that under {name} on {strong[0].count} "
        f"images: {change.words('on the same network')}. {ABOVE_ZERO}",
    }


def _restricted(records: Records, ids: Sequence[int]) -> Records:
    """The records of some of the images."""
    place = {image: number for number, image in enumerate(records.ids)}
    rows = [place[image] for image in ids]
    parts = ("ids", "correct", "losses", "distances", "labels")
    return dataclasses.replace(records, **{name: [getattr(records, name)[row] for row in rows] for name in parts})


def _real(probes: Probes, features: str) -> dict[str, Any]:
    """Whether anything was learnt without labels at all."""
    read = {name: records for (name, how), records in probes.items() if how == features}
    change = gain(read[SIMCLR], read[RANDOM])
    listed = ", ".join(f"{name} {100 * mean_accuracy(records):.1f} %" for name, records in read.items())
    points = f"{100 * PROBE_GAIN:.0f} points"
    return {
        "text": f"A linear probe of SimCLR's stage {PROBED} beats random weights by {points} ({features})",
        "verdict": at_least(change, PROBE_GAIN),
        "evidence": f"{listed}; SimCLR minus random weights (one pretraining, seeds of the probe): {change.words()}. "
        f"Rule: holds if the whole 95 % interval reaches {points}, fails if none of it does.",
    }
