"""The claims of system E, judged on several seeds of the probe, and what its author did not measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unfool.attacks import make_attack
from unfool.evaluation import Records
from unfool.studies.claims import (
    ABOVE_ZERO,
    FAILS,
    HOLDS,
    UNDECIDED,
    Gain,
    at_least,
    difference,
    gain,
    seed_error,
)
from unfool.studies.noisy_rotation_measures import Probed
from unfool.studies.noisy_rotation_scales import (
    AS_WRITTEN,
    HALF,
    LABELS,
    LONGER,
    NOISE,
    RANDOM,
    REACHES,
    ROBUST_LABELS,
    ROTATION,
    SOURCE,
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

_COMPETES = f"Rule: holds if the whole 95 % interval is above {-100 * WORSE:+.0f} points, fails if none of it is."


def judge_claims(settings: Scale, probed: Mapping[Pretraining, Probed]) -> list[dict[str, Any]]:
    """Claims with verdicts and evidence: the source's, then those that it owes."""
    rotation, noise = probed[ROTATION], probed[NOISE]
    return [
        _best(noise, rotation),
        *(_stage(noise, rotation, stage) for stage in LATE),
        *(_competitive(noise, rotation, stage) for stage in EARLY),
        _fits(noise, rotation),
        _test_above_train(noise, rotation),
        _overfits(rotation),
        _worth(noise, probed[LONGER], rotation),
        _reaches(settings),
        _above_zero("Noise that reaches its eps does better than the source's", probed[REACHES], noise),
        _small(probed[HALF], rotation),
        _above_zero(
            "Supervised pretraining under adversarial noise gives a better extractor than without",
            probed[ROBUST_LABELS],
            probed[LABELS],
        ),
        _real(rotation, probed[RANDOM]),
        *(_robust(noise, rotation, threat) for threat in settings.threats),
    ]


def points(found: Gain) -> str:
    """A gain in points with its interval; the seeds are the probe's, and each side is one pretrained network."""
    interval = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.mean:+.1f} points {interval} over {found.seeds} seeds of the probe on these two extractors"


def _test(probed: Probed, stage: str) -> list[Records]:
    return probed.records[stage, "test"]


def _percent(records: Sequence[Records]) -> str:
    return f"{100 * sum(one.accuracy for one in records) / len(records):.1f} %"


def _at_best(ours: Probed, theirs: Probed) -> tuple[Gain, str]:
    """Best stage against best stage, each chosen on held-out images."""
    found = gain(_test(ours, ours.best), _test(theirs, theirs.best))
    words = [f"{one.plan.name} {_percent(_test(one, one.best))} on {one.best}" for one in (ours, theirs)]
    return found, f"Best stages (chosen on held-out images): {', '.join(words)}; difference {points(found)}."


def _claim(text: str, verdict: str, *evidence: str) -> dict[str, Any]:
    return {"text": text, "verdict": verdict, "evidence": " ".join(evidence)}


def _half(claimed: float) -> str:
    share = f"half of the claimed {100 * claimed:.1f} points"
    return f"Rule: holds if the whole 95 % interval reaches {share}, fails if none of it does."


def _best(noise: Probed, rotation: Probed) -> dict[str, Any]:
    claimed = (max(SOURCE[NOISE.name]) - max(SOURCE[ROTATION.name])) / 100
    found, words = _at_best(noise, rotation)
    text = f"Adversarial noise in pretraining improves the best extractor by {100 * claimed:.1f} points"
    return _claim(text, at_least(found, claimed / 2), words, _half(claimed))


def _stage(noise: Probed, rotation: Probed, stage: str) -> dict[str, Any]:
    claimed = _claimed(stage)
    found = gain(_test(noise, stage), _test(rotation, stage))
    text = f"Adversarial noise helps the later stages: {stage} by {100 * claimed:.1f} points"
    return _claim(text, at_least(found, claimed / 2), f"With noise minus without: {points(found)}.", _half(claimed))


def _competitive(noise: Probed, rotation: Probed, stage: str) -> dict[str, Any]:
    found = gain(_test(noise, stage), _test(rotation, stage))
    text = f"On {stage}, pretraining with noise is competitive (the source: {100 * _claimed(stage):+.1f} points)"
    return _claim(text, found.above(-WORSE), f"With noise minus without: {points(found)}.", _COMPETES)


def _claimed(stage: str) -> float:
    place = STAGES.index(stage)
    return (SOURCE[NOISE.name][place] - SOURCE[ROTATION.name][place]) / 100


def _fits(noise: Probed, rotation: Probed) -> dict[str, Any]:
    found = gain(noise.records[LAST, "train"], rotation.records[LAST, "train"])
    text = f"Noise resists underfitting: the probe on {LAST} fits its own training images better"
    return _claim(text, found.above(), f"Train accuracy with noise minus without: {points(found)}.", ABOVE_ZERO)


def _test_above_train(noise: Probed, rotation: Probed) -> dict[str, Any]:
    test, train = _test(noise, LAST), rotation.records[LAST, "train"]
    found = unpaired(test, train)
    text = f"On {LAST}, test accuracy with noise is above train accuracy without"
    words = f"{_percent(test)} and {_percent(train)}: {points(found)}, on different images."
    return _claim(text, found.above(), words, ABOVE_ZERO)


def _overfits(rotation: Probed) -> dict[str, Any]:
    """Overfitting is told by the gap between train and test accuracy."""
    gaps = {stage: unpaired(rotation.records[stage, "train"], _test(rotation, stage)) for stage in STAGES}
    beyond = [difference(gaps[stage], gaps[LAST]) for stage in STAGES[:-1]]
    verdict = (
        HOLDS if all(one.low > 0 for one in beyond) else FAILS if any(one.high <= 0 for one in beyond) else UNDECIDED
    )
    words = ", ".join(f"{stage} {100 * found.mean:+.1f}" for stage, found in gaps.items())
    return _claim(
        f"Probes on the first four stages overfit, and that on {LAST} does not",
        verdict,
        f"Train minus test accuracy of {ROTATION.name}, in points: {words}. Rule: holds if the gap of each of the four "
        f"is above that of {LAST} with its whole 95 % interval, fails if one of them is not above it with any of it.",
    )


def _worth(noise: Probed, longer: Probed, rotation: Probed) -> dict[str, Any]:
    found, words = _at_best(noise, longer)
    gained, _ = _at_best(noise, rotation)
    verdict = FAILS if found.low > 0 else HOLDS if found.high <= 0 else UNDECIDED
    images = noise.model_images / max(rotation.model_images, 1)
    return _claim(
        "The gain of adversarial noise does not justify its cost",
        verdict,
        f"Noise sent {noise.model_images:,} images through the network in pretraining, {images:.1f} times as many as "
        f"without ({noise.cpu_seconds:.0f} s of CPU for {rotation.cpu_seconds:.0f} s), for {100 * gained.mean:+.1f} "
        f"points; clean rotation that ran for longer sent {longer.model_images:,} ({longer.cpu_seconds:.0f} s). "
        f"{words} Rule: fails if noise is above rotation that ran for longer with its whole 95 % interval, holds if "
        "with none of it.",
    )


def _reaches(settings: Scale) -> dict[str, Any]:
    """Arithmetic: how far a zero start can get."""
    attack = make_attack(settings.noises[AS_WRITTEN], settings.threat)
    steps, step_size, eps = attack.settings["steps"], attack.settings["step_size"], attack.threat.eps
    return _claim(
        f"The source's noise has a norm of {eps:g}",
        HOLDS if steps * step_size >= eps else FAILS,
        f"{steps} steps of {step_size:g} from the image itself end at {steps * step_size:g} or less. Rule: holds if "
        "steps × step size reach eps.",
    )


def _above_zero(text: str, ours: Probed, theirs: Probed) -> dict[str, Any]:
    found, words = _at_best(ours, theirs)
    return _claim(text, found.above(), words, ABOVE_ZERO)


def _small(half: Probed, rotation: Probed) -> dict[str, Any]:
    found, words = _at_best(half, rotation)
    text = "With noise, an extractor of half the channels competes with the whole one without"
    return _claim(text, found.above(-WORSE), words, _COMPETES)


def _real(rotation: Probed, random: Probed) -> dict[str, Any]:
    stage = rotation.best
    found = gain(_test(rotation, stage), _test(random, stage))
    return _claim(
        f"Pretraining is real: rotation's best stage beats the same stage at random weights by "
        f"{100 * LEAST_REAL:.0f} points",
        at_least(found, LEAST_REAL),
        f"{stage}: {_percent(_test(rotation, stage))} and {_percent(_test(random, stage))}; {points(found)}. "
        "Rule: holds if the whole 95 % interval reaches that, fails if none of it does.",
    )


def _robust(noise: Probed, rotation: Probed, threat: str) -> dict[str, Any]:
    """One classifier each, on the images that were attacked: the first seed's probe on the best stage."""
    ours, theirs = noise.attacked[threat], rotation.attacked[threat]
    found = gain([ours], [theirs])
    interval = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    verdict = found.above()
    return _claim(
        f"Noise in pretraining makes the probe's classifier more robust ({ours.attack}, {threat})",
        verdict,
        f"Best stages, {noise.best} and {rotation.best}: {_percent([ours])} and {_percent([theirs])} of {ours.count} "
        f"images; difference {100 * found.mean:+.1f} points {interval} between these two classifiers (one probe each). "
        f"{ABOVE_ZERO}",
    )


def unpaired(ours: Sequence[Records], theirs: Sequence[Records]) -> Gain:
    """Mean accuracy of ``ours`` minus that of ``theirs`` on other images, seed by seed.

    The interval adds in quadrature Student's t over the seeds' differences (none for one seed) and the sampling errors
    of the two sets of images, which do not shrink with the number of seeds.
    """
    differences = [a.accuracy - b.accuracy for a, b in zip(ours, theirs, strict=True)]
    seeds = len(differences)
    centre = sum(differences) / seeds
    means = [(sum(one.accuracy for one in side) / seeds, side[0].count) for side in (ours, theirs)]
    sampling = sum(share * (1 - share) / count for share, count in means)
    error = math.hypot(1.96 * math.sqrt(sampling), seed_error(differences))
    return Gain(mean=centre, low=max(-1.0, centre - error), high=min(1.0, centre + error), seeds=seeds)
