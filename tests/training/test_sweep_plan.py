"""What a sweep would train: names, values, combinations, and what it refuses before anything is trained."""

import dataclasses
import math

import pytest
from tiny_runs import contrast, labels, make_table, run, stage

from unfool import Linf
from unfool.core.errors import DataError, SpecError
from unfool.training.sweeping.fields import named_fields
from unfool.training.sweeping.plan import plan_sweep
from unfool.training.sweeping.variation import MOST_RUNS, plan_runs

TWO = run(stage({"labels": labels(), "contrast": contrast()}, held_out=12), stage({"labels": labels()}))
ONE = run(stage({"labels": labels()}, held_out=12, epochs=4))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("seed", ["seed"]),
        ("trunk", ["trunk"]),
        ("widths", ["trunk.widths"]),
        ("stages.0.learning_rate", ["stages.0.learning_rate"]),
        ("stages.1.learning-rate", ["stages.1.learning_rate"]),
        ("stages.*.epochs", ["stages.0.epochs", "stages.1.epochs"]),
        ("*.epochs", ["stages.0.epochs", "stages.1.epochs"]),
        ("temperature", ["stages.0.tasks.contrast.settings.temperature"]),
        ("contrast.weight", ["stages.0.tasks.contrast.weight"]),
        ("stages.*.labels.weight", ["stages.0.tasks.labels.weight", "stages.1.tasks.labels.weight"]),
        ("0.tasks.*.weight", ["stages.0.tasks.labels.weight", "stages.0.tasks.contrast.weight"]),
    ],
)
def test_a_name_stands_for_fields(name, fields):
    assert list(named_fields(name, TWO)) == fields


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learning_rat", "did you mean 'learning_rate'"),
        ("lr", "did you mean 'learning_rate'"),
        (
            "epochs",
            "epochs is a field of stages.0.epochs and of stages.1.epochs; write one of these, or stages.*.epochs",
        ),
        ("labels.weight", r"or stages\.\*\.tasks\.\*\.weight for all"),
        ("stages.2.epochs", "unknown field of the run 'stages.2.epochs': its stages are numbered from 0 to 1"),
        ("data", "data cannot be varied"),
        ("stages.0.tasks", "tasks cannot be varied"),
        ("", "unknown field"),
        ("*", "unknown field"),
        ("stages.", "unknown field"),
    ],
)
def test_other_names_are_refused_in_one_line(name, message):
    with pytest.raises(SpecError, match=message) as error:
        named_fields(name, TWO)
    assert "\n" not in str(error.value)


def test_all_combinations_are_trained_and_equal_ones_once():
    runs = plan_runs(ONE, {"learning_rate": ["0.1", 0.10, "1e-1", 0.2], "seed": range(2), "widths": [[4, 8, 8]]})
    assert [(each.config.stages[0].learning_rate, each.config.seed) for each in runs] == [
        (0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)
    ]  # fmt: skip
    assert runs[0].values == {"learning_rate": 0.1, "seed": 0, "widths": "[4, 8, 8]"}
    assert runs[0].setting == runs[1].setting != runs[2].setting
    assert runs[0].folder == f"learning-rate-0.1-seed-0-widths-4-8-8-{runs[0].identity}"


def test_equal_threat_models_are_one_run_however_they_are_written():
    runs = plan_runs(ONE, {"threat": ["linf:16/510", "linf: 8/255", Linf(8 / 255), "l2:.5", "l2:0.5", "linf:4/255"]})
    assert [each.values["threat"] for each in runs] == ["linf:8/255", "l2:0.5", "linf:4/255"]
    [own] = plan_runs(dataclasses.replace(ONE, seed=0), {"seed": [0]})
    [other] = plan_runs(run(stage({"labels": labels()}, held_out=12, epochs=4, threat="linf:16/510")), {"seed": [0]})
    assert (own.identity, own.config.to_yaml()) == (other.identity, other.config.to_yaml())


def test_a_run_is_known_by_its_configuration_whatever_was_varied():
    by_seed = plan_runs(ONE, {"seed": [0, 3]})[1]
    by_both = plan_runs(ONE, {"learning_rate": [0.01, 0.5], "seed": [3]})[0]
    assert by_seed.config == by_both.config
    assert by_seed.identity == by_both.identity
    assert by_seed.folder != by_both.folder


def test_a_field_and_what_holds_it_are_varied_together():
    runs = plan_runs(ONE, {"trunk.widths": ["4-8-8", "4-8-16"], "trunk": [{"name": "convnet", "stem": "strided"}]})
    assert [(each.config.trunk.settings.stem, each.config.trunk.settings.widths) for each in runs] == [
        ("strided", (4, 8, 8)), ("strided", (4, 8, 16))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "nothing is varied"),
        ({"seed": []}, "seed has no values"),
        ({"learning_rate": ["fast"]}, "learning_rate=fast.*valid number"),
        ({"learning_rate": [-1]}, "greater than 0"),
        ({"optimizer": ["adm"]}, "did you mean 'adam'"),
        ({"perturb": ["pgf-1"]}, "pgf"),
        ({"seed": range(MOST_RUNS + 1)}, "too many"),
        ({"seed": [1], "run.seed": [2]}, "unknown field"),
        ({"learning_rate": [1], "stages.0.learning_rate": [2]}, "are the same field"),
        ({"trunk": ["convnet"], "trunk.widths": ["4-8-8"]}, "trunk.widths has no place in 'convnet'"),
        ({"augmentation": ["sim"]}, "augmentation"),
        ({"beta": [1, 3]}, r"^beta does nothing without adversarial trades or mart; give both, or neither$"),
        ({"stages.*.drop-every": [1, 3]}, r"^stages.\*.drop-every does nothing without schedule step"),
        ({"momentum": [0.5, 0.9], "seed": [0, 1]}, "^momentum does nothing without optimizer sgd"),
        ({"epochs": [1], "steps": [3, 5]}, "^epochs does nothing beside steps; give one of the two"),
        ({"held_out": [0], "threat": ["l2:1", "l2:2"]}, "^threat does nothing without perturb"),
    ],
)
def test_values_are_checked_before_anything_is_trained(vary, message):
    with pytest.raises(SpecError, match=message) as error:
        plan_runs(ONE, vary)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "vary",
    [
        {"optimizer": ["adam", "sgd"], "momentum": [0.5, 0.9]},
        {"adversarial": ["plain", "trades"], "perturb": ["fgsm"], "beta": [1, 3]},
        {"held_out": [0], "perturb": ["none", "fgsm"], "threat": ["l2:1"]},
    ],
)
def test_a_field_that_does_something_in_some_runs_may_be_varied(vary):
    vary = {**vary, "perturb": [None if each == "none" else each for each in vary.get("perturb", ["fgsm"])]}
    assert len(plan_runs(ONE, vary)) == math.prod(map(len, vary.values()))


RATES = {"learning_rate": [0.01, 0.02, 0.03, 0.04]}


@pytest.mark.parametrize(
    ("config", "vary", "settings", "message"),
    [
        (run(), RATES, {}, "no stage holds any out; set held_out"),
        (ONE, RATES, {"metric": "accuracy"}, "unknown metric 'accuracy'"),
        (ONE, {"held_out": [12, 13]}, {}, "held_out decides what clean accuracy is measured on"),
        (ONE, {"stop_attack": ["fgsm", "pgd-2"]}, {"metric": "robust"}, "stop_attack decides"),
        (ONE, {"threat": ["linf:1/255", "l2:1"], "perturb": ["fgsm"]}, {}, "threat decides what robust"),
        (ONE, {"epochs": [3, 4]}, {"stop_early": 2}, "equally long ones are better, and these have 3 epochs and 4"),
        (ONE, {"minutes": [1, 2]}, {"stop_early": 2}, "limited to minutes"),
        (ONE, {"seed": [1, 2]}, {"stop_early": 2}, "differ in their seed alone"),
        (ONE, RATES, {"stop_early": 1}, "stop_early=1 is not allowed"),
        (run(stage(epochs=1, held_out=12)), RATES, {"stop_early": 2}, "measured at their end alone"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(config, vary, settings, message):
    with pytest.raises(SpecError, match=message):
        plan_sweep(config, vary, table=make_table(60), **settings)


def test_data_that_leave_nothing_to_learn_from_are_refused():
    with pytest.raises(DataError, match="held_out=60 leaves none"):
        plan_sweep(ONE, {"held_out": [60]}, table=make_table(60))


def test_rungs_lie_where_a_share_of_the_steps_is_first_measured():
    """48 images are learnt from in batches of 12 or 8: epochs of 4 or 6 steps."""
    plan = plan_sweep(ONE, {**RATES, "batch_size": [12, 8]}, table=make_table(60), stop_early=2)
    rungs = {run.config.stages[0].batch_size: plan.rungs[run.identity] for run in plan.runs}
    assert rungs == {12: (4, 8), 8: (6, 12)}
    assert {plan.length(run) for run in plan.runs} == {16, 24}
    whole = sum(plan.model_images(run) for run in plan.runs)
    assert plan.total_images == pytest.approx(whole * (1 / 4 + 1 / 2 / 4 + 1 / 4 / 2))
    by_loss = plan_sweep(run(stage(steps=90, epochs=1)), RATES, table=make_table(60), metric="loss", stop_early=2)
    assert by_loss.rungs[by_loss.runs[0].identity] == (31, 51)
