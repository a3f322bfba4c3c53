"""Runs that are also logged to experiment trackers, through accelerate."""

import csv
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from accelerate.tracking import GeneralTracker
from test_resume import Stopped, stop_after
from tiny_runs import make_table, run, stage

from unfool.cli import main
from unfool.core.errors import OutputError, SpecError, UnfoolWarning
from unfool.training import Tracker, train

CONFIG = run(stage(perturb="fgsm", steps=21, batch_size=4), stage(trainable="heads", steps=12, batch_size=4))
"""Lines at steps 1, 11, 21 of the first stage and 1, 11, 12 of the second."""
STEPS = [1, 11, 21, 22, 32, 33]


class Memory(GeneralTracker):
    """A tracker of one's own; ``fail_at`` is the step whose line it cannot take."""

    name, requires_logging_directory = "memory", False

    def __init__(self, fail_at=None):
        super().__init__()
        self.config, self.lines, self.finished, self.fail_at = [], [], 0, fail_at

    @property
    def tracker(self):
        return self.lines

    def store_init_configuration(self, values):
        self.config.append(values)

    def log(self, values, step=None, **kwargs):
        if step == self.fail_at:
            raise ConnectionError("no route to host")
        self.lines.append((step, values))

    def finish(self):
        self.finished += 1


def test_lines_of_the_log_with_their_cost_and_the_configuration(tmp_path):
    tracker = Memory()
    trained = train(CONFIG, make_table(), tmp_path / "run", track=[tracker])
    assert [step for step, _ in tracker.lines] == STEPS
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        for (_, values), row in zip(tracker.lines, csv.DictReader(file), strict=True):
            assert {name: float(value) for name, value in row.items() if value and name != "step"} == {
                name: value for name, value in values.items() if not name.startswith("cost/")
            }
    last = tracker.lines[-1][1]
    assert {"learning_rate", "loss", "loss/labels", "accuracy/labels", "cost/cpu_seconds"} <= set(last)
    assert last["cost/model_images"] == trained.model_images
    # FGSM costs a second pass of every image; the stage after it is not perturbed.
    assert [values["cost/model_images_per_image"] for _, values in tracker.lines] == [2, 2, 2, 1, 1, 1]
    (config,) = tracker.config
    assert config["stages/0/perturb"] == "fgsm"
    assert config["trunk/name"] == "convnet"
    assert "start" not in config
    assert tracker.finished == 1


def test_a_resumed_run_goes_on_and_a_tracker_new_to_it_gets_the_earlier_lines(tmp_path):
    first, again, late = Memory(), Memory(), Memory()
    late.name = "late"
    with pytest.raises(Stopped):
        train(CONFIG, make_table(), tmp_path, track=[first], progress=stop_after(25), checkpoint_seconds=0)
    train(CONFIG, make_table(), tmp_path, track=[again, late])
    assert [step for step, _ in first.lines] + [step for step, _ in again.lines] == STEPS
    assert [step for step, _ in late.lines] == STEPS
    assert (len(first.config), len(again.config), len(late.config)) == (1, 0, 1)
    assert first.finished == 1


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(tmp_path):
    failing, other = Memory(fail_at=21), Memory()
    other.name = "other"
    with pytest.warns(UnfoolWarning, match="tracker memory failed .*no route to host.*metrics.csv has them all"):
        train(CONFIG, make_table(), tmp_path, track=[failing, other])
    assert [step for step, _ in failing.lines] == STEPS[:2]
    assert [step for step, _ in other.lines] == STEPS


def test_tensorboard_reads_one_run_after_a_resumption(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # Stopped after line 11, whose step is after the checkpoint's: it is logged twice.
    with pytest.raises(Stopped):
        train(CONFIG, make_table(), tmp_path, track=["tensorboard"], progress=stop_after(15), checkpoint_seconds=1e9)
    train(CONFIG, make_table(), tmp_path, track=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "loss/labels", "accuracy/labels", "learning_rate", "cost/model_images"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("loss/labels")] == STEPS
    with open(tmp_path / "metrics.csv", newline="") as file:
        losses = [float(row["loss/labels"]) for row in csv.DictReader(file)]
    assert [event.value for event in events.Scalars("loss/labels")] == pytest.approx(losses)


def test_trackio_keeps_one_run_in_its_local_file(tmp_path, monkeypatch, capsys):
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "data")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "data")
    with pytest.raises(Stopped):
        train(CONFIG, make_table(), tmp_path / "run", track=["trackio"], progress=stop_after(25), checkpoint_seconds=0)
    train(CONFIG, make_table(), tmp_path / "run", track=["trackio"])
    (name,) = SQLiteStorage.get_runs("unfool")
    assert name.startswith("run-")
    assert [line["step"] for line in SQLiteStorage.get_logs("unfool", name)] == STEPS
    config = SQLiteStorage.get_run_config("unfool", name)
    assert config["stages/0/perturb"] == "fgsm"
    assert "allow_val_change" not in config
    assert trackio.context_vars.current_run.get() is None
    assert capsys.readouterr().out == ""


def fake(monkeypatch, name, **members):
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_wandb_is_given_the_same_run_again(tmp_path, monkeypatch):
    begun, lines, configs = [], [], []

    def init(**settings):
        begun.append(settings)
        return SimpleNamespace(log=lambda values, step: lines.append(step), finish=lambda: None)

    fake(monkeypatch, "wandb", init=init, config=SimpleNamespace(update=lambda values, **_: configs.append(values)))
    track = [Tracker(name="wandb", project="robust")]
    with pytest.raises(Stopped):
        train(CONFIG, make_table(), tmp_path / "run", track=track, progress=stop_after(25), checkpoint_seconds=0)
    train(CONFIG, make_table(), tmp_path / "run", track=track)
    assert begun[0] == begun[1] == {"project": "robust", "id": begun[0]["id"], "name": "run", "resume": "allow"}
    assert lines == STEPS
    assert len(configs) == 1


def test_mlflow_goes_on_in_the_run_that_its_server_named(tmp_path, monkeypatch):
    begun = []

    def start_run(run_id=None, run_name=None, **_):
        begun.append((run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "0123456789abcdef"))

    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    fake(
        monkeypatch,
        "mlflow",
        search_experiments=lambda filter_string: [],
        create_experiment=lambda **_: "1",
        start_run=start_run,
        log_params=lambda values: None,
        log_metrics=lambda values, step: None,
        end_run=lambda: None,
        utils=SimpleNamespace(validation=limits),
    )
    track = [Tracker(name="mlflow", run="first")]
    with pytest.raises(Stopped):
        train(CONFIG, make_table(), tmp_path, track=track, progress=stop_after(25), checkpoint_seconds=0)
    train(CONFIG, make_table(), tmp_path, track=track)
    assert begun == [(None, "first"), ("0123456789abcdef", "first")]


def test_a_package_that_is_missing_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecError, match="tracker wandb needs a package that is not installed; run pip install wandb"):
        train(CONFIG, make_table(), tmp_path / "run", track=["wandb"])
    assert not (tmp_path / "run").exists()


def test_trackers_on_the_command_line(tmp_path, capsys):
    data = ("--data", "digits", "--trunk", "convnet:widths=4-8-8", "--steps", "1", "--batch-size", "8")
    command = ["train", *data, "--out", str(tmp_path / "run"), "--json"]
    assert main([*command, "--track", "wandb:project=robust,tags=a"]) == 2
    assert "unknown key of tracker 'wandb:project=robust,tags=a': 'tags'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--track", "tensorboard:run=first"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(tmp_path / "run")
    assert [*(tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")]


@pytest.mark.parametrize(
    ("track", "words"),
    [
        (["tensorbord"], "did you mean 'tensorboard'"),
        (["tensorboard", Tracker(name="tensorboard")], "named twice"),
        ("tensorboard", r"give a list of trackers, such as \['tensorboard'\]"),
        (None, "track is of type NoneType; give a list of trackers"),
        ([None], "track holds None, which is no tracker; give a name such as 'tensorboard'"),
        ([5], "track holds 5, which is no tracker"),
        ([{"name": "wandb"}], "track holds {'name': 'wandb'}, which is no tracker"),
        ([GeneralTracker], "which is no tracker"),
    ],
)
def test_trackers_that_are_refused(tmp_path, track, words):
    with pytest.raises(SpecError, match=words):
        train(CONFIG, make_table(), tmp_path / "run", track=track)


def test_a_tracker_that_cannot_begin_stops_the_run_in_one_line(tmp_path, monkeypatch):
    def init(**_):
        raise RuntimeError("no API key\nconfigured")

    fake(monkeypatch, "wandb", init=init)
    with pytest.raises(OutputError, match=r"wandb cannot begin \(RuntimeError: no API key configured\); set it up"):
        train(CONFIG, make_table(), tmp_path, track=["wandb"])


def test_a_foreign_file_of_runs_is_refused(tmp_path):
    (tmp_path / "trackers.json").write_text(json.dumps({"schema_version": 9}))
    with pytest.raises(OutputError, match="delete it to begin anew"):
        train(CONFIG, make_table(), tmp_path, track=["tensorboard"])
