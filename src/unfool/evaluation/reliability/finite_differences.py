"""Whether the gradient is the model's own: a small step must change the margin by as much as the gradient says.

A straight-through estimator, a detached part or the backward pass of another function gives gradients that lead
elsewhere; thresholds, top-k and rounding make a model jump where its gradient sees nothing. Honest networks keep to
their gradients within a few percent, however they were trained.

Legend: B images, all classified correctly before any attack.
"""

from __future__ import annotations

import torch

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.core.threat import ThreatModel
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.reliability.model_checks import Subject
from unfool.evaluation.reliability.precision import unrounded_float32
from unfool.evaluation.results.reliability import Flag

PARTS = 64
"""The step is eps divided by this: short enough that an honest network is next to linear along it."""
ROOM = 0.02
"""How much contrast the images lose first, so that no pixel leaves the box."""
OFF, OFF_SHARE = 0.25, 0.1
"""An image is off if the change differs by more than this from what the gradient says; so many may be."""
MEDIAN_OFF = 0.04
"""How far the median over images may be off; of honest networks it is 0.99 to 1.00."""
SPARSE_STEP = ThreatModel("l2", 0.5)
"""Of what the step is a part in l0, where the shortest one would bring a whole pixel to the edge of the box."""
LEAST = 1e-5
"""Change of the margin, relative to the logits, below which float32's roundings say more than the model."""


@unrounded_float32()
def wrong_gradients(subject: Subject, threat: ThreatModel) -> Flag | None:
    """Flag a model whose margin does not change along its gradient as the gradient says; for one that is not `half`."""
    rows = torch.arange(len(subject.ids), device=subject.ids.device)
    images = subject.images * (1 - ROOM) + ROOM / 2
    objective = subject.objective.with_loss("margin")
    best_so_far = BestSoFar(images, "best")
    leaves, value = best_so_far.evaluate_with_graph(objective, images, rows)
    gradient = best_so_far.gradient(leaves, value, None, rows)
    small = SPARSE_STEP if threat.norm_name == "l0" else threat
    step = small.steepest(gradient, images, images, small.eps / PARTS)
    with torch.no_grad():
        ahead, behind = objective(images + step, rows).losses, objective(images - step, rows).losses
        scale = objective.logits(images, rows).abs().amax(1)
    subject.model_images += 4 * len(rows)
    expected = 2 * (gradient.double() * step.double()).flatten(1).sum(1)
    seen = expected > LEAST * scale
    if int(seen.sum()) < len(rows) / 2 or not len(rows):
        return None
    ratios = ((ahead - behind).double() / expected.clamp(min=1e-300))[seen]
    off = (ratios - 1).abs() > OFF
    count, total, median = int(off.sum()), len(ratios), float(ratios.median())
    if not (too_many(count, total) and count > OFF_SHARE * total) and abs(median - 1) <= MEDIAN_OFF:
        return None
    text = (
        f"along its gradient the margin changes by {median:.2f} of what the gradient says (median of {total} images, "
        f"of which {count} are off by more than {OFF:.0%}): the gradient is another function's, or the model jumps "
        "where it sees nothing, as at thresholds; attack with square and by transfer, and replace what bends it"
    )
    return Flag(name="wrong-gradients", text=text, share=count / total, images=subject.ids[seen][off].tolist())
