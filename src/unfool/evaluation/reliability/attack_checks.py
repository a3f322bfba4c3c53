"""Checks by attacks on a few images: are gradients misleading or missing, have the attacks converged?

Athalye et al., ICML 2018, section 3.1; Carlini et al., "On Evaluating Adversarial Robustness", 2019, section 5.

Legend: B images, all classified correctly before any attack.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unfool.attacks import CWPGD, PGD, Attack, Attacked, CustomAttack, ProxySettings, Square
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Problem, of_rows
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.evaluation.records import TRANSFER
from unfool.evaluation.reliability.evidence import BLACK_BOX, GRADIENT, NOISE, Evidence
from unfool.evaluation.reliability.flags import marked, more_than_chance, too_many
from unfool.evaluation.reliability.model_checks import Subject
from unfool.evaluation.reliability.trial_runs import TrialRun, TrialRuns
from unfool.evaluation.results.reliability import Flag

STEPS = 20
"""Steps of the gradient attacks that all else is compared with."""
FACTOR = 5
"""How many times as many steps must bring nothing more."""
RESTARTS = 3
"""How many random starts must bring no more than one."""
QUERIES = 200
"""Queries of Square: where gradients mislead it wins on many images at once, and a few hundred are enough to show."""
DRAWS = 20
"""Noisy copies of each image."""
HUGE_STEPS = 40
"""Steps in a ball that holds a uniformly grey image: twice the usual, to cross a robust network's flat stretches."""
TINY = 1e-30
"""Largest gradient value below which most others have been lost to float32's underflow at 1e-38."""
FEWEST_CORRECT = 16
"""Images needed: of 16, a failing on one image in six shows up with 95 % probability."""


def huge(threat: ThreatModel, shape: tuple[int, ...]) -> ThreatModel:
    """The threat model in which half the range of every pixel of an image (C, H, W) is allowed: linf 0.5, l0 all."""
    size = math.prod(shape)
    eps = {"linf": 0.5, "l2": 0.5 * math.sqrt(size), "l1": 0.5 * size, "l0": math.prod(shape[1:])}
    return ThreatModel(threat.norm_name, eps[threat.norm_name])


class Trial:
    """Runs gradient attacks on the images of a subject, with which the checks below compare; ``fooled`` (B,) by any.

    ``evidence`` holds the outcomes of earlier evaluations; those of the checks are added to it. ``runs`` knows of
    attacks that were run before. Attacks search on a copy of the model where ``proxy`` makes one; the model confirms.
    """

    def __init__(
        self,
        subject: Subject,
        threat: ThreatModel,
        evidence: Evidence,
        streams: Streams,
        runs: TrialRuns,
        proxy: ProxySettings | None = None,
    ):
        self.runs = runs
        copied = proxy.copy(subject.model, subject.images[:4]) if proxy is not None else None
        self.proxy_objective = LabelLoss(copied, subject.labels) if copied is not None else None
        self.exact_share = proxy.exact_share if proxy is not None else 0.0
        self.earlier_seconds = 0.0
        self.subject = subject
        self.threat = threat
        self.evidence = evidence
        self.streams = streams
        self.every = torch.ones(len(subject.ids), dtype=torch.bool, device=subject.ids.device)
        known = torch.tensor(sorted(evidence.fooled_by(GRADIENT)), dtype=torch.int64, device=subject.ids.device)
        self.fooled_before = torch.isin(subject.ids, known)
        entropy, margin = PGD(threat, steps=STEPS), CWPGD(threat, steps=STEPS)
        self.entropy, self.margin = self.run("entropy", entropy, self.every), self.run("margin", margin, self.every)
        self.fooled = self.fooled_before | self.entropy.fooled | self.margin.fooled
        self.note(GRADIENT, entropy.name, self.entropy.fooled)
        self.note(GRADIENT, margin.name, self.margin.fooled)

    def run(self, what: str, attack: Attack, mask: Tensor) -> TrialRun:
        """Attack the images of a mask (B,), which the checks call ``what``; the result is of these alone."""
        rows = mask.nonzero().squeeze(1)
        subject = self.subject

        def attacked() -> Attacked:
            whole = Problem(
                objective=subject.objective,
                images=subject.images,
                ids=subject.ids,
                streams=self.streams,
                proxy_objective=self.proxy_objective,
                exact_share=self.exact_share,
            )
            return attack.run(of_rows(whole, rows))

        searched = f"{what}-bf16" if self.exact_share else what
        outcome = self.runs.run(searched, attack, subject.ids, mask, attacked)
        subject.model_images += outcome.model_images
        self.earlier_seconds += outcome.earlier_seconds
        if outcome.examples is not None and attack.threat == self.threat:
            ids = subject.ids[rows[outcome.fooled]]
            self.evidence.keep(attack.name, attack.learns_from[0], ids, outcome.examples)
        return outcome

    def fooled_by(self, what: str, attack: Attack, mask: Tensor) -> Tensor:
        """Which images (B,) of a mask an attack fools."""
        fooled = torch.zeros_like(mask)
        if mask.any():
            fooled[mask] = self.run(what, attack, mask).fooled
        return fooled

    def note(self, kind: str, name: str, fooled: Tensor) -> None:
        """Add the outcome of an attack on all images to the evidence."""
        ids = self.subject.ids
        self.evidence.add(kind, name, ids.tolist(), ids[fooled].tolist())


def vanishing_gradients(trial: Trial, zero_gradient: Tensor) -> Flag | None:
    """Flag images that are not fooled because their cross-entropy has no usable gradient.

    A gradient is not usable if it is zero at every step or next to zero on the clean image, or if the loss is exactly 0
    (rounding then leaves little of the gradient) and an attack on the margin of the logits does fool the image.
    ``zero_gradient`` are ids that earlier attacks found to be such.
    """
    subject = trial.subject
    rows = torch.arange(len(subject.ids), device=subject.ids.device)
    best_so_far = BestSoFar(subject.images, "best")
    leaves, value = best_so_far.evaluate_with_graph(subject.objective, subject.images, rows)
    slope = best_so_far.gradient(leaves, value, None, rows).flatten(1).abs().amax(1)
    subject.model_images += best_so_far.model_images
    saturated = (value.losses.detach() == 0) & trial.margin.fooled
    missing = (trial.entropy.zero_gradient | (slope < TINY) | saturated) & ~trial.entropy.fooled
    here = set(subject.ids[missing].tolist())
    known = set(zero_gradient.tolist()) - trial.evidence.fooled_by(GRADIENT)
    count, total = len(here), len(missing)
    if not too_many(count, total):
        count, total = len(known), len(trial.evidence.tried[GRADIENT])
        if not too_many(count, total):
            return None
    text = (
        f"{count} of {total} images stood because the cross-entropy has no usable gradient there: they were not "
        "attacked at all; attack with cw-pgd, apgd-dlr, square and by transfer, and replace what cuts the gradient"
    )
    return Flag(name="vanishing-gradients", text=text, share=count / total, images=sorted(here | known))


def black_box_wins(trial: Trial) -> Flag | None:
    """Flag images that Square, or another attack without gradients, fools and gradient attacks do not."""
    attack = Square(trial.threat, steps=QUERIES)
    trial.note(BLACK_BOX, attack.name, trial.fooled_by("square", attack, ~trial.fooled))
    names = ", ".join(trial.evidence.missed_by_gradients(BLACK_BOX))
    return _wins(trial.evidence, BLACK_BOX, "black-box-wins", f"attacks that use no gradients ({names})")


def noise_wins(trial: Trial) -> Flag | None:
    """Flag images that random noise of full strength fools and gradient attacks do not."""
    subject = trial.subject
    fooled = torch.zeros_like(trial.fooled)
    for draw in range(DRAWS):
        rows = (~(trial.fooled | fooled)).nonzero().squeeze(1)
        if not len(rows):
            break
        origins = subject.images[rows]
        noise = trial.streams.named("noise").at(draw).normal(subject.ids[rows], tuple(origins.shape[1:]))
        # The steepest step along noise reaches the edge of the ball: random signs in linf, a direction in l2.
        noisy = trial.threat.project(
            origins + trial.threat.steepest(noise, origins, origins, trial.threat.eps), origins
        )
        wrong = subject.logits(noisy).argmax(1) != subject.labels[rows]
        fooled[rows] = wrong
        trial.evidence.keep("noise", "nothing", subject.ids[rows[wrong]], noisy[wrong])
    trial.note(NOISE, f"noise, {DRAWS} draws", fooled)
    return _wins(trial.evidence, NOISE, "noise-wins", "random noise")


def transfer_wins(trial: Trial) -> Flag | None:
    """Flag images that examples from another model fool and gradient attacks do not."""
    return _wins(trial.evidence, TRANSFER, "transfer-wins", "examples crafted on another model")


def _wins(evidence: Evidence, kind: str, name: str, attacker: str) -> Flag | None:
    ids = sorted(set().union(*evidence.missed_by_gradients(kind).values()))
    total = evidence.compared(kind)
    if not too_many(len(ids), total):
        return None
    text = (
        f"{attacker} fooled {len(ids)} of {total} images that gradient attacks left standing: the gradients mislead, "
        "and the robust accuracy is too high; report the worst case over attacks, and look for what masks the gradients"
    )
    return Flag(name=name, text=text, share=len(ids) / total, images=ids)


def stands_at_any_size(trial: Trial) -> Flag | None:
    """Flag images that are not fooled within a ball in which every image can be made uniformly grey."""
    threat = huge(trial.threat, tuple(trial.subject.images.shape[1:]))
    standing = trial.every
    for attack in (PGD(threat, steps=HUGE_STEPS), CWPGD(threat, steps=HUGE_STEPS)):
        standing = standing & ~trial.fooled_by("any-size", attack, standing)
    if not too_many(int(standing.sum()), len(standing)):
        return None
    return marked(
        "stands-at-any-size",
        standing,
        trial.subject.ids,
        f"{{count}} of {{total}} images stood at {threat.norm_name} {threat.eps:.4g}, where any image can become any "
        "other: it is the attack that fails, not the model that holds; look for what masks the gradients",
    )


def more_steps_win(trial: Trial, attacks: Sequence[Attack]) -> Flag | None:
    """Flag images that only `FACTOR` times as many steps fool: of the longest attack, or of PGD if that is longer."""
    part = _longest(attacks, trial.threat)
    if part is None:
        few = PGD(trial.threat, steps=STEPS)
        part, standing = few.parts[0], ~trial.fooled
    else:
        few = CustomAttack(trial.threat, label=part.name, components=(part,))
        standing = ~(trial.fooled_before | trial.fooled_by("few-steps", few, trial.every))
    engine: Any = part.engine
    # Under one name both draw the same start: the longer run is the shorter one, continued.
    longer = dataclasses.replace(engine, steps=engine.steps * FACTOR, goal="success")
    many = CustomAttack(trial.threat, label=few.name, components=(dataclasses.replace(part, engine=longer),))
    won = trial.fooled_by(f"{longer.steps}-steps", many, standing)
    return _gained(trial, "more-steps-win", won, f"{longer.steps} steps instead of {engine.steps}")


def _longest(attacks: Sequence[Attack], threat: ThreatModel) -> Part | None:
    """The part in use that takes most steps; None if one takes `STEPS` or more, or sets its own number."""
    parts = [part for attack in attacks if attack.threat == threat for part in attack.parts if part.follows_gradients]
    steps = [part.engine.steps if isinstance(part.engine, ProjectedGradient) else STEPS for part in parts]
    return parts[steps.index(max(steps))] if parts and 0 < max(steps) < STEPS else None


def more_restarts_win(trial: Trial) -> Flag | None:
    """Flag images that PGD fools only from one of several random starts."""
    again = PGD(trial.threat, steps=STEPS, restarts=RESTARTS - 1, label=f"pgd-{STEPS} again")
    return _gained(
        trial, "more-restarts-win", trial.fooled_by("again", again, ~trial.fooled), f"{RESTARTS} starts instead of one"
    )


def _gained(trial: Trial, name: str, won: Tensor, what: str) -> Flag | None:
    if not more_than_chance(int(won.sum()), len(won)):
        return None
    return marked(
        name,
        won,
        trial.subject.ids,
        f"{{count}} of {{total}} images fell to PGD only with {what}: the attack has not converged, and the robust "
        "accuracy is too high; attack with more steps and restarts, or with apgd-t",
    )
