"""Tasks that a stage's perturbation leaves alone: their views stay as they are, and their losses are the plain ones."""

import dataclasses

import pytest
import torch
from test_stage import make_stage
from tiny_runs import contrast, inpainting, labels, make_table, stage

from unfool.cli.parsing.tasks import read_tasks
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.training import StageConfig

TASKS = {"labels": labels(augmentation="none"), "contrast": dataclasses.replace(contrast(), perturbed=False)}


def losses(made):
    return made(make_table().batch(torch.arange(12)), Streams(5))[0]


@pytest.mark.parametrize("adversarial", ["plain", "trades", "mart", "dual-stream"])
def test_its_losses_are_those_of_a_stage_without_a_perturbation(adversarial):
    made = make_stage(stage(TASKS, perturb="pgd-2", adversarial=adversarial))
    plain, found = losses(make_stage(stage(TASKS))), losses(made)
    # In train mode each pass has the statistics of its own batch, so that other passes change nothing here.
    assert torch.equal(found["contrast"], plain["contrast"])
    assert not torch.equal(found["labels"], plain["labels"])
    passes = {"plain": 2 + 1, "trades": 1 + 2 + 2, "mart": 2 + 2, "dual-stream": 2 + 2}[adversarial]
    # PGD takes one more look where it starts at random
    assert made.model_images == 12 * (passes + 2)


def test_tasks_on_the_same_views_are_told_apart():
    tasks = {"labels": TASKS["labels"], "again": dataclasses.replace(TASKS["labels"], perturbed=False)}
    plain = losses(make_stage(stage(tasks)))
    found = losses(make_stage(stage(tasks, perturb="pgd-2")))
    assert torch.equal(found["again"], plain["again"])
    assert found["labels"].mean() > plain["labels"].mean()


def test_with_separate_statistics_it_goes_through_the_network_s_own():
    tasks = {"contrast": contrast(), "second": TASKS["contrast"]}
    made = make_stage(stage(tasks, perturb="pgd-1", adversarial="dual-stream", statistics="separate"))
    with torch.no_grad():
        for norm in made.clean_norms.norms:
            norm.weight.mul_(3)
    theirs = make_stage(stage(tasks))
    assert torch.equal(losses(made)["second"], losses(theirs)["second"])


def test_a_perturbation_of_nothing_is_refused():
    with pytest.raises(SpecError, match="the views of no task: set perturbed=true for one, or leave perturb"):
        StageConfig(tasks={"contrast": TASKS["contrast"]}, perturb="fgsm")


def test_other_tasks_stand_beside_trades_only_unperturbed():
    tasks = {"labels": labels(), "inpainting": inpainting()}
    with pytest.raises(SpecError, match="perturbed=false for that one"):
        make_stage(stage(tasks, perturb="pgd-1", adversarial="trades"))
    make_stage(stage({**tasks, "inpainting": dataclasses.replace(inpainting(), perturbed=False)}, perturb="pgd-1"))


def test_it_is_said_on_the_command_line():
    tasks = read_tasks(["labels", "contrast:perturbed=false,temperature=0.2"], None)
    assert [task.perturbed for task in tasks.values()] == [True, False]
    assert tasks["contrast"].settings == {"temperature": 0.2}
