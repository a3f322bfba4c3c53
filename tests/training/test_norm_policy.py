"""Which pass takes which statistics, seen at the norms of a network while a stage trains; and the policy as a whole."""

import pytest
import torch
from test_stage import make_stage
from tiny_runs import contrast, labels, make_table, stage

from unfool.core.streams import Streams
from unfool.models.norms import BankedBatchNorm2d
from unfool.training import TaskConfig
from unfool.training.norm_policy import POLICY, Pass, context_of

TILES = TaskConfig(task="jigsaw", settings={"form": "context-free", "count": 6, "hidden": 8})


def watched(config, side=16):
    """Passes of a step through the trunk's first norm: images, statistics, bank."""
    made = make_stage(config)
    norm = next(part for part in made.network.trunk.modules() if isinstance(part, torch.nn.BatchNorm2d))
    seen = []

    def note(part, args):
        seen.append((len(args[0]), "batch" if part.training else "running", getattr(part, "bank", "main")))

    norm.register_forward_pre_hook(note)
    made(make_table(side=side).batch(torch.arange(8)), Streams(0))
    assert norm.training
    assert getattr(norm, "bank", "main") == "main"
    return seen


def test_every_pass_has_its_context():
    assert set(POLICY) == set(Pass)
    for purpose in Pass:
        assert context_of(purpose).bank == "main"
        assert context_of(purpose, separate=True, training=False).statistics == "running"
        assert ("CLEAN" in purpose.name) == (context_of(purpose, separate=True).bank == "clean")


def test_crafting_takes_the_running_statistics_and_learning_those_of_the_batch():
    seen = watched(stage(perturb="pgd-2", adversarial="trades"))
    running, batch = (8, "running", "main"), (8, "batch", "main")
    assert seen == [running, running, running, batch, batch]


@pytest.mark.parametrize(("adversarial", "clean"), [("one-view", 8), ("dual-stream", 16)])
def test_separate_statistics_give_clean_views_their_own_bank(adversarial, clean):
    tasks = {"contrast": contrast(), "labels": TaskConfig(task="labels", perturbed=False)}
    seen = watched(stage(tasks, perturb="pgd-1", adversarial=adversarial, statistics="separate"))
    moved = 16 if adversarial == "dual-stream" else 8
    expected = [(8, "running", "clean")] * (adversarial == "one-view") + [(moved, "running", "main")]
    expected += [(clean, "batch", "clean"), (moved, "batch", "main")]
    # Labels are not perturbed: their head is used behind the main bank afterwards.
    assert sorted(seen) == sorted([*expected, (8, "batch", "main")])


@pytest.mark.parametrize("beside", [True, False])
def test_tiles_take_the_running_statistics_beside_whole_images_alone(beside):
    tasks = {"puzzle": TILES} | ({"labels": labels()} if beside else {})
    settings = {"perturb": "pgd-1", "adversarial": "dual-stream", "statistics": "separate"}
    seen = [entry for entry in watched(stage(tasks, **settings), side=32) if entry[0] == 32]
    learning = "running" if beside else "batch"
    assert seen == [(32, "running", "main"), (32, learning, "clean"), (32, learning, "main")]


def test_a_stage_in_eval_mode_learns_nothing_and_moves_nothing():
    made = make_stage(stage({"contrast": contrast(head_norm="batch", negatives="queue", bank=20)})).eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(make_table().batch(torch.arange(8)), Streams(0))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_shared_statistics_need_no_banks():
    made = make_stage(stage({"contrast": contrast()}, perturb="pgd-1", adversarial="dual-stream"))
    assert not any(isinstance(part, BankedBatchNorm2d) for part in made.network.modules())
