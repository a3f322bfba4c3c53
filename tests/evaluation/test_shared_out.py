"""An evaluation in parts is that of one process to the bit, whoever does them, and goes on where it was stopped."""

import dataclasses
import sys
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from elsewhere import Elsewhere
from rich.console import Console
from tiny_systems import make_network, make_table

from unfool import EvaluationSettings, evaluate
from unfool.attacks import Attack
from unfool.core.errors import ImagesError, OutputError, WorkerError
from unfool.core.parallel.local import LocalExecutor
from unfool.core.parallel.sharing import Sharing
from unfool.evaluation.crafting.chosen_attacks import choose_attacks
from unfool.evaluation.crafting.evaluation_folder import discard
from unfool.evaluation.parts import jobs, opened
from unfool.evaluation.parts import sharing as sharing_module
from unfool.evaluation.parts.opened import Opened
from unfool.evaluation.parts.sharing import share_evaluation

ATTACKS, COUNT = ("fgsm", "pgd-2:restarts=2"), 23
ENSEMBLE = "autoattack:steps=3,queries=10"


@dataclass(frozen=True)
class Opens:
    """Opens the test's system; another seed is another system."""

    seed: int = 0

    def __call__(self, place):
        return Opened(model=make_network(self.seed), table=make_table(COUNT), column=None, attacks=attacks())


def attacks():
    return choose_attacks(ATTACKS, "linf:2/255")


def settings(**changes):
    options = {"threat": "linf:2/255", "batch_size": 5, "reliability": False, **changes}
    return EvaluationSettings(**options)


@cache
def alone():
    return evaluate(make_network(), make_table(COUNT), ATTACKS, settings=settings())


def shared(folder, executor, opens=Opens(), **options):
    progress = []
    share_evaluation(
        Sharing(executor=executor, folder=folder, console=Console(quiet=True)),
        opens,
        Opens()(None),
        batch_size=5,
        progress=lambda what, *done: progress.append(done),
        **options,
    )
    return progress


def same(one, other):
    def plain(records):
        return [dataclasses.replace(each, cpu_seconds=0.0) for each in records]

    assert plain(one.records) == plain(other.records)
    assert plain(one.corrupted) == plain(other.corrupted)
    assert one.right_again == other.right_again
    for name, pictures in one.pictures.items():
        assert torch.equal(pictures.adversarial, other.pictures[name].adversarial)


def fails(*arguments, **settings):
    raise AssertionError("the model was run again")


def read_back(folder, monkeypatch, **changes):
    """The evaluation of a folder that holds everything: its model is not run."""
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["unfool.evaluation.classify"], "classified", fails)
        patch.setattr("unfool.evaluation.crafting.crafted_batches.Crafting._crafted", fails)
        patch.setattr("unfool.evaluation.evaluation_run.classify_corrupted", fails)
        return evaluate(make_network(), make_table(COUNT), ATTACKS, settings=settings(**changes), folder=folder)


@pytest.mark.parametrize("seed", range(2))
def test_parts_done_in_any_order_elsewhere_join_to_what_one_process_gives(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(sharing_module, "_PARTS", 3)
    executor = Elsewhere(seed)
    progress = shared(tmp_path, executor)
    same(read_back(tmp_path, monkeypatch), alone())
    assert len(executor.names) == 5 + 2 * (5 + 5)
    assert progress[0] == (0, 5 * COUNT)
    assert progress[-1] == (5 * COUNT, 5 * COUNT)


@dataclass(frozen=True)
class OpensRight:
    """Labels are what the network says, so that there is something to attack in the reliability report."""

    def __call__(self, place):
        opened = Opens()(place)
        said = opened.model(opened.table.batch().images).argmax(1)
        table = opened.table.relabelled("label", said, opened.table.classes["label"])
        return dataclasses.replace(opened, table=table)


def test_the_attacks_of_the_reliability_report_are_shared_out(tmp_path, monkeypatch):
    opened, options = OpensRight()(None), settings(reliability=True)
    run, runs = Attack.run, []
    monkeypatch.setattr(Attack, "run", lambda *arguments: runs.append(arguments) or run(*arguments))
    whole = evaluate(opened.model, opened.table, ATTACKS, settings=options)
    alone = len(runs)
    executor = Elsewhere(0)
    share_evaluation(
        Sharing(executor=executor, folder=tmp_path, console=Console(quiet=True)),
        OpensRight(),
        opened,
        batch_size=5,
        threat=options.threat,
    )
    assert len([name for name in executor.names if name.startswith("check")]) == 5
    runs.clear()
    joined = evaluate(opened.model, opened.table, ATTACKS, settings=options, folder=tmp_path)
    # Which images stand for the longer run depends on the attacks on all images, which jobs of the report do not know.
    assert alone > 5
    assert len(runs) <= 1
    same(joined, whole)
    one, other = (dataclasses.replace(each.reliability, cost=None) for each in (joined, whole))
    assert one == other
    assert joined.reliability.cost.model_images == whole.reliability.cost.model_images
    assert "more-restarts-win" in joined.reliability.checked


def test_an_interrupted_one_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    first, second = Elsewhere(1, fails_at=9), Elsewhere(2)
    with pytest.raises(KeyboardInterrupt):
        shared(tmp_path, first)
    shared(tmp_path, second)
    assert len(first.names) == 9
    assert not set(first.names) & set(second.names)
    same(read_back(tmp_path, monkeypatch), alone())
    assert shared(tmp_path, Elsewhere(3, fails_at=0)) == []


def test_workers_of_this_machine_do_the_same(tmp_path, monkeypatch):
    shared(tmp_path, LocalExecutor(1))
    same(read_back(tmp_path, monkeypatch), alone())


def test_large_sets_and_corruptions_are_shared_out_too(tmp_path, monkeypatch):
    monkeypatch.setattr("unfool.evaluation.evaluation_run.ONE_FILE", 1)
    shared(tmp_path, Elsewhere(0), severities=(3,))
    corrupted = settings(corruptions=True, severities=(3,))
    whole = evaluate(make_network(), make_table(COUNT), ATTACKS, settings=corrupted)
    same(read_back(tmp_path, monkeypatch, corruptions=True, severities=(3,)), whole)
    (tmp_path / "mine.txt").write_text("mine")
    discard(tmp_path, ATTACKS, "linf:2/255")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@dataclass(frozen=True)
class OpensEnsemble:
    def __call__(self, place):
        chosen = choose_attacks(ENSEMBLE, "linf:2/255")
        return dataclasses.replace(Opens()(place), attacks=chosen)


def test_pieces_of_several_batches_are_shared_out_too(tmp_path, monkeypatch):
    monkeypatch.setattr("unfool.evaluation.crafting.plan.fitting", lambda model, image: 5)
    monkeypatch.setattr("unfool.evaluation.crafting.batches.PIECES", 2)
    executor, opened = Elsewhere(3), OpensEnsemble()(None)
    share_evaluation(Sharing(executor=executor, folder=tmp_path, console=Console(quiet=True)), OpensEnsemble(), opened)
    attacked = [name for name in executor.names if name.startswith("autoattack") and "classified" not in name]
    assert len(attacked) == 3
    options = settings(batch_size=None)
    whole = evaluate(opened.model, opened.table, ENSEMBLE, settings=options)
    monkeypatch.setattr("unfool.evaluation.crafting.crafted_batches.Crafting._crafted", fails)
    same(evaluate(opened.model, opened.table, ENSEMBLE, settings=options, folder=tmp_path), whole)


def test_a_lean_attack_goes_on_from_what_was_shared_out(tmp_path):
    lean = "lean:queries=20"
    opened = dataclasses.replace(Opens()(None), attacks=choose_attacks(lean, "linf:0.5"))
    executor = Elsewhere(0)
    share_evaluation(
        Sharing(executor=executor, folder=tmp_path, console=Console(quiet=True)),
        OpensLean(),
        opened,
        batch_size=5,
    )
    assert len([name for name in executor.names if name.startswith("lean")]) == 5
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("batch-*.safetensors")}
    joined, whole = (
        evaluate(make_network(), make_table(COUNT), lean, settings=settings(threat="linf:0.5"), folder=folder)
        for folder in (tmp_path, None)
    )
    same(joined, whole)
    assert {path: path.stat().st_mtime_ns for path in written} == written


@dataclass(frozen=True)
class OpensLean:
    def __call__(self, place):
        return dataclasses.replace(Opens()(place), attacks=choose_attacks("lean:queries=20", "linf:0.5"))


def test_attacks_alone_know_by_themselves_what_is_right(tmp_path, monkeypatch):
    executor = Elsewhere(0)
    shared(tmp_path, executor, clean=False, tell_right=False)
    assert not [name for name in executor.names if name.startswith("clean")]
    fooled = [records.fooled_by for records in read_or_run(tmp_path).records[1:]]
    assert fooled == [records.fooled_by for records in alone().records[1:3]] + fooled[2:]


def read_or_run(folder):
    return evaluate(make_network(), make_table(COUNT), ATTACKS, settings=settings(), folder=folder)


def test_a_worker_with_another_system_is_refused(tmp_path):
    with pytest.raises(WorkerError, match=r"opened another system .* give weights where the model draws its own"):
        shared(tmp_path, Elsewhere(0), opens=Opens(seed=1))


def test_the_folder_of_another_evaluation_is_refused(tmp_path):
    shared(tmp_path, Elsewhere(0))
    with pytest.raises(OutputError, match="holds another evaluation: seed"):
        shared(tmp_path, Elsewhere(0), seed=4)


@dataclass(frozen=True)
class OpensWithoutLabels:
    def __call__(self, place):
        opened = Opens()(place)
        opened.table.columns["label"] = opened.table.columns["label"] + 100
        return opened


@pytest.mark.parametrize("in_worker", [True, False])
def test_workers_keep_the_memory_that_parts_free(tmp_path, monkeypatch, in_worker):
    """Until they end; a process that asks for parts itself has more to do, and gives it back."""
    kept, parts = [], []
    monkeypatch.setattr(opened, "in_worker", lambda: in_worker)
    monkeypatch.setattr(opened, "keep_freed_memory_for_good", lambda: kept.append(len(parts)))
    opened_once = jobs.opened_once
    monkeypatch.setattr(jobs, "opened_once", lambda *subject: (parts.append(subject), opened_once(*subject))[1])
    shared(tmp_path, Elsewhere(0))
    assert parts
    assert kept == ([*range(1, len(parts) + 1)] if in_worker else [])


def test_an_error_of_a_part_is_raised_as_it_is(tmp_path):
    with pytest.raises(ImagesError, match="none of the model's"):
        shared(tmp_path, Elsewhere(0), opens=OpensWithoutLabels())
