"""The claims of system E, over several seeds of the probe, and those on what its author did not measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import difference, unpaired
from unfool.evaluation.statistics.rules import Rule
from unfool.studies import framework as fw
from unfool.studies.framework import counted, gain
from unfool.studies.noisy_rotation.networks import AttackedStages, extractor, probes
from unfool.studies.noisy_rotation.scales import (
    AS_WRITTEN,
    HALF,
    LABELS,
    LONGER,
    NOISE,
    PUBLISHED,
    RANDOM,
    REACHES,
    ROBUST_LABELS,
    ROTATION,
    STAGES,
    Pretraining,
    Scale,
)

EARLY, LATE, LAST = STAGES[:2], STAGES[2:], STAGES[-1]
"""Where the source says that noise competes, and where that it helps."""
LEAST_REAL = 0.08
"""What rotation must add to random weights on its best stage, or the pretraining is none."""
WORSE = 0.02
"""A loss below this still counts as competitive."""


def study_claims(scale: Scale) -> Iterator[fw.Claim]:
    """The source's claims, then those that it owes."""
    compare = _Comparisons(scale)
    published = _published_best(NOISE) - _published_best(ROTATION)

    def claim(name: str, text: str, evidence: Callable[[fw.Results], fw.Estimate], rule: Rule) -> fw.Claim:
        return fw.Claim(id=name, text=text, evidence=evidence, rule=rule)

    yield claim(
        "best-stage",
        f"Adversarial noise in pretraining improves the best extractor by {published:.1f} points",
        compare.best(NOISE, ROTATION),
        fw.HalfOf(published / 100),
    )
    for stage in LATE:
        claimed = PUBLISHED.gain((NOISE.name, stage), (ROTATION.name, stage))
        text = f"Adversarial noise helps the later stages: {stage} by {100 * claimed:.1f} points"
        yield claim(f"late-{stage}", text, compare.on(NOISE, ROTATION, stage), fw.HalfOf(claimed))
    for stage in EARLY:
        claimed = PUBLISHED.gain((NOISE.name, stage), (ROTATION.name, stage))
        text = f"On {stage}, pretraining with noise is competitive (the source: {100 * claimed:+.1f} points)"
        yield claim(f"early-{stage}", text, compare.on(NOISE, ROTATION, stage), fw.Above(-WORSE))
    yield claim(
        "underfitting",
        f"Noise resists underfitting: the probe on {LAST} fits its own training images better",
        compare.on(NOISE, ROTATION, LAST, split="train"),
        fw.Above(0),
    )
    text = f"On {LAST}, test accuracy with noise is above train accuracy without"
    yield claim("test-above-train", text, compare.test_against_train, fw.Above(0))
    text = f"Probes on the first four stages overfit, and that on {LAST} does not"
    yield claim("overfitting", text, compare.overfitting, fw.Above(0))
    text = "The gain of adversarial noise does not justify its cost"
    yield claim("cost", text, compare.worth, fw.AtMost(0))
    noise = make_attack(scale.noises[AS_WRITTEN], scale.threat)
    steps, step_size, eps = noise.settings["steps"], noise.settings["step_size"], noise.threat.eps
    reached = counted(
        steps * step_size, f"The most that {steps} steps of {step_size:g} from the image itself can reach"
    )
    yield claim("norm", f"The source's noise has a norm of {eps:g}", lambda results: reached, fw.AtLeast(eps))
    text = "Noise that reaches its eps does better than the source's"
    yield claim("reaching", text, compare.best(REACHES, NOISE), fw.Above(0))
    text = "With noise, an extractor of half the channels competes with the whole one without"
    yield claim("half-width", text, compare.best(HALF, ROTATION), fw.Above(-WORSE))
    text = "Supervised pretraining under adversarial noise gives a better extractor than without"
    yield claim("supervised", text, compare.best(ROBUST_LABELS, LABELS), fw.Above(0))
    text = (
        f"Pretraining is real: rotation's best stage beats the same stage at random weights by "
        f"{100 * LEAST_REAL:.0f} points"
    )
    yield claim("real", text, compare.on(ROTATION, RANDOM), fw.AtLeast(LEAST_REAL))
    attack = scale.attack.partition(":")[0]
    for threat in scale.threats:
        text = f"Noise in pretraining makes the probe's classifier more robust ({attack}, {threat})"
        yield claim(f"robust-{threat}", text, compare.robust(threat), fw.Above(0))


class _Comparisons:
    """Evidence from the probes of two extractors at a scale."""

    def __init__(self, scale: Scale):
        self.scale = scale
        self.over = f"over {len(scale.probe.seeds)} seeds of the probe on these two extractors"

    def of(self, results: fw.Results, plan: Pretraining) -> AttackedStages:
        return results[probes(self.scale, plan)]

    def best(self, ours: Pretraining, theirs: Pretraining) -> Callable[[fw.Results], fw.Estimate]:
        """Best stage against best stage, each chosen on held-out images."""

        def evidence(results: fw.Results) -> fw.Estimate:
            sides = {plan: self.of(results, plan) for plan in (ours, theirs)}
            tests = {plan: probed.records[probed.best, "test"] for plan, probed in sides.items()}
            words = ", ".join(f"{plan.name} {_percent(tests[plan])} on {probed.best}" for plan, probed in sides.items())
            detail = f"Best stages (chosen on held-out images): {words}; difference"
            return replace(gain(tests[ours], tests[theirs]), detail=detail, over=self.over)

        return evidence

    def on(
        self, ours: Pretraining, theirs: Pretraining, stage: str = "", split: str = "test"
    ) -> Callable[[fw.Results], fw.Estimate]:
        """One stage of both (default: the best of the first)."""

        def evidence(results: fw.Results) -> fw.Estimate:
            where = stage or self.of(results, ours).best
            first, second = (self.of(results, plan).records[where, split] for plan in (ours, theirs))
            words = f"{ours.name} {_percent(first)}, {theirs.name} {_percent(second)}"
            detail = f"{split.capitalize()} accuracy on {where}: {words}; difference"
            return replace(gain(first, second), detail=detail, over=self.over)

        return evidence

    def test_against_train(self, results: fw.Results) -> fw.Estimate:
        test = self.of(results, NOISE).records[LAST, "test"]
        train = self.of(results, ROTATION).records[LAST, "train"]
        detail = f"{_percent(test)} and {_percent(train)}, on different images; difference"
        return replace(unpaired(test, train), detail=detail, over=self.over)

    def overfitting(self, results: fw.Results) -> fw.Estimate:
        """The least that train minus test accuracy of a stage exceeds that of the last one."""
        records = self.of(results, ROTATION).records
        gaps = {stage: unpaired(records[stage, "train"], records[stage, "test"]) for stage in STAGES}
        beyond = [difference(gaps[stage], gaps[LAST]) for stage in STAGES[:-1]]
        words = ", ".join(f"{stage} {100 * gap.mean:+.1f}" for stage, gap in gaps.items())
        return replace(
            fw.least_of(beyond),
            detail=f"Train minus test accuracy of {ROTATION.name}, in points: {words}; the least by which one of the "
            f"first four exceeds {LAST}",
            over=f"over {len(self.scale.probe.seeds)} seeds of the probe",
        )

    def worth(self, results: fw.Results) -> fw.Estimate:
        """Noise against clean rotation that ran for as long."""
        runs = {plan: results.run(extractor(self.scale, plan)) for plan in (NOISE, ROTATION, LONGER)}
        noise, clean, longer = runs.values()
        gained = self.best(NOISE, ROTATION)(results)
        more = (
            f"Noise sent {noise.model_images:,} images through the network in pretraining, "
            f"{noise.model_images / max(clean.model_images, 1):.1f} times as many as without "
            f"({noise.cpu_seconds:.0f} s of CPU for {clean.cpu_seconds:.0f} s), for {100 * gained.mean:+.1f} points; "
            f"clean rotation that ran for longer sent {longer.model_images:,} ({longer.cpu_seconds:.0f} s)."
        )
        return replace(self.best(NOISE, LONGER)(results), more=more)

    def robust(self, threat: str) -> Callable[[fw.Results], fw.Estimate]:
        """One classifier each, on the images that were attacked: the first seed's probe on the best stage."""

        def evidence(results: fw.Results) -> fw.Estimate:
            noise, rotation = self.of(results, NOISE), self.of(results, ROTATION)
            ours, theirs = noise.attacked[threat], rotation.attacked[threat]
            detail = (
                f"Best stages, {noise.best} and {rotation.best}: {_percent([ours])} and {_percent([theirs])} of "
                f"{ours.count} images; difference"
            )
            over = "between these two classifiers (one probe each)"
            return replace(gain([ours], [theirs]), detail=detail, over=over)

        return evidence


def _published_best(plan: Pretraining) -> float:
    return max(PUBLISHED.figures[plan.name, stage] for stage in STAGES)


def _percent(records: Sequence[Records]) -> str:
    return f"{100 * sum(item.accuracy for item in records) / len(records):.1f} %"
