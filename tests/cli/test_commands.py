"""What the commands do when all is well."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from unfool import Network, TrunkSpec, load_network, open_run, save_network
from unfool.cli.parsing.tasks import read_tasks
from unfool.evaluation.results.rows import Row
from unfool.studies import STUDIES, Study
from unfool.studies.framework import Above, Claim, Estimate, Measured, Measurement


def one_object(text):
    """The value of a text that is exactly one JSON object."""
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def rows(cli, *arguments):
    told = cli("evaluate", *arguments, "--json", "--no-reliability")
    assert (told.code, told.err) == (0, "")
    return one_object(told.out)["rows"]


def test_train_makes_what_its_options_say(run, parity):
    first = open_run(run).config
    assert (first.data, first.seed, first.classifier) == ("digits", 0, "labels")
    assert first.trunk == TrunkSpec(name="convnet", widths=(4, 8, 8))
    assert (first.stages[0].epochs, first.stages[0].batch_size, first.stages[0].optimizer) == (2, 128, "sgd")
    tasks = open_run(parity).config.stages[0].tasks
    assert {name: (task.task, task.weight, task.settings) for name, task in tasks.items()} == {
        "labels": ("labels", 1.0, {"column": "parity"}),
        "contrast": ("contrast", 0.5, {"temperature": 0.1}),
    }


def test_the_same_command_finds_a_finished_run(cli, tiny, run):
    before = (run / "weights.safetensors").stat().st_mtime_ns
    told = cli(*tiny, "--epochs", "2", "--out", run, "--json")
    assert (told.code, told.err) == (0, "")
    found = one_object(told.out)
    assert found["weights"] == str(run / "weights.safetensors")
    assert found["cost"]["model_images"] == 2 * 1280
    assert (run / "weights.safetensors").stat().st_mtime_ns == before


def test_a_configuration_file_trains_the_same_weights(cli, run, tmp_path):
    assert cli("train", "--config", run / "config.yaml", "--out", tmp_path / "again").code == 0
    ours, theirs = (load_network(folder / "weights.safetensors").state_dict() for folder in (run, tmp_path / "again"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_adversarial_training_is_configured(cli, tiny, tmp_path):
    more = ("--perturb", "pgd-1", "--threat", "l2:0.25", "--batch-size", "700", "--task", "labels:as=digit")
    told = cli(*tiny, *more, "--out", tmp_path / "run")
    assert told.code == 0, told.err
    config = open_run(tmp_path / "run").config
    assert (config.stages[0].perturb, str(config.stages[0].threat)) == ("pgd-1", "l2:0.25")
    assert (list(config.stages[0].tasks), config.classifier) == (["digit"], "digit")


def test_task_options():
    tasks = read_tasks(["labels", "labels:column=coarse_label,as=coarse,weight=0.25,views=2"], "fine_label")
    assert tasks["labels"].settings == {"column": "fine_label"}
    assert (tasks["coarse"].task, tasks["coarse"].weight) == ("labels", 0.25)
    assert tasks["coarse"].settings == {"column": "coarse_label", "views": 2}
    assert read_tasks(["contrast"], "fine_label")["contrast"].settings == {}


def test_evaluate_tells_clean_from_white_box(cli, run, tmp_path):
    file, page = tmp_path / "rows.json", tmp_path / "page.html"
    found = rows(
        cli, run, "--attack", "fgsm", "--attack", "pgd-3:restarts=2", "--images", "60", "--out", file, "--page", page
    )
    assert [(row["attack"], row["protocol"], row["n"]) for row in found] == [
        ("none", "clean", 60),
        ("fgsm", "white-box", 60),
        ("pgd-3", "white-box", 60),
        ("worst-case", "white-box", 60),
    ]
    clean, fgsm, pgd, worst = found
    assert clean["low"] <= clean["accuracy"] <= clean["high"]
    assert max(fgsm["accuracy"], pgd["accuracy"]) < clean["accuracy"]
    assert pgd["settings"] == {"restarts": "2"}
    assert worst["accuracy"] <= min(fgsm["accuracy"], pgd["accuracy"])
    assert fgsm["cost"]["model_images"] > clean["cost"]["model_images"] == 60
    written = json.loads(file.read_text())
    assert written["rows"] == found
    assert written["run"]["command"].startswith(f"unfool evaluate {run} --attack fgsm")
    assert (len(written["gallery"]), written["run"]["device"]) == (8, "cpu")
    shown = page.read_text(encoding="utf-8")
    for piece in ('id="gallery"', "fooled", "linf:8/255", written["run"]["date"], "torch ", "rows.json"):
        assert piece in shown


def test_evaluate_draws_the_same_images_every_time(cli, run):
    few, same, all_of_them = (rows(cli, run, "--images", n)[0] for n in (40, 40, 10**6))
    assert few["accuracy"] == same["accuracy"]
    assert all_of_them["n"] == 397


def test_evaluate_judges_a_run_by_the_column_it_was_trained_on(cli, parity):
    """Its two classes would not cover the labels of the set's primary column, which is an error."""
    by_file = rows(cli, parity / "weights.safetensors", "--data", "digits", "--column", "parity")
    assert by_file[0]["accuracy"] == rows(cli, parity)[0]["accuracy"]


def test_examples_of_another_network_are_transfer_and_nothing_else(cli, run, parity, tmp_path):
    path = tmp_path / "set.safetensors"
    told = cli("attack", run, "--attack", "pgd-3:goal=last", "--images", "50", "--out", path, "--json")
    assert (told.code, told.err) == (0, "")
    crafted = one_object(told.out)
    assert (crafted["protocol"], crafted["n"], crafted["set"]) == ("white-box", 50, str(path))
    lone = Path(shutil.copy(run / "weights.safetensors", tmp_path / "lone.safetensors"))
    (own,) = rows(cli, lone, "--on", path)
    for option in (["--corruptions"], ["--precision", "bf16"]):
        complaint = cli("evaluate", lone, "--on", path, *option).complaint()
        assert f"{option[0]} needs the images of a data set beside --on; give --data too" in complaint
    assert own["protocol"] == "white-box"
    assert own["accuracy"] == crafted["accuracy"]
    # Parity labels are 0 and 1, so another ten-class network is needed: the same one, moved a little.
    network = load_network(lone)
    with torch.no_grad():
        next(network.heads["labels"].parameters()).add_(1e-3)
    save_network(network, tmp_path / "moved.safetensors")
    (moved,) = rows(cli, tmp_path / "moved.safetensors", "--on", path)
    assert moved["protocol"] == "transfer"
    assert (moved["crafted_on"], moved["judged_on"] == own["judged_on"]) == (own["judged_on"], False)
    shown = cli("evaluate", tmp_path / "moved.safetensors", "--on", path)
    assert "TRANSFER" in shown.out
    assert "white-box" not in shown.out
    assert "TRANSFER" not in cli("evaluate", lone, "--on", path).out


def test_precision_is_passed_on(cli, run, monkeypatch):
    from unfool.attacks import ProxySettings

    seen = []
    monkeypatch.setattr(ProxySettings, "copy", lambda self, model, images=None: seen.append(self.dtype) or model)
    rows(cli, run, "--attack", "pgd-1", "--images", "5", "--precision", "bf16")
    rows(cli, run, "--attack", "pgd-1", "--images", "5")
    assert list(dict.fromkeys(seen)) == ["bf16", "fp32"]


def test_a_network_without_gradient_is_not_to_be_believed(cli, tmp_path):
    network = Network.build(
        TrunkSpec(name="convnet", widths=(4, 4, 4)), {"labels": {"kind": "linear", "outputs": 10}}, classifier="labels"
    )
    with torch.no_grad():
        next(network.heads["labels"].parameters()).zero_()
    save_network(network, tmp_path / "flat.safetensors")
    arguments = (tmp_path / "flat.safetensors", "--data", "digits", "--attack", "pgd-2", "--images", "20")
    told = cli("evaluate", *arguments)
    assert told.code == 0
    assert "not to be believed" in told.out
    # Images of the one class that such a network answers stand; the others were wrong before any attack.
    standing = round(20 * rows(cli, *arguments)[-1]["accuracy"])
    assert standing > 0
    assert f"no gradient on {standing} of 20" in told.out
    clean, attacked = rows(cli, *arguments)
    assert (clean["flat"], attacked["flat"]) == (0, standing)
    told = cli("attack", *arguments, "--out", tmp_path / "set.safetensors")
    assert "not to be believed" in told.out


def test_evaluate_prints_percentages_and_intervals(cli, run):
    (row,) = rows(cli, run, "--images", "50")
    text = cli("evaluate", run, "--images", "50").out
    for piece in (f"{100 * row['accuracy']:.1f}", f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]", "clean"):
        assert piece in text


def test_warnings_are_one_line(cli, tmp_path):
    for green, name in enumerate(("cat", "dog")):
        (tmp_path / "pets/train" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (16, 16), (40 * number, green, 90)).save(tmp_path / "pets/train" / name / f"{number}.png")
    (tmp_path / "pets/train/cat/broken.png").write_bytes(b"no image")
    told = cli(
        *("train", "--data", f"folder:{tmp_path / 'pets'}", "--trunk", "convnet", "--widths", "4", "4", "4"),
        *("--out", tmp_path / "run"),
    )
    assert told.code == 0
    (line,) = told.err.splitlines()
    assert line.startswith("unfool: warning: ")
    assert "corrupt" in line


class Elsewhere(Measurement):
    """A measurement of rows that were made by another command."""

    @property
    def path(self):
        return "elsewhere"

    def cost(self, work):
        return 0

    def exists(self, work):
        return None

    def make(self, work):
        Tiny.ran.append(work.device)
        return [Measured(row=Row.from_json(values)) for values in Tiny.rows]

    def measured(self, result, work):
        return result


class Tiny(Study):
    """A study whose rows were evaluated elsewhere."""

    name = "tiny"
    title = "A tiny study"
    subtitle = "for the tests"

    @dataclasses.dataclass
    class Scale:
        images: int = 3

    scales = {"demo": Scale()}  # noqa: RUF012
    rows: list = []  # noqa: RUF012
    ran: list = []  # noqa: RUF012

    def networks(self, scale):
        return []

    def measurements(self, scale, networks):
        return [Elsewhere()]

    def claims(self, scale):
        estimate = Estimate(mean=0.3, low=0.2, high=0.4, detail="see for yourself")
        return [Claim(id="works", text="It works", evidence=lambda results: estimate, rule=Above(0.0))]

    def data(self, scale, results):
        return {"digits": {"test": 3}}


@pytest.fixture
def study(cli, run, monkeypatch):
    assert "tiny" not in STUDIES
    monkeypatch.setitem(STUDIES._items, "tiny", Tiny)
    monkeypatch.setattr(Tiny, "rows", rows(cli, run, "--attack", "fgsm", "--images", "30"))
    monkeypatch.setattr(Tiny, "ran", [])
    return Tiny


def test_study_prints_table_verdicts_and_page(cli, study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = cli("study", "tiny", "--device", "cpu")
    assert (told.code, told.err) == (0, "")
    assert (tmp_path / "runs" / "tiny-demo" / "report.html").is_file()
    for piece in ("digits", "FGSM", "HOLDS", "It works", "see for yourself", "page: runs/tiny-demo/report.html"):
        assert piece in told.out
    assert study.ran == ["cpu"]
    told = cli("study", "tiny", "--out", tmp_path / "out", "--json")
    found = one_object(told.out)
    assert found["study"] == "tiny"
    assert found["page"] == str(tmp_path / "out" / "report.html")
    assert found["rows"] == study.rows


def test_report_reopens_and_publishes_a_study(cli, study, tmp_path):
    out = tmp_path / "out"
    assert cli("study", "tiny", "--out", out).code == 0
    (out / "report.html").unlink()
    told = cli("report", out, "--publish", tmp_path / "results", "--json")
    assert (told.code, told.err) == (0, "")
    assert (out / "report.html").is_file()
    copy = tmp_path / "results" / "tiny" / "demo.json"
    assert copy.read_bytes() == (out / "results" / "tiny" / "demo.json").read_bytes()
    assert one_object(told.out)["written"] == [str(copy)]
    shutil.rmtree(out / "results")
    told = cli("report", out)
    assert told.code == 3
    assert "not finished; run unfool study tiny --scale demo" in told.complaint()


def test_report_renders_a_lone_file(cli, study, run, tmp_path):
    assert cli("study", "tiny", "--out", tmp_path / "out").code == 0
    results = tmp_path / "out" / "results" / "tiny" / "demo.json"
    told = cli("report", results, "--out", tmp_path / "page.html")
    assert (told.code, told.out) == (0, f"page: {tmp_path / 'page.html'}\n")
    assert "A tiny study" in (tmp_path / "page.html").read_text()
    assert cli("evaluate", run, "--images", "9", "--attack", "fgsm", "--out", tmp_path / "mine.json").code == 0
    assert cli("report", tmp_path / "mine.json").code == 0
    assert str(run) in (tmp_path / "mine.html").read_text()
