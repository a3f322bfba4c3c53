"""The claims of system E, over several seeds of the probe, and those on what its author did not measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import difference, unpaired
from unfool.studies import framework as fw
from unfool.studies.framework import counted, gain
from unfool.studies.noisy_rotation import scales
from unfool.studies.noisy_rotation.networks import extractor, probes
from unfool.studies.noisy_rotation.scales import LONGER, NOISE, RANDOM, ROTATION, STAGES, Pretraining, Scale

EARLY, LAST = STAGES[:2], STAGES[-1]
"""Where the source says that noise only competes, and the stage that it helps most."""
LEAST_REAL = 0.1
"""What rotation must add to random weights, or the pretraining is none."""
WORSE = 0.02
"""A loss below this still counts as competitive, and a gain below it is not worth several times the cost."""
BEHIND = f"less than {100 * WORSE:.0f} points worse"
"""What competitive means."""

Evidence = Callable[[fw.Results], fw.Estimate | None]


def study_claims(scale: Scale) -> Iterator[fw.Claim]:
    """The source's claims, then those that it owes."""
    compare, figures, gain_of = _Comparisons(scale), scales.PUBLISHED.figures, scales.PUBLISHED.gain
    best = {plan: max(STAGES, key=lambda stage: figures[plan, stage]) for plan in (NOISE.name, ROTATION.name)}
    claimed = gain_of(*best.items())
    text = "Adversarial noise in pretraining improves the best extractor"
    at_best = _control(best[ROTATION.name])
    yield fw.Claim("best-stage", text, compare.on(NOISE, ROTATION), fw.HalfOf(claimed), at_best)
    for stage in STAGES:
        claimed = gain_of((NOISE.name, stage), (ROTATION.name, stage))
        text = f"Adversarial noise in pretraining improves the later stage {stage}"
        name, rule = f"late-{stage}", fw.HalfOf(claimed)
        if stage in EARLY:
            text = f"On {stage}, pretraining with noise is competitive: it is {BEHIND} "
            text += f"(the source: {100 * claimed:+.1f} points)"
            name, rule = f"early-{stage}", fw.Above(-WORSE)
        yield fw.Claim(name, text, compare.on(NOISE, ROTATION, stage), rule, _control(stage))
    text = f"Noise resists underfitting: the probe on {LAST} fits its own training images better"
    yield fw.Claim("underfitting", text, compare.on(NOISE, ROTATION, LAST, split="train"), fw.Above(0), _control(LAST))
    text = f"On {LAST}, test accuracy with noise is above train accuracy without"
    yield fw.Claim("test-above-train", text, compare.test_against_train, fw.Above(0), _control(LAST))
    text = f"Probes on the first four stages overfit, and that on {LAST} does not"
    yield fw.Claim("overfitting", text, compare.overfitting, fw.Above(0), tuple(map(_control, STAGES)))
    text = "The gain of adversarial noise does not justify its cost: over clean rotation that ran for as long it is at "
    text += f"most {100 * WORSE:.0f} points"
    yield fw.Claim("cost", text, compare.worth, fw.AtMost(WORSE), at_best)
    noise = make_attack(scale.noises[scales.AS_WRITTEN], scale.threat)
    steps, size, eps = noise.settings["steps"], noise.settings["step_size"], noise.threat.eps
    reached = counted(steps * size, f"The most that {steps} steps of {size:g} from the image itself can reach")
    yield fw.Claim("norm", f"The source's noise has a norm of {eps:g}", lambda results: reached, fw.AtLeast(eps))
    for trunk, words in ((scales.HALF, "an extractor of half the channels"), (scales.HALF_RESNET, "a half ResNet-50")):
        text = f"With noise, {words} competes with the whole VGG-16 without: it is {BEHIND}"
        yield fw.Claim(trunk, text, compare.on(NOISE.on(trunk), ROTATION), fw.Above(-WORSE))
    text = "Supervised pretraining under adversarial noise gives a better extractor than without"
    trunk = scales.WHOLE if scales.LABELS in scale.pretrainings else scales.HALF
    robust, clean = (plan.on(trunk) for plan in (scales.ROBUST_LABELS, scales.LABELS))
    yield fw.Claim("supervised", text, compare.on(robust, clean), fw.Above(0))
    least = f"{100 * LEAST_REAL:.0f} points"
    text = f"Pretraining is real: rotation's best stage beats the best one at random weights by {least}"
    yield fw.Claim("real", text, compare.on(ROTATION, RANDOM), fw.AtLeast(LEAST_REAL))
    text = f"Pretraining for longer is real too: its best stage beats the best one at random weights by {least}"
    yield fw.Claim("longer-real", text, compare.on(LONGER, RANDOM), fw.AtLeast(LEAST_REAL))
    for threat in scale.threats[:1]:
        attack = scale.attack.partition(":")[0]
        text = f"Noise in pretraining makes the probe's classifier more robust ({attack}, {threat})"
        yield fw.Claim("robust", text, compare.robust(threat), fw.Above(0))


def _control(stage: str) -> fw.Control:
    """Clean rotation's probe on a stage; rows of training images have a panel of their own."""
    return fw.Control({"model": ROTATION.name, "stage": stage, "attack": "none", "panel": None})


class _Comparisons:
    """Evidence from the probes of two extractors at a scale."""

    def __init__(self, scale: Scale):
        self.scale = scale
        self.over = f"over {len(scale.probe.seeds)} seeds of the probe on these two extractors"

    def on(self, ours: Pretraining, theirs: Pretraining, stage: str = "", split: str = "test") -> Evidence:
        """One stage of both; by default the best of each, chosen on held-out images. None for what is not probed."""

        def evidence(results: fw.Results) -> fw.Estimate | None:
            if not {ours, theirs} <= set(self.scale.pretrainings):
                return None
            sides = {plan: results[probes(self.scale, plan)] for plan in (ours, theirs)}
            places = {plan: stage or probed.best for plan, probed in sides.items()}
            records = [probed.records[places[plan], split] for plan, probed in sides.items()]
            words = (f"{plan.name} {_percent(of)} on {places[plan]}" for plan, of in zip(sides, records, strict=True))
            what = f"{split.capitalize()} accuracy" if stage else "Best stages (chosen on held-out images)"
            return replace(gain(*records), detail=f"{what}: {', '.join(words)}; difference", over=self.over)

        return evidence

    def test_against_train(self, results: fw.Results) -> fw.Estimate:
        test = results[probes(self.scale, NOISE)].records[LAST, "test"]
        train = results[probes(self.scale, ROTATION)].records[LAST, "train"]
        detail = f"{_percent(test)} and {_percent(train)}, on different images; difference"
        return replace(unpaired(test, train), detail=detail, over=self.over)

    def overfitting(self, results: fw.Results) -> fw.Estimate:
        """The least that train minus test accuracy of a stage exceeds that of the last one."""
        records = results[probes(self.scale, ROTATION)].records
        gaps = {stage: unpaired(records[stage, "train"], records[stage, "test"]) for stage in STAGES}
        beyond = [difference(gaps[stage], gaps[LAST]) for stage in STAGES[:-1]]
        words = ", ".join(f"{stage} {100 * gap.mean:+.1f}" for stage, gap in gaps.items())
        detail = f"Train minus test accuracy of {ROTATION.name}, in points: {words}; the least by which one of the "
        over = f"over {len(self.scale.probe.seeds)} seeds of the probe"
        return replace(fw.least_of(beyond), detail=f"{detail}first four exceeds {LAST}", over=over)

    def worth(self, results: fw.Results) -> fw.Estimate | None:
        """Noise against clean rotation that ran for as long."""
        noise, clean, longer = (results.run(extractor(self.scale, plan)) for plan in (NOISE, ROTATION, LONGER))
        estimate = self.on(NOISE, LONGER)(results)
        more = (
            f"Noise sent {noise.model_images:,} images through the network in pretraining, "
            f"{noise.model_images / max(clean.model_images, 1):.1f} times as many as without "
            f"({noise.cpu_seconds:.0f} s of CPU for {clean.cpu_seconds:.0f} s); "
            f"clean rotation that ran for longer sent {longer.model_images:,} ({longer.cpu_seconds:.0f} s)."
        )
        return estimate and replace(estimate, more=more)

    def robust(self, threat: str) -> Evidence:
        """One classifier each, on the images that were attacked: the first seed's probe on the best stage."""

        def evidence(results: fw.Results) -> fw.Estimate:
            noise, rotation = (results[probes(self.scale, plan)] for plan in (NOISE, ROTATION))
            ours, theirs = noise.attacked[threat], rotation.attacked[threat]
            words = f"{_percent([ours])} and {_percent([theirs])} of {ours.count} images; difference"
            detail = f"Best stages, {noise.best} and {rotation.best}: {words}"
            return replace(gain([ours], [theirs]), detail=detail, over="between these two classifiers (one probe each)")

        return evidence


def _percent(records: Sequence[Records]) -> str:
    return f"{100 * sum(item.accuracy for item in records) / len(records):.1f} %"
