"""Pretraining under attack: any task without labels is moved uphill on its own loss, and crafting leaves no trace."""

import copy

import pytest
import torch
from test_stage import make_stage
from tiny_runs import make_table, stage

from unfool.core.streams import Streams
from unfool.tasks import TASKS, make_task
from unfool.training import TaskConfig

PRETEXT = [name for name in TASKS if not make_task(name).needs]
VARIANTS = {
    "contrast": [{"negatives": "queue", "bank": 20}, {"loss": "multi-positive", "views": 3}],
    "rotation": [{"turns": "one"}],
    "jigsaw": [{"grid": 3, "count": 30, "permutations": "original"}],
}
EACH = pytest.mark.parametrize(
    ("name", "values"), [(name, values) for name in PRETEXT for values in ({}, *VARIANTS.get(name, []))]
)
STARTS = pytest.mark.parametrize("start", ["random_start=true", "random_start=false"])
SMALL = {"contrast": {"size": 6}}


def pretext(name, values, weight=1.0):
    return TaskConfig(task=name, weight=weight, settings={**SMALL.get(name, {}), **values})


def losses_on(made, group):
    """Losses of a group's views by task, in eval mode."""
    first = next(iter(group.values()))
    with torch.no_grad():
        found = made.network.features_at(first.images, {views.stage for views in group.values()})
        return {name: made.tasks[name].losses(found[views.stage], views) for name, views in group.items()}


@STARTS
@EACH
def test_views_climb_the_task_s_own_loss_inside_the_ball(name, values, start):
    made = make_stage(
        stage({name: pretext(name, values)}, perturb=f"pgd-5:{start},step_size=0.004", threat="linf:0.02")
    )
    (group,) = made._view_pairs(make_table(count=24).batch(torch.arange(24)), Streams(3))
    clean, moved = group.clean[name].images, group.perturbed[name].images
    assert float((moved - clean).abs().max()) <= 0.02 + 1e-6
    assert ((moved - clean).flatten(1).abs().amax(1) > 0.01).all()
    assert 0.0 <= float(moved.min()) <= float(moved.max()) <= 1.0
    made.eval()
    easier, harder = losses_on(made, group.clean)[name], losses_on(made, group.perturbed)[name]
    assert harder.mean() > easier.mean()
    # The climb is on this network's own loss: a network of another seed is hurt less.
    other = make_stage(stage({name: pretext(name, values)}), seed=1).eval()
    strange = (losses_on(other, group.perturbed)[name] - losses_on(other, group.clean)[name]).mean()
    assert (harder - easier).mean() > strange


@STARTS
@EACH
def test_crafting_leaves_weights_statistics_modes_and_queue_as_they_were(name, values, start):
    made = make_stage(stage({name: pretext(name, values)}, perturb=f"pgd-2:{start},step_size=8/255"))
    before = copy.deepcopy(made.state_dict())
    list(made._view_pairs(make_table().batch(torch.arange(8)), Streams(0)))
    after = made.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(part.training for part in made.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in made.parameters())


def test_tasks_together_climb_their_weighted_sum():
    tasks = {name: pretext(name, {}, weight=0.5 + number) for number, name in enumerate(PRETEXT)}
    made = make_stage(stage(tasks, perturb="pgd-3", threat="linf:0.02"))
    groups = list(made._view_pairs(make_table().batch(torch.arange(12)), Streams(0)))
    assert sorted(name for group in groups for name in group.perturbed) == sorted(PRETEXT)
    made.eval()
    for group in groups:
        totals = [made.total(losses_on(made, views)) for views in (group.clean, group.perturbed)]
        assert totals[1] > totals[0]


def test_the_start_is_what_was_asked_for():
    tasks = {"rotation": pretext("rotation", {"turns": "one"})}
    seen = {}
    for start in ("true", "false"):
        made = make_stage(stage(tasks, perturb=f"pgd-1:random_start={start},step_size=0.02", threat="linf:0.02"))
        found = seen.setdefault(start, [])
        entry = made.network.trunk.parts["stem"]
        entry.register_forward_pre_hook(lambda _, args, found=found: found.append(args[0].detach()))
        (group,) = made._view_pairs(make_table().batch(torch.arange(8)), Streams(0))
        clean = (group.clean["rotation"].images - made.network.mean) / made.network.std
        assert torch.equal(found[0], clean) == (start == "false")
