"""Bad input: one clear line, the documented exit code, nothing left behind."""

import json
import pickle
import shutil
from typing import Any

import pytest
import torch

from unfool.core.batch import check_images
from unfool.core.borders.checksum import checksum
from unfool.core.errors import ImagesError
from unfool.core.files import folder_lock
from unfool.evaluation import load_set
from unfool.models.weights import load_tensors, save_tensors


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder as the working directory, and the promise that it stays as it is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(cli, code, pieces, *arguments, within=None):
    before = files(within) if within is not None else None
    told = cli(*arguments)
    complaint = told.complaint()
    assert told.code == code, complaint
    for piece in pieces:
        assert piece in complaint
    if within is not None:
        assert files(within) == before, complaint
    return complaint


@pytest.mark.parametrize(
    ("code", "pieces", "more"),
    [
        (2, ["data set 'digit'", "did you mean 'digits'?"], ["--data", "digit"]),
        (2, ["task 'lables'", "did you mean 'labels'?"], ["--data", "digits", "--task", "lables"]),
        (2, ["'temprature'", "'temperature'?"], ["--data", "digits", "--task", "contrast:temprature=1"]),
        (2, ["temperature", "-1"], ["--data", "digits", "--task", "contrast:temperature=-1"]),
        (2, ["'labels:column'", "name:key=value"], ["--data", "digits", "--task", "labels:column"]),
        (2, ["weight"], ["--data", "digits", "--task", "labels:weight=0"]),
        (2, ["'labels'", "as=NAME"], ["--data", "digits", "--task", "labels", "--task", "labels"]),
        (2, ["head", "'a.b'", "without a dot"], ["--data", "digits", "--task", "labels:as=a.b"]),
        (2, ["'pariti'", "did you mean 'parity'?"], ["--data", "digits", "--task", "labels:column=pariti"]),
        (2, ["trunk", "'convnet'?"], ["--data", "digits", "--trunk", "convent"]),
        (2, ["'width'"], ["--data", "digits", "--trunk", "convnet", "--width", "2"]),
        (2, ["attack 'pdg'", "did you mean 'pgd'?"], ["--data", "digits", "--perturb", "pdg-7"]),
        (2, ["linf:-1"], ["--data", "digits", "--perturb", "pgd-7", "--threat", "linf:-1"]),
        (2, ["epochs"], ["--data", "digits", "--epochs", "0"]),
        (2, ["learning_rate"], ["--data", "digits", "--learning-rate", "nan"]),
        (2, ["normalisation", "'cifar10'"], ["--data", "digits", "--normalisation", "cifar1"]),
        (2, ["--data"], []),
        (3, ["nowhere"], ["--data", "digits", "--data-dir", "nowhere"]),
        (3, ["nowhere"], ["--data", "folder:nowhere"]),
        (2, ["data set 'pets'", "folder:pets"], ["--data", "pets"]),
        (3, ["nowhere.yaml"], ["--config", "nowhere.yaml"]),
        (2, ["--epochs, --seed", "--config"], ["--config", "x.yaml", "--epochs", "3", "--seed", "1"]),
        (4, ["contrast", "at least 2"], ["--data", "digits", "--task", "contrast", "--batch-size", "1"]),
        (6, ["file/run"], ["--data", "digits", "--trunk", "convnet", "--out", "file/run"]),
    ],
)
def test_train_refuses(cli, here, code, pieces, more):
    (here / "file").write_text("a regular file")
    (here / "pets").mkdir()
    out = [] if "--out" in more else ["--out", "run"]
    refused(cli, code, pieces, "train", *more, *out, within=here)


@pytest.mark.parametrize(
    ("old", "new", "pieces"),
    [
        ("epochs:", "epochz:", ["'epochz'", "did you mean 'epochs'?"]),
        ("task: labels", "task: lables", ["'lables'", "did you mean 'labels'?"]),
        ("schema_version: 2", "schema_version: 99", ["99", "update unfool"]),
        ("stages:", "stages: [", ["YAML"]),
    ],
)
def test_a_faulty_configuration_file(cli, here, run, old, new, pieces):
    text = (run / "config.yaml").read_text()
    assert old in text
    (here / "run.yaml").write_text(text.replace(old, new, 1))
    refused(cli, 2, pieces, "train", "--config", "run.yaml", "--out", "again", within=here)


@pytest.mark.parametrize(
    ("code", "pieces", "more"),
    [
        (2, ["attack 'pdg'", "did you mean 'pgd'?"], ["--attack", "pdg-20"]),
        (2, ["'restart'", "did you mean 'restarts'?"], ["--attack", "pgd-20:restart=3"]),
        (2, ["step_size"], ["--attack", "pgd-20:step_size=-1"]),
        (2, ["linf:-1", "negative"], ["--attack", "fgsm", "--threat", "linf:-1"]),
        (2, ["300", "8/255"], ["--attack", "fgsm", "--threat", "linf:300"]),
        (2, ["'lnf'", "did you mean 'linf'?"], ["--attack", "fgsm", "--threat", "lnf:8/255"]),
        (2, ["8/0"], ["--attack", "fgsm", "--threat", "linf:8/0"]),
        (2, ["data set 'cifar01'", "'cifar10'"], ["--data", "cifar01"]),
        (2, ["'pariti'", "'parity'"], ["--column", "pariti"]),
        (2, ["--images 0"], ["--images", "0"]),
        (2, ["--images -3"], ["--images", "-3"]),
        (2, ["seed"], ["--attack", "pgd-1", "--seed", "-1"]),
        (3, ["nowhere"], ["--data-dir", "nowhere"]),
        (3, ["nowhere.safetensors"], ["--on", "nowhere.safetensors"]),
        (6, ["file/rows.json"], ["--out", "file/rows.json"]),
        (6, ["other holds a study", "--state"], ["--state", "other"]),
        (6, ["file", "no folder"], ["--state", "file"]),
        (2, ["page.txt", ".html"], ["--page", "page.txt"]),
    ],
)
def test_evaluate_refuses(cli, here, run, code, pieces, more):
    (here / "file").write_text("a regular file")
    (here / "other").mkdir()
    (here / "other" / "study.json").write_text("{}")
    refused(cli, code, pieces, "evaluate", run, "--images", "5", *more, within=here)


def test_attack_finds_out_that_it_cannot_write_before_it_works(cli, here, run, monkeypatch):
    (here / "file").write_text("a regular file")
    monkeypatch.setattr("unfool.evaluation.craft", lambda *_, **__: pytest.fail("crafted for nothing"))
    refused(cli, 6, ["file/set"], "attack", run, "--attack", "fgsm", "--out", "file/set", within=here)
    refused(cli, 2, ["'pdg'"], "attack", run, "--attack", "pdg-1", "--out", "set", within=here)


@pytest.mark.parametrize(
    ("code", "pieces", "more"),
    [
        (2, ["study 'contrastive-multitsk'", "'contrastive-multitask'?"], ["contrastive-multitsk"]),
        (2, ["scale", "'dmo'", "'demo'?"], ["contrastive-multitask", "--scale", "dmo"]),
        (2, ["trains its networks itself", "--base"], ["contrastive-multitask", "--base", "file"]),
        (5, ["no weights file nowhere.pt"], ["reverse-attack", "--base", "nowhere.pt"]),
        (3, ["nowhere"], ["contrastive-multitask", "--data-dir", "nowhere"]),
        (6, ["file/out"], ["contrastive-multitask", "--out", "file/out"]),
        (2, ["--workers 0"], ["contrastive-multitask", "--workers", "0"]),
        (2, ["--workers", "--cluster"], ["contrastive-multitask", "--workers", "2", "--cluster", "auto"]),
    ],
)
def test_study_refuses(cli, here, code, pieces, more):
    (here / "file").write_text("a regular file")
    refused(cli, code, pieces, "study", *more, within=here)


def test_report_refuses(cli, here):
    (here / "file").write_text("a regular file")
    (here / "empty").mkdir()
    refused(cli, 3, ["nowhere"], "report", "nowhere", within=here)
    refused(cli, 3, ["file"], "report", "file", within=here)
    refused(cli, 3, ["empty holds no study"], "report", "empty", within=here)
    (here / "results.json").write_text(json.dumps({"schema_version": 1, "rows": []}))
    refused(cli, 3, ["names no study"], "report", "results.json", "--publish", "results", within=here)
    refused(cli, 6, ["file/page.html"], "report", "results.json", "--out", "file/page.html", within=here)
    refused(cli, 2, ["--out"], "report", "empty", "--out", "page.html", within=here)


def test_a_gpu_that_is_not_there(cli, here, run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments in (
        ["evaluate", run],
        ["attack", run, "--attack", "fgsm", "--out", "set"],
        ["train", "--data", "digits", "--out", "run"],
        ["study", "contrastive-multitask"],
    ):
        refused(cli, 8, ["cuda", "--device cpu"], *arguments, "--device", "cuda", within=here)


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


def test_a_pickle_is_refused_and_never_run(cli, here, run):
    (here / "weights.safetensors").write_bytes(pickle.dumps(Trap()))
    shutil.copytree(run, here / "run")
    shutil.copy(here / "weights.safetensors", here / "run")
    before = files(here)
    for arguments in (["weights.safetensors", "--data", "digits"], ["run"], [run, "--on", "weights.safetensors"]):
        refused(cli, 5, ["weights.safetensors", "pickle"], "evaluate", *arguments)
    assert files(here) == before


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.01, 0.0])
def test_truncated_weights(cli, here, run, keep):
    whole = (run / "weights.safetensors").read_bytes()
    (here / "weights.safetensors").write_bytes(whole[: int(len(whole) * keep)])
    refused(cli, 5, ["weights.safetensors"], "evaluate", "weights.safetensors", "--data", "digits", within=here)


def test_weights_of_another_architecture(cli, here, run):
    tensors, metadata = load_tensors(run / "weights.safetensors")
    architecture: Any = metadata["architecture"]
    architecture["trunk"]["widths"] = [4, 8, 16]
    save_tensors(here / "other.safetensors", tensors, metadata)
    refused(
        cli, 5, ["other.safetensors", "architecture"], "evaluate", "other.safetensors", "--data", "digits", within=here
    )


def test_weights_of_another_run(cli, tiny, here, run):
    wider = [word if word != "8" else "6" for word in tiny]
    assert cli(*wider, "--out", "wider").code == 0
    shutil.copytree(run, here / "run")
    shutil.copy(here / "wider" / "weights.safetensors", here / "run")
    refused(cli, 5, ["run/weights.safetensors", "architecture", "(4, 6, 6)"], "evaluate", "run", within=here)


def test_a_run_that_is_not_finished(cli, here, run):
    (here / "run").mkdir()
    shutil.copy(run / "config.yaml", here / "run")
    refused(cli, 3, ["not finished", "unfool train"], "evaluate", "run", within=here)


def test_lone_weights_do_not_know_their_data(cli, run, tmp_path):
    refused(cli, 2, ["--data"], "evaluate", shutil.copy(run / "weights.safetensors", tmp_path / "lone.safetensors"))


def test_the_weights_of_a_run_do_know_their_data(cli, run):
    told = cli("evaluate", run / "weights.safetensors", "--images", "20", "--json")
    assert (told.code, json.loads(told.out)["rows"][0]["data"]) == (0, "digits")


def test_labels_beyond_the_models_classes(cli, parity):
    refused(cli, 4, ["classes"], "evaluate", parity, "--column", "label", "--images", "20")


def test_two_runs_in_one_folder(cli, tiny, here):
    with folder_lock(here / "run"):
        refused(cli, 6, ["run", "in use"], *tiny, "--out", "run", within=here)


def test_a_folder_that_belongs_to_another_configuration(cli, tiny, run):
    refused(
        cli, 6, ["another configuration", "seed: 5"], *tiny, "--epochs", "2", "--seed", "5", "--out", run, within=run
    )


IMAGES = {
    "0-255": (torch.full((2, 3, 32, 32), 255.0), "255"),
    "normalised": (torch.full((2, 3, 32, 32), -1.0), "normalisation"),
    "NaN": (torch.full((2, 3, 32, 32), float("nan")), "NaN"),
    "bytes": (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "uint8"),
    "HWC": (torch.zeros(2, 32, 32, 3), "(2, 32, 32, 3)"),
    "channels": (torch.zeros(2, 1, 32, 32), "(2, 1, 32, 32)"),
    "empty": (torch.zeros(0, 3, 32, 32), "empty"),
}


@pytest.mark.parametrize("fault", IMAGES)
def test_images_that_break_the_contract_from_python(run, fault):
    from unfool import load_network, make_attack

    images, piece = IMAGES[fault]
    before = images.clone()
    network = load_network(run / "weights.safetensors")
    with pytest.raises(ImagesError) as caught:
        make_attack("pgd-2", "linf:8/255")(network, images, torch.zeros(len(images), dtype=torch.int64))
    assert piece in str(caught.value)
    assert "\n" not in str(caught.value)
    assert torch.equal(images, before) or fault == "NaN"


@pytest.mark.parametrize(
    ("fault", "code"),
    [("0-255", 3), ("normalised", 3), ("bytes", 3), ("HWC", 3), ("empty", 3), ("channels", 4)],
)
def test_images_that_break_the_contract_in_a_stored_set(cli, here, run, stored, fault, code):
    """Written with a checksum that fits, as by a faulty program: a mere edit is seen by the checksum."""
    tensors, manifest = load_tensors(stored)
    manifest = {name: value for name, value in manifest.items() if name not in ("adversarial_set", "checksum")}
    manifest.pop("schema_version", None)
    images = IMAGES[fault][0]
    tensors = {name: value[: len(images)] for name, value in tensors.items()} | {"images": images}
    header = {"adversarial_set": 3, **manifest, "checksum": checksum(manifest, tensors)}
    save_tensors("bad.safetensors", tensors, header)
    refused(cli, code, [IMAGES[fault][1]], "evaluate", run, "--on", "bad.safetensors", "--images", "5", within=here)


def test_a_stored_set_that_was_edited(cli, here, run, stored):
    content = bytearray(stored.read_bytes())
    content[-5] ^= 1
    (here / "edited.safetensors").write_bytes(content)
    refused(cli, 5, ["checksum"], "evaluate", run, "--on", "edited.safetensors", "--images", "5", within=here)
    (here / "cut.safetensors").write_bytes(content[:-100])
    refused(cli, 5, ["cut.safetensors"], "evaluate", run, "--on", "cut.safetensors", "--images", "5", within=here)
    refused(cli, 3, ["adversarial set"], "evaluate", run, "--on", run / "weights.safetensors", within=here)


def test_the_stored_set_itself_is_sound(stored):
    check_images(load_set(stored).images)
