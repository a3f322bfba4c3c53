"""What a user can type or store ends in one line and a documented exit code; special files stay what they are."""

import contextlib
import io
import json
import os
import shutil
import stat

import pytest
import torch

from unfool import AdversarialSet, load_set
from unfool.cli import main
from unfool.core.borders.checksum import checksum
from unfool.core.errors import DataError, DeviceError, UnfoolError
from unfool.evaluation.crafting import processes
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.weights import load_tensors, save_tensors

LONG = "a" * 300
DIGITS = ("--data", "digits")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ["evaluate", LONG, *DIGITS]),
        (5, ["evaluate", f"{LONG}.safetensors", *DIGITS]),
        (2, ["evaluate", "--model", f"hf:{LONG}", *DIGITS]),
        (2, ["evaluate", "--model", f"{LONG}.py:build", *DIGITS]),
        (2, ["--plugin", f"{LONG}.py", "list"]),
        (2, ["--plugin", "~nouser/a.py", "list"]),
        (3, ["doctor", "--data-dir", LONG]),
        (3, ["report", LONG]),
        (3, ["train", "--config", LONG, "--out", "run"]),
        (5, ["convert", LONG, "a.safetensors"]),
        (6, ["train", *DIGITS, "--trunk", "convnet", "--out", LONG]),
        (3, ["train", "--data", f"folder:{LONG}", "--out", "run"]),
        (3, ["train", "--data", "folder:~nouser/x", "--out", "run"]),
        (3, ["train", "--data", "folder:", "--out", "run"]),
        (2, ["train", *DIGITS, "--epochs", "9" * 25, "--out", "run"]),
        (2, ["train", *DIGITS, "--perturb", f"pgd-{'9' * 5000}", "--out", "run"]),
        (2, ["train", *DIGITS, "--perturb", "pgd-2", "--threat", "linf:1e-400", "--out", "run"]),
        (2, ["train", *DIGITS, "--seed", "9" * 30, "--out", "run"]),
        (2, ["evaluate", "a.safetensors", *DIGITS, "--attack", "pgd-2", "--curve", f"steps={'9' * 5000}"]),
        (2, ["evaluate", "a.safetensors", *DIGITS, "--images", "9" * 5000]),
    ],
)
def test_what_nobody_can_have_meant(cli, here, code, arguments):
    told = cli(*arguments)
    assert told.code == code, told.err
    assert len(told.complaint()) < 2100
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "PIPE"],
        ["convert", "PIPE", "a.safetensors"],
        ["evaluate", "PIPE", *DIGITS],
        ["evaluate", "PIPE.safetensors", *DIGITS],
        ["evaluate", "--model", "PIPE.py:build", *DIGITS],
        ["evaluate", "RUN", "--on", "PIPE"],
        ["evaluate", "RUN", "--classes", "PIPE"],
        ["evaluate", "RUN", "--data", "PIPE.csv"],
        ["--plugin", "PIPE.py", "list"],
        ["train", "--config", "PIPE", "--out", "run"],
        ["evaluate", "RUN", "--images", "2", "--out", "PIPE"],
        ["evaluate", "RUN", "--images", "2", "--out", "LINK"],
        ["convert", "RUN/weights.safetensors", "PIPE.safetensors"],
    ],
)
def test_a_pipe_is_neither_read_nor_replaced(cli, here, run, arguments):
    for ending in ("", ".py", ".csv", ".safetensors"):
        os.mkfifo(f"PIPE{ending}")
    os.symlink("PIPE", "LINK")
    before = sorted(path.name for path in here.iterdir())
    told = cli(*[argument.replace("RUN", str(run)) for argument in arguments])
    assert told.code in (2, 3, 5, 6), told.err
    told.complaint()
    assert sorted(path.name for path in here.iterdir()) == before
    assert all(stat.S_ISFIFO(os.stat(path).st_mode) for path in here.iterdir())
    assert os.path.islink("LINK")


@pytest.mark.parametrize(
    "arguments",
    [
        ["attack", "RUN", "--attack", "fgsm", "--images", "2", "--out", "-"],
        ["evaluate", "RUN", "--images", "2", "--page", "-"],
        ["evaluate", "RUN", "--images", "2", "--sarif", "-"],
        ["evaluate", "RUN", "--images", "2", "--out", "-", "--page", "-"],
        ["probe", "RUN", "--out", "-"],
    ],
)
def test_what_is_no_results_file_cannot_go_there_and_is_refused_before_the_work(cli, here, run, arguments, monkeypatch):
    monkeypatch.setattr("unfool.attacks.base.Attack.run", None)
    monkeypatch.setattr("unfool.evaluation.evaluate.evaluate", None)
    told = cli(*[argument.replace("RUN", str(run)) for argument in arguments])
    assert told.code == 6, told.err
    assert "- is the standard output" in told.complaint()
    assert not list(here.iterdir())


def test_results_can_go_to_the_standard_output(cli, run, here):
    told = cli("evaluate", run, "--images", "2", "--no-reliability", "--out", "-")
    assert told.code == 0, told.err
    assert json.loads(told.out)["rows"][0]["n"] == 2
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("held", ["[]", "3", '"x"', "{}", "{", "[" * 50_000])
def test_state_files_that_hold_something_else(cli, run, here, held):
    arguments = ("evaluate", run, "--images", "2", "--no-reliability", "--attack", "fgsm", "--state", "state")
    assert cli(*arguments).code == 0
    for path in here.rglob("crafting.json"):
        path.write_text(held)
    told = cli(*arguments)
    assert told.code == 6
    told.complaint()


@pytest.mark.parametrize("held", ["[]", "null", "3"])
def test_a_study_folder_that_holds_something_else(cli, here, held):
    (here / "study.json").write_text(held)
    assert cli("study", "transfer", "--scale", "demo", "--out", here).code == 6
    assert cli("report", here).code == 3


def test_a_run_below_a_name_that_is_no_text_is_trained_and_opened(cli, here, tiny):
    folder = os.fsdecode(b"run\xff")
    assert cli(*tiny, "--out", folder).code == 0
    assert cli("evaluate", folder, "--images", "2", "--no-reliability", "--out", os.fsdecode(b"\xff.json")).code == 0
    assert json.loads((here / os.fsdecode(b"\xff.json")).read_text())["rows"][0]["model"] == folder
    assert cli("report", os.fsdecode(b"\xff.json"), "--out", here / "page.html").code == 0


@contextlib.contextmanager
def nobody():
    """As a user who may read little: root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_what_lies_below_a_folder_that_may_not_be_entered(cli, run, here, tiny):
    shut = here / "shut"
    shut.mkdir()
    weights = shut / "w.safetensors"
    shutil.copy(run / "weights.safetensors", weights)
    digits = ("--data", "digits", "--images", "2", "--no-reliability")
    cases = {
        ("evaluate", weights, *digits): 5,
        (*tiny, "--out", shut / "run"): 6,
        ("report", weights): 3,
        ("train", "--config", weights, "--out", here / "new"): 3,
        ("doctor", "--data", f"folder:{shut}/x"): 3,
    }
    assert cli("evaluate", weights, *digits).code == 0  # imports what the other user may not read
    shut.chmod(0)
    try:
        for arguments, code in cases.items():
            with nobody():
                told = cli(*arguments)
            assert (told.code, told.err.count("\n")) == (code, 1), (arguments, told.err)
    finally:
        shut.chmod(0o700)


@pytest.mark.parametrize("size", ["x", "-1", "2.5", "9" * 400])
def test_a_world_size_that_is_no_number(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(DeviceError, match="WORLD_SIZE"), processes.joined():
        pytest.fail("joined")


def test_a_rank_that_is_none_of_the_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("2", "x", "-1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(DeviceError, match="RANK"), processes.joined():
            pytest.fail("joined")


def test_a_process_whose_others_never_start_or_end_says_so(monkeypatch):
    monkeypatch.setattr(processes, "JOIN_SECONDS", 0.2)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match="cannot be joined"), processes.joined():
        pytest.fail("joined")


@pytest.fixture(scope="session")
def evaluated(run):
    """The JSON of an evaluation."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(["evaluate", str(run), "--images", "20", "--attack", "fgsm", "--json"]) == 0
    return json.loads(out.getvalue())


@pytest.mark.parametrize("value", [None, True, -1, 10**30, 1e300, "x", [], {}, [[1]], {"a": 1}])
def test_results_whose_values_have_another_form_are_refused_or_read(evaluated, value):
    """Every part is replaced once; no error but unfool's own comes out."""

    def parts(tree, path=()):
        for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree[:2]):
            yield (*path, key)
            if isinstance(inner, (dict, list)):
                yield from parts(inner, (*path, key))

    for path in list(parts(evaluated)):
        spoiled = json.loads(json.dumps(evaluated))
        part = spoiled
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = value
        with contextlib.suppress(UnfoolError):
            StudyResult.from_json(spoiled, "it")


WRONG = [
    *({"seed": "x"}, {"seed": True}, {"cpu_seconds": "1"}, {"model_images": []}, {"settings": []}, {"parts": "fgsm"}),
    *({"parts": [1]}, {"follows_gradients": [1]}, {"attack": None}, {"data": 3}, {"column": []}, {"threat": 7}),
    *({"crafted_on": 3}, {"unknown": 1}, {"follows_gradients": {}}),
]


@pytest.mark.parametrize("wrong", [*WRONG, "images", "distances", "labels"])
def test_a_resealed_set_with_wrong_types_is_refused(stored, tmp_path, wrong):
    tensors, manifest = load_tensors(stored)
    manifest = {key: value for key, value in manifest.items() if key not in ("adversarial_set", "checksum")}
    if isinstance(wrong, dict):
        manifest |= wrong
    else:
        tensors[wrong] = tensors[wrong].double() if wrong == "images" else tensors[wrong].to(torch.int32)
    path = tmp_path / "set.safetensors"
    save_tensors(path, tensors, {"adversarial_set": 3, **manifest, "checksum": checksum(manifest, tensors)})
    with pytest.raises(DataError):
        load_set(path)


def test_the_set_itself_is_read(stored):
    assert isinstance(load_set(stored), AdversarialSet)
