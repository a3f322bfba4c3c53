"""Which statistics each pass of training takes: the one place that decides it.

Learning passes normalise by the statistics of their own batch. TRADES, MART and the dual stream show the clean views in
one pass and the perturbed ones in the next; both move the running statistics, in this order, as in the authors' code.
With separate statistics clean views have a bank of their own, also while examples are crafted; with shared ones every
bank is the main one. The views of a task that is not perturbed always use the main bank, behind which its head is used
afterwards.

Tiles have other statistics than whole images. Where some task of a stage shows whole images, tiles use the running
statistics: by their own, their head would learn features that nobody shows it afterwards, and in the running ones they
would spoil those of the classifier beside them. Where there are tiles alone, they are like any other views.

Examples are crafted on the running statistics, which crafting leaves alone (TRADES' and MART's authors do so too; Fast
AT's craft in train mode). A score is a second look at features that are there already, and leaves no trace in the norms
of a head. The pass that finds a weight perturbation uses what the learning pass uses, and its traces are undone. What
is not trainable uses running statistics in every pass, and so does everything in a stage in eval mode, which learns
nothing.
"""

from __future__ import annotations

from enum import Enum

from unfool.models.norms import NormContext

_BATCH, _RUNNING = NormContext(statistics="batch"), NormContext(statistics="running")
_CLEAN_BATCH = NormContext(statistics="batch", bank="clean")
_CLEAN_RUNNING = NormContext(statistics="running", bank="clean")


class Pass(Enum):
    """What a pass through trunk or heads is for."""

    OWN_VIEWS = "views that are not perturbed"
    PERTURBED_VIEWS = "perturbed views"
    CLEAN_VIEWS = "clean views beside perturbed ones"
    TILES = "tiles beside whole images, perturbed or not"
    CLEAN_TILES = "clean tiles beside perturbed ones and whole images"
    HEADS = "the heads, whatever views their features are of"
    CRAFTING = "perturbed views while they are crafted"
    CRAFTING_CLEAN = "clean views that crafting compares with"
    CRAFTING_HEADS = "the heads while examples are crafted"
    SCORES = "the heads, for scores beside the losses"
    EARLY_STOPPING = "accuracies on held-out images"


POLICY = {
    Pass.OWN_VIEWS: _BATCH,
    Pass.PERTURBED_VIEWS: _BATCH,
    Pass.CLEAN_VIEWS: _CLEAN_BATCH,
    Pass.TILES: _RUNNING,
    Pass.CLEAN_TILES: _CLEAN_RUNNING,
    Pass.HEADS: _BATCH,
    Pass.CRAFTING: _RUNNING,
    Pass.CRAFTING_CLEAN: _CLEAN_RUNNING,
    Pass.CRAFTING_HEADS: _RUNNING,
    Pass.SCORES: _RUNNING,
    Pass.EARLY_STOPPING: _RUNNING,
}
"""The context of each pass in a stage with separate statistics."""


def context_of(purpose: Pass, *, separate: bool = False, training: bool = True) -> NormContext:
    """The context of a pass, in a stage with ``separate`` or shared statistics that is ``training`` or in eval mode."""
    context = POLICY[purpose]
    return NormContext(
        statistics=context.statistics if training else "running", bank=context.bank if separate else "main"
    )
