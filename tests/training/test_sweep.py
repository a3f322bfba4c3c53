"""Sweeps: every run is that of `train`, none is trained twice, and the results depend on no order."""

import json
import math
import pickle
import random
import shutil

import pytest
import torch
from scipy import stats
from test_training import log
from tiny_runs import labels, make_table, run, stage

from unfool.core.errors import DataError, OutputError, SpecError, WeightsError
from unfool.core.parallel.job import Place
from unfool.core.parallel.schedule import Schedule
from unfool.models.weights import load_tensors, save_tensors
from unfool.training import SweepResult, sweep, train
from unfool.training.metrics import read_metrics
from unfool.training.sweeping import job as jobs
from unfool.training.sweeping.job import read_progress, train_job
from unfool.training.sweeping.measure import measure_of
from unfool.training.sweeping.runs import DIVERGED, FINISHED, STOPPED, SweepRun, t_interval

CONFIG = run(stage({"labels": labels()}, held_out=12, stop_attack="fgsm", epochs=4, optimizer="sgd"))
RATES = {"learning_rate": [0.001, 0.3, 0.1, 0.0001], "seed": [0, 1]}
ALONE = {"learning_rate": RATES["learning_rate"]}
TABLE = make_table(60)


class Shuffled:
    """An executor that begins jobs in an order of its own, in this process; it stops after so many."""

    workers, device = 3, "cpu"

    def __init__(self, seed=0, most=math.inf):
        self.draw, self.most, self.called = random.Random(seed), most, []

    def run(self, jobs, folder, console, *, data_dir=None, more=None):
        schedule = Schedule(jobs, more)
        running = []
        while schedule.active:
            while (job := schedule.begin()) is not None:
                running.append(job)
            if len(self.called) == self.most:
                raise KeyboardInterrupt
            job = running.pop(self.draw.randrange(len(running)))
            self.called.append(job.name)
            job.call(Place(folder=folder))
            schedule.done(job.name)


@pytest.fixture
def trained(monkeypatch):
    """Where each step of a run was counted: its folder and the step."""
    steps = []
    own = jobs.train_until

    def counting(until, config, table, folder, **settings):
        return own(until, config, TABLE, folder, progress=lambda what, done, *_: steps.append((folder.name, done)))

    monkeypatch.setattr(jobs, "train_until", counting)
    monkeypatch.setattr(jobs, "_opened", lambda *_: TABLE)
    monkeypatch.setattr("unfool.training.sweeping.plan.training_table", lambda *_: TABLE)
    return steps


def facts(result):
    """What a sweep found, without its costs."""
    return [(run.values, run.folder, run.state, run.steps, run.score, run.curve) for run in result.runs]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep without early stopping."""
    out = tmp_path_factory.mktemp("whole")
    return out, sweep(CONFIG, RATES, out, table=TABLE)


def test_each_run_is_that_of_train_and_is_judged_on_its_held_out_images(whole, tmp_path):
    out, result = whole
    assert [each.state for each in result.runs] == [FINISHED] * 8
    chosen = result.runs[3]
    assert (chosen.values, chosen.seed) == ({"learning_rate": 0.3, "seed": 1}, 1)
    config = run(stage({"labels": labels()}, held_out=12, stop_attack="fgsm", epochs=4, optimizer="sgd",
                       learning_rate=0.3), seed=1)  # fmt: skip
    train(config, TABLE, tmp_path / "alone")
    ours, alone = (
        load_tensors(folder / "weights.safetensors")[0] for folder in (out / chosen.folder, tmp_path / "alone")
    )
    assert all(torch.equal(ours[name], alone[name]) for name in alone)
    measured = [line for line in log(tmp_path / "alone") if line["held_out/clean"]]
    best = max(measured, key=lambda line: (float(line["held_out/robust"]), float(line["held_out/clean"])))
    assert chosen.score == float(best["held_out/clean"])
    assert [step for step, _ in chosen.curve] == [int(line["step"]) for line in measured] == [4, 8, 12, 16]
    assert chosen.cpu_seconds > 0
    assert chosen.model_images > 16 * 12


def test_settings_are_means_over_seeds_with_students_interval(whole):
    result = whole[1]
    settings = result.settings
    assert [len(setting.runs) for setting in settings] == [2] * 4
    assert [setting.mean for setting in settings] == sorted((setting.mean for setting in settings), reverse=True)
    for setting in settings:
        scores = [run.score for run in setting.runs]
        if scores[0] != scores[1]:
            low, high = stats.t.interval(0.95, 1, loc=sum(scores) / 2, scale=abs(scores[0] - scores[1]) / 2)
            assert (setting.low, setting.high) == pytest.approx((low, high))
    ours, theirs = ({run.seed: run.score for run in setting.runs} for setting in settings[:2])
    assert result.lead.difference == pytest.approx(sum(ours[seed] - theirs[seed] for seed in (0, 1)) / 2)
    assert result.lead.seeds == 2
    frame = result.to_frame()
    assert list(frame["learning_rate"]) == [0.001, 0.001, 0.3, 0.3, 0.1, 0.1, 0.0001, 0.0001]
    assert t_interval([0.3]) == (0.3, None, None)


def test_a_second_call_trains_the_new_runs_alone(whole, tmp_path, trained):
    out = tmp_path / "again"
    shutil.copytree(whole[0], out)
    again = sweep(CONFIG, RATES, out)
    assert not trained
    assert facts(again) == facts(whole[1])
    more = sweep(CONFIG, {"batch_size": [12], "learning_rate": [0.1, 0.2], "seed": [0]}, out, executor=Shuffled())
    assert {folder for folder, _ in trained} == {more.runs[1].folder}
    assert more.runs[0].folder == next(
        each.folder for each in again.runs if each.values == {"learning_rate": 0.1, "seed": 0}
    )
    assert SweepResult.load(out) == more
    assert len(list(out.glob("*/weights.safetensors"))) == 9


def test_hopeless_settings_stop_early_whatever_the_order(whole, tmp_path, trained):
    """And a killed sweep goes on: no step is trained twice, and what is finished has the weights of a whole run."""
    orders, results = [], []
    for seed in range(2):
        out = tmp_path / f"order {seed}"
        executor = Shuffled(seed)
        result = sweep(CONFIG, ALONE, out, stop_early=2, executor=executor)
        orders.append(executor.called)
        assert sorted(map(str, trained)) == sorted(map(str, set(trained)))
        assert len(trained) == 4 * 4 + 2 * 4 + 1 * 8 == sum(each.steps for each in result.runs)
        trained.clear()
        results.append(facts(result))
    assert orders[0] != orders[1]
    assert results[0] == results[1]
    assert [setting.state for setting in result.settings] == [FINISHED] + [STOPPED] * 3
    assert [setting.runs[0].steps for setting in result.settings] == [16, 8, 4, 4]
    assert result.lead is None
    (best,) = result.best.runs
    (same,) = whole[0].glob(f"*-{best.folder.rpartition('-')[2]}")
    ours, theirs = (load_tensors(folder / "weights.safetensors")[0] for folder in (out / best.folder, same))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(KeyboardInterrupt):
        sweep(CONFIG, ALONE, tmp_path / "killed", stop_early=2, executor=Shuffled(5, most=4))
    resumed = sweep(CONFIG, ALONE, tmp_path / "killed", stop_early=2, executor=Shuffled(6))
    assert sorted(map(str, trained)) == sorted(map(str, set(trained)))
    assert facts(resumed) == facts(result)


def test_seeds_of_a_setting_are_judged_together(tmp_path, monkeypatch, trained):
    """The best single run belongs to a setting that is worse on the whole, and does not go on."""
    scores = {(0.3, 0): 0.9, (0.3, 1): 0.1, (0.1, 0): 0.6, (0.1, 1): 0.6}
    figures = "unfool.training.sweeping.sweep.figure_at"
    monkeypatch.setattr(figures, lambda plan, run, *_: scores[run.config.stages[0].learning_rate, run.config.seed])
    result = sweep(CONFIG, {"learning_rate": [0.3, 0.1], "seed": [0, 1]}, tmp_path, stop_early=2, executor=Shuffled())
    assert result.best.values == {"learning_rate": 0.1}
    assert [run.state for run in result.runs] == [STOPPED, STOPPED, FINISHED, FINISHED]


def test_a_run_that_diverges_is_told_and_not_trained_again(tmp_path, trained):
    vary = {"learning_rate": [1e30, 0.1, 0.2]}
    for _ in range(2):
        result = sweep(CONFIG, vary, tmp_path, stop_early=3, executor=Shuffled())
    assert result.runs[0].state == DIVERGED
    assert sum(folder == result.runs[0].folder for folder, _ in trained) < 8
    assert result.best.values["learning_rate"] in (0.1, 0.2)
    assert result.settings[-1].state == DIVERGED
    left = json.loads((tmp_path / result.runs[0].folder / "diverged.json").read_text())
    assert "not finite" in left["message"]
    images = result.runs[0].model_images
    assert images == left["model_images"] >= 12
    assert result.runs[0].cpu_seconds == round(left["cpu_seconds"], 2) > 0
    alone = sweep(CONFIG, {"learning_rate": [1e30]}, tmp_path / "alone", executor=Shuffled())
    assert alone.best is None
    assert "best" not in repr(alone)


def test_runs_without_held_out_images_are_judged_by_their_loss(tmp_path):
    config = run(stage({"labels": labels()}, steps=12, epochs=1))
    result = sweep(config, {"learning_rate": [1e-6, 0.01]}, tmp_path, table=TABLE, metric="loss")
    assert result.best.values == {"learning_rate": 0.01}
    assert result.settings[0].mean < result.settings[1].mean
    assert result.lead.difference > 0
    losses = [float(line["loss"]) for line in log(tmp_path / result.runs[1].folder)]
    assert result.runs[1].score == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("steps", [1, 10, 11, 23])
def test_a_loss_is_logged_at_every_step_at_which_runs_are_judged_by_it(tmp_path, steps):
    config = run(stage({"labels": labels()}, steps=3, epochs=1), stage({"labels": labels()}, steps=steps, epochs=1))
    train(config, TABLE, tmp_path)
    lines = read_metrics(tmp_path / "metrics.csv")
    measure = measure_of("loss", [config])
    steps_judged = measure.measured_steps(config, 60)
    logged = [step for step, _ in measure.curve(lines, config, 60)]
    assert logged == (steps_judged if steps == 1 else [3 + 1, *steps_judged])
    assert steps_judged[-1] == 3 + steps


def test_a_run_is_trained_with_one_thread_wherever_that_is(tmp_path, monkeypatch):
    """Another number of threads sums in another order."""
    threads = []
    monkeypatch.setattr(jobs, "train_until", lambda *_, **__: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train_job(CONFIG, "name", 3, TABLE)(Place(folder=tmp_path))
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("file", "metadata"),
    [
        ("checkpoint/state.safetensors", {}),
        ("checkpoint/state.safetensors", {"progress": 3}),
        ("checkpoint/state.safetensors", {"progress": {"stage": 0, "step": "one", "lines": 1}}),
        ("weights.safetensors", {}),
        ("weights.safetensors", {"cpu_seconds": None, "model_images": 3}),
        ("diverged.json", None),
    ],
)
def test_a_file_of_a_run_without_its_progress_is_refused_in_one_line(tmp_path, file, metadata):
    (tmp_path / "metrics.csv").write_text("stage,loss\n0,2.0\n")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    if metadata is None:
        (tmp_path / file).write_text("{}")
    else:
        save_tensors(tmp_path / file, {"weight": torch.zeros(1)}, metadata)
    with pytest.raises((WeightsError, OutputError), match=r"holds values of another form .*delete it") as caught:
        read_progress(tmp_path, CONFIG, 48)
    assert "\n" not in str(caught.value)


def test_a_job_is_pickled_without_its_images(tmp_path):
    assert len(pickle.dumps(train_job(CONFIG, "name", 3))) < 5000


def test_a_folder_of_something_else_is_refused(whole, tmp_path):
    with pytest.raises(OutputError, match="holds a run; choose another folder for the sweep"):
        sweep(CONFIG, RATES, whole[0] / whole[1].runs[0].folder, table=TABLE)
    with pytest.raises(SpecError, match="a table stays in this process"):
        sweep(CONFIG, RATES, tmp_path, table=TABLE, executor=Shuffled())
    with pytest.raises(SpecError, match="config is a str"):
        sweep("digits", RATES, tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema_version": 99}, SpecError, "reads up to 1"),
        ({"schema_version": None}, DataError, "holds no sweep"),
        ({"runs": []}, DataError, "no whole sweep"),
        ({"runs": [{}]}, DataError, "another form"),
        ({"metric": "speed"}, DataError, "no whole sweep"),
        ({"vary": 3}, DataError, "another form"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(whole, change, error, message):
    with pytest.raises(error, match=message):
        SweepResult.from_json({**whole[1].to_json(), **change})


def test_the_file_holds_the_whole_result(whole):
    assert SweepResult.from_json(whole[1].to_json()) == SweepResult.load(whole[0] / "sweep.json") == whole[1]
    one = SweepRun(values={}, seed=0, folder="f", state=STOPPED, steps=1, length=2, score=None)
    assert SweepResult(config={}, vary={}, metric="clean", runs=[one]).best is None
