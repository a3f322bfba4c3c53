"""The one set of examples that the steps of a lean attack come to.

Legend: N images of the table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.lean.judged import JudgedSet, judged
from unfool.evaluation.lean.replay import replayed
from unfool.evaluation.lean.run import LeanRun, Reached
from unfool.evaluation.lean.steps import with_success_passes
from unfool.evaluation.records import REMARK


def whole_set(run: LeanRun, reached: Reached, cpu_seconds: float = 0.0, model_images: int = 0) -> AdversarialSet:
    """One set of all steps, with what they cost together and, under `REMARK`, what was done and left out.

    ``cpu_seconds`` and ``model_images`` are what was spent beside the steps.
    """
    outcome, short = reached.outcome, reached.sets[0].examples
    whole, remark = short, outcome.sentence()
    cpu_seconds += sum(each.cpu_seconds for each in reached.sets)
    model_images += sum(each.model_images for each in reached.sets)
    if run.dependent:
        started = time.process_time()
        whole, _ = run.together("whole", reached.sets, reached.origin)
        cpu_seconds += time.process_time() - started
        model_images += whole.model_images
    elif outcome.fell or run.random:
        started = time.process_time()
        ids = run.table.ids
        chosen = _ids_by_set(ids, reached.sets) if run.random else None
        sets, settings = [each.examples for each in reached.sets], dict(run.attack.settings)
        replay = replayed(run.attack.name, run.attack.threat, sets, settings, chosen)
        whole = run.crafted("whole", run.table, with_success_passes(run, replay))
        last = judged(run.model, whole, random=run.random)
        cpu_seconds += time.process_time() - started
        model_images += last.model_images
        if last.draws is not None:
            remark = f"{remark}; {last.draws.sentence()}"
    values: Mapping[str, Any] = {**short.settings, REMARK: remark}
    return replace(whole, settings=values, cpu_seconds=cpu_seconds, model_images=model_images)


def _ids_by_set(ids: Tensor, sets: Sequence[JudgedSet]) -> list[Tensor]:
    """For each set the ids of the images (N,) that come from it: those that it fools in most draws of the model."""
    judgements = [each.draws for each in sets if each.draws is not None]
    draws = max(each.draws for each in judgements)
    right = torch.full((len(judgements), len(ids)), draws + 1)
    order = ids.argsort()
    for row, each in zip(right, judgements, strict=True):
        row[order[torch.searchsorted(ids[order], each.ids)]] = each.right
    best = right.argmin(0)
    # An image that nothing fools in any draw stays as it was attacked first.
    return [ids[(best == index) & (right[index] < draws)] for index in range(len(judgements))]
