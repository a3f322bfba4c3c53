"""``unfool probe``: its table, its file, its control with random weights, and how it refuses."""

import dataclasses
import json

import pytest
import torch

from unfool import open_run, open_table
from unfool.cli.commands.probe import ProbeOptions
from unfool.cli.options.from_settings import explicit
from unfool.core.parallel.local import LocalExecutor
from unfool.core.streams import Streams
from unfool.evaluation.pretext.probe_records import probe_records
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.network import Network
from unfool.training import ProbeSettings, probe
from unfool.training.probing.features import FeaturePass

QUICK = ("--epochs", "2", "--stages", "block1", "last")


def test_the_table_shows_each_stage_in_training_and_test(cli, run):
    told = cli("probe", run, *QUICK, "--knn", "--seeds", "0", "1")
    assert (told.code, told.err) == (0, ""), told.err
    found = StudyResult.load(run / "results" / "probe.json").to_json()
    for row in found["rows"]:
        assert f"{100 * row['accuracy']:.1f}" in told.out
        assert f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]" in told.out
    lines = [line.split() for line in told.out.splitlines()]
    assert [line[:2] for line in lines if line[:1] == ["block1"]] == [["block1", "linear,"]] * 2 + [["block1", "20"]]
    assert f"1,797 model images; written to {run / 'results' / 'probe.json'}" in " ".join(told.out.split())
    page = cli("report", run / "results" / "probe.json")
    assert page.code == 0, page.err
    assert "Linear probes, test accuracy" in (run / "results" / "probe.html").read_text(encoding="utf-8")


def test_the_figures_are_the_librarys(cli, run):
    told = cli("probe", run, *QUICK, "--standardise", "--fraction", "0.5", "--json")
    assert (told.code, told.err) == (0, "")
    rows = json.loads(told.out)["rows"]
    train = open_table("digits", "train").fraction(0.5, Streams(0))
    settings = ProbeSettings(epochs=2, standardise=True)
    found = probe(
        open_run(run).network, train, open_table("digits", "test"), stages=["block1", "last"], settings=settings
    )
    told_of = {(row["settings"]["stage"], row["split"]): (row["accuracy"], row["n"]) for row in rows}
    for stage in found.stages:
        for split in ("train", "test"):
            records = probe_records(found, stage, split=split)
            assert told_of[stage, split] == (pytest.approx(records.accuracy, abs=1e-6), records.count)


@pytest.mark.parametrize("options", [("--random",), ("--fraction", "0.5", "--standardise")])
def test_features_that_workers_compute_give_what_one_process_gives(cli, run, tmp_path, monkeypatch, options):
    # Workers one after the other in this process: the CPUs are few.
    monkeypatch.setattr("unfool.core.parallel.executor.LocalExecutor", lambda workers, device: LocalExecutor(1, device))
    passes, of = [], FeaturePass.of
    monkeypatch.setattr(FeaturePass, "of", lambda self, table, rows: passes.append(rows) or of(self, table, rows))
    alone = cli("probe", run, *QUICK, *options, "--knn", "--json", "--out", tmp_path / "one.json")
    count = len(passes)
    both = cli("probe", run, *QUICK, *options, "--knn", "--json", "--out", tmp_path / "two.json", "--workers", "2")
    assert (alone.code, both.code) == (0, 0), both.err
    assert len(passes) == 2 * count
    one, two = ([{**row, "cost": None} for row in json.loads(told.out)["rows"]] for told in (alone, both))
    assert one == two


def test_random_weights_are_the_control(cli, run):
    told = cli("probe", run, *QUICK, "--random", "--json")
    assert (told.code, told.err) == (0, "")
    found = json.loads(told.out)
    assert found == StudyResult.load(run / "results" / "probe-random.json").to_json()
    assert found["system"] == f"{run}, random weights"
    trained = open_run(run)
    assert trained.config.trunk is not None
    fresh = Network.build(trained.config.trunk, {}, streams=Streams(trained.config.seed))
    assert not torch.equal(next(fresh.trunk.parameters()), next(trained.network.trunk.parameters()))
    train, test = open_table("digits", "train"), open_table("digits", "test")
    same = probe(fresh, train, test, stages=["last"], settings=ProbeSettings(epochs=2)).of("last")
    (row,) = [r for r in found["rows"] if r["settings"]["stage"] == "last" and r["split"] == "test"]
    assert row["accuracy"] == pytest.approx(same.test.accuracy, abs=1e-6)


def test_another_label_column_can_be_read(cli, run):
    told = cli("probe", run, *QUICK, "--column", "parity", "--json")
    assert told.code == 0
    assert all(row["accuracy"] > 0.4 for row in json.loads(told.out)["rows"])


def test_every_setting_is_an_option_and_is_left_to_the_library_unless_given():
    assert {f.name for f in dataclasses.fields(ProbeSettings)} - {f.name for f in dataclasses.fields(ProbeOptions)} == {
        "neighbours"
    }
    assert explicit(ProbeOptions()) == {}


def test_misuse_is_one_line_and_writes_nothing(cli, run, tmp_path):
    before = sorted(path.name for path in run.rglob("*"))
    for code, pieces, arguments in (
        (2, ["'blok1'", "did you mean 'block1'?"], [run, "--stages", "blok1"]),
        (2, ["epochs=0"], [run, "--epochs", "0"]),
        (2, ["raise memory"], [run, *QUICK, "--memory", "1e-6"]),
        (2, ["'partiy'", "did you mean 'parity'?"], [run, *QUICK, "--column", "partiy"]),
        (3, ["holds no run"], [tmp_path]),
        (3, ["share of 0.0"], [run, *QUICK, "--fraction", "0"]),
        (2, ["unknown data set 'digit'"], [run, *QUICK, "--data", "digit"]),
    ):
        told = cli("probe", *arguments)
        complaint = told.complaint()
        assert told.code == code, complaint
        for piece in pieces:
            assert piece in complaint
    # The folder alone may have been made.
    assert [name for name in sorted(path.name for path in run.rglob("*")) if name != "results"] == [
        name for name in before if name != "results"
    ]
