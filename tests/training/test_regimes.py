"""Joint, or the classifier first: two ways to learn the same tasks, from one description."""

import dataclasses

import pytest
import torch
from tiny_runs import contrast, labels, make_table, run, stage

from unfool.core.errors import SpecError
from unfool.training import TaskConfig, in_regime, train

TASKS = {"labels": labels(), "contrast": contrast(), "turns": TaskConfig(task="rotation", weight=0.5)}


def described(**settings):
    return stage(TASKS, learning_rate=0.01, perturb="pgd-1", epochs=1, **settings)


def test_joint_is_the_stage_itself():
    assert in_regime("joint", described()) == (described(),)


def test_the_classifier_comes_first_as_described_then_the_heads_of_the_others_on_clean_views():
    first, then = in_regime("classifier-first", described(held_out=4, awp=0.01), {"epochs": 3})
    assert dataclasses.replace(first, tasks=TASKS) == described(held_out=4, awp=0.01)
    assert first.tasks == {"labels": labels()}
    assert then.tasks == {name: TASKS[name] for name in ("contrast", "turns")}
    assert (then.trainable, then.perturb, then.held_out, then.awp, then.epochs) == ("heads", None, 0, 0.0, 3)
    assert (then.learning_rate, then.batch_size) == (0.01, first.batch_size)


def test_the_second_stage_leaves_the_classifier_alone(tmp_path):
    first, then = in_regime("classifier-first", described(), {"learning_rate": 0.1})
    both, alone = run(first, then), run(first)
    ends = [train(config, make_table(), tmp_path / str(number)).network for number, config in enumerate((both, alone))]
    whole, classifier = (network.state_dict() for network in ends)
    assert all(torch.equal(whole[name], value) for name, value in classifier.items())
    assert set(ends[0].heads) == set(TASKS)


@pytest.mark.parametrize("kept", [["labels"], ["contrast", "turns"]])
def test_a_regime_needs_both_kinds_of_tasks(kept):
    lone = stage({name: TASKS[name] for name in kept})
    assert in_regime("joint", lone) == (lone,)
    with pytest.raises(SpecError, match="none of them with"):
        in_regime("classifier-first", lone)


def test_misspelt_regimes_and_settings_are_answered_with_the_nearest():
    with pytest.raises(SpecError, match="did you mean 'joint'"):
        in_regime("join", described())
    with pytest.raises(SpecError, match="did you mean 'epochs'"):
        in_regime("classifier-first", described(), {"epoch": 1})


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ({"trainable": "all"}, "given trainable, and"),
        ({"tasks": {"labels": labels()}}, "given tasks, and"),
        ({"perturb": "pgd-2", "epochs": 3, "awp": 0.01}, "given perturb, awp, and"),
        *(({key: getattr(described(), key)}, f"given {key}, and") for key in ("adversarial", "statistics", "held_out")),
    ],
)
def test_what_the_regime_decides_of_the_heads_cannot_be_set(then, words):
    with pytest.raises(SpecError, match=words) as refusal:
        in_regime("classifier-first", described(), then)
    assert "leave them out" in str(refusal.value)
    assert "\n" not in str(refusal.value)
