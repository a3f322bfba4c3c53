"""Whether parts of a model block its gradient, and which: those that jump, that detach, or whose gradient is wrong.

Legend: B images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.evaluation.reliability.model_checks import Subject
from unfool.evaluation.reliability.precision import unrounded_float32
from unfool.evaluation.results.reliability import Flag
from unfool.models.surrogates.probing import Probe, probe

MOST_IMAGES, MOST_VALUES = 16, 2**18
"""Images that are looked at, and values in them: a pass that is cut keeps several copies of every activation."""
MOVES = (1 / 64, 1 / 16, 1 / 4, 1)
"""How far the images are moved, as shares of the allowed perturbation: along short moves continuous pieces are next to
linear, and few places jump."""
LEAST_MOVE = 1 / 255
"""Of each pixel."""


@unrounded_float32()
def probed(model: nn.Module, images: Tensor, threat: ThreatModel, streams: Streams) -> Probe:
    """Look for parts of a model that block gradients, on the first few of some images (B, C, H, W)."""
    few = images[: max(2, min(MOST_IMAGES, MOST_VALUES // images[0].numel()))]
    whole = float(threat.norm(torch.ones_like(few[:1])))
    size = max(LEAST_MOVE, threat.eps / whole)
    signs = streams.normal(torch.arange(len(few)), tuple(few.shape[1:])).to(few).sign()
    return probe(model, few, [(few + share * size * signs).clamp(0, 1) for share in MOVES])


def blocked_gradients(subject: Subject, threat: ThreatModel, streams: Streams) -> Flag | None:
    """Flag a model of which a part lets no usable gradient pass; for one that is not `half`."""
    blocked = probed(subject.model, subject.images, threat, streams)
    subject.model_images += blocked.model_images
    if not blocked.masked:
        return None
    text = (
        f"no usable gradient passes {blocked.words}: what comes out changes otherwise than the gradient says, so that "
        "attacks that follow it fail; attack with lean, which passes the gradient straight through, or leave the part "
        "out and replay the examples"
    )
    return Flag(name="blocked-gradients", text=text)
