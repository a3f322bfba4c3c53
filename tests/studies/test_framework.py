"""The parts that studies are described with: paths and words, draws of images, needs, and what is asked of results."""

import dataclasses
import io
import shutil
from types import SimpleNamespace
from typing import ClassVar

import pytest
from rich.console import Console

from unfool import RunConfig, StageConfig
from unfool.attacks import make_attack
from unfool.core.errors import DataError, SpecError
from unfool.core.parallel.graph import jobs_of, missing_pieces
from unfool.core.streams import Streams
from unfool.data.catalog import open_table
from unfool.data.corruptions import CORRUPTIONS
from unfool.data.images import Images
from unfool.evaluation import identity
from unfool.studies import STUDIES, Study, load_study, run_study
from unfool.studies import framework as fw
from unfool.studies.framework import study as framework_study
from unfool.studies.framework.pieces import with_needs
from unfool.studies.framework.results import word_of
from unfool.studies.framework.workspace import Workspace
from unfool.training.recipes import LABELS

STAGE = StageConfig(tasks=LABELS, steps=2, batch_size=16)
DIGITS = Images("digits")


def network(model="plain", seed=0, **other):
    config = RunConfig(data="digits", trunk="convnet:stem=strided,widths=4-4-4", stages=(STAGE,), seed=seed)
    return fw.NetworkSpec(**{"key": {"data": "digits", "model": model, "seed": seed}, "config": config, **other})


def examples(of, attack="fgsm", count=8, **other):
    return fw.Examples(network=of, attack=make_attack(attack, "linf:0.1"), images=DIGITS.sample(count), **other)


@pytest.fixture
def work(tmp_path):
    return Workspace(tmp_path, None, "cpu", Console(file=io.StringIO()))


def test_a_key_gives_the_path_and_the_words_of_rows():
    spec = network(key={"data": "digits", "trunk": "ConvNet 4, strided", "model": "labels + x", "loss": "", "seed": 3})
    assert spec.path == "digits/convnet-4-strided/labels-x/3"
    assert (spec.model, spec.seed, spec.settings) == ("labels + x", 3, {"trunk": "ConvNet 4, strided"})
    defended = fw.Defended(network=spec, kind="reverse", words="reverse:contrast", variant={"loss": "NT-Xent"})
    assert defended.path == f"{spec.path}/behind/reverse-contrast/nt-xent"
    assert defended.settings == {"trunk": "ConvNet 4, strided", "loss": "NT-Xent"}


def test_images_are_drawn_as_tables_draw_them(work):
    whole = open_table("digits", "train")
    rest, held_out = whole.cut(100, Streams(0).named("held out"))
    expected = rest.sample(20, Streams(0).named("few"))
    images = Images("digits", "train").cut(100, "held out")
    assert images[1].table(work).ids.equal(held_out.ids)
    assert images[0].sample(20, "few").table(work).ids.equal(expected.ids)
    assert len(DIGITS.sample(10**6).table(work)) == len(open_table("digits", "test"))


def test_two_pieces_of_one_path_are_refused_and_one_that_is_named_twice_is_not():
    first = network()
    assert list(with_needs([fw.Clean(system=first, images=DIGITS), fw.Clean(system=network(), images=DIGITS)])) == [
        "digits/plain/0",
        "digits/plain/0/clean",
    ]
    with pytest.raises(ValueError, match="two different pieces are called digits/plain/0/clean"):
        with_needs([fw.Clean(system=first, images=DIGITS), fw.Clean(system=first, images=DIGITS.sample(3))])
    other = dataclasses.replace(first, config=dataclasses.replace(first.config, seed=5))
    with pytest.raises(ValueError, match="another word in its key"):
        with_needs([first, other])
    circle = network("circle")
    object.__setattr__(circle, "start", circle)
    with pytest.raises(ValueError, match="needs itself"):
        with_needs([circle])


def test_a_network_starts_from_another_or_stays_random(work):
    first = network("first")
    second = network("second", seed=1, start=first)
    run = work.get(second)
    assert run.config.start == str(first.folder(work) / "weights.safetensors")
    random = network("random", trained=False)
    assert (random.exists(work), work.get(random).model_images) == (None, 0)
    assert identity(random.module(work)) != identity(first.module(work)) != identity(second.module(work))


def test_only_what_is_missing_is_a_job_and_needs_follow(work):
    plain, other = network(), network("other")
    kept = examples(plain, kept=True)
    measurements = [
        fw.Attacked(system=other, examples=kept),
        fw.Attacked(system=other, examples=examples(other, "pgd-2")),
        fw.Clean(system=plain, images=DIGITS),
    ]
    jobs = {job.name: job for job in jobs_of(missing_pieces(measurements, work), work, lambda path, place: None)}
    transfer, own = measurements[0].path, measurements[1].path
    assert set(jobs) == {plain.path, other.path, kept.path, *(item.path for item in measurements)}
    assert jobs[transfer].needs == {plain.path, other.path, kept.path}
    # examples that are not kept are crafted, and counted, by the measurement
    assert (jobs[own].needs, jobs[own].cost) == ({other.path}, 8 * 2 + 8)
    assert jobs[plain.path].cost == 2 * 16
    fw.Results.collect("demo", work, measurements)
    (work.out / "sets" / f"{kept.path}.safetensors").unlink()
    assert missing_pieces(measurements, work) == {}


def test_records_of_weights_that_were_trained_again_are_made_anew(work):
    attacked = fw.Attacked(system=network(), examples=examples(network()))
    before = work.get(attacked)
    again = Workspace(work.out, None, "cpu", work.console)
    run = again.get(network())
    with_other_bias = run.network.heads["labels"]
    next(iter(with_other_bias.parameters())).data.add_(1)
    assert again.get(attacked).judged_on == identity(run.network) != before.judged_on


def test_nothing_is_kept_of_weights_that_were_trained_again(tmp_path):
    class Measured(Tiny):
        steps = 2

        def networks(self, settings):
            config = network().config
            changed = dataclasses.replace(config, stages=(dataclasses.replace(STAGE, steps=self.steps),))
            return [network(config=changed), network("other")]

        def measurements(self, settings, networks):
            for each in networks:
                yield fw.Clean(system=each, images=DIGITS.sample(9))
                yield fw.Corrupted(system=each, images=DIGITS.sample(2))

    run_study(Measured(), "demo", tmp_path)
    own, others = tmp_path / "records" / "digits" / "plain", tmp_path / "records" / "digits" / "other"

    def written(folder):
        return {file: file.stat().st_mtime_ns for file in folder.rglob("*.json")}

    before = written(tmp_path / "records")
    run_study(Measured(), "demo", tmp_path)
    assert written(tmp_path / "records") == before
    weights = tmp_path / "models" / "digits" / "plain" / "0"
    shutil.rmtree(weights)
    run_study(Measured(), "demo", tmp_path)
    assert written(tmp_path / "records") == before, "the same weights, trained again"
    shutil.rmtree(weights)
    Measured.steps = 1
    run_study(Measured(), "demo", tmp_path)
    assert len(written(own)) == 1 + len(list(CORRUPTIONS))
    assert not written(own).items() & before.items()
    assert written(others).items() <= before.items()


def test_results_are_asked_by_words_and_say_when_words_do_not_suffice(work):
    measurements = [fw.Clean(system=network(seed=seed), images=DIGITS.sample(9), threat="l2:1") for seed in (0, 1)]
    results = fw.Results.collect("demo", work, measurements)
    assert list(results.by_seed(model="plain", norm="l2", trunk=None)) == [0, 1]
    assert results.by_seed(model="another") == {}
    assert results.records(seed=1).count == 9
    with pytest.raises(SpecError, match=r"2 rows have .*one is needed"):
        results.records(model="plain")
    doubled = dataclasses.replace(results, measured=[*results.measured, *results.measured])
    with pytest.raises(SpecError, match="a word that tells them apart"):
        doubled.by_seed(model="plain")
    assert word_of(results.rows[0], "data") == "digits"


def test_a_published_figure_stands_beside_rows_of_its_protocol_alone():
    figures = fw.table(("none", "fgsm"), {"plain": (80, 2.5), ("wide",): (90, 5)})
    published = fw.Published(names=("model", "attack"), figures=figures, applies=lambda row: row.protocol != "transfer")

    def row(protocol, attack="fgsm", model="wide"):
        return SimpleNamespace(model=model, attack=attack, protocol=protocol, settings={})

    assert published.of(row("white-box")) == 0.05
    assert published.of(row("transfer")) is None
    assert published.of(row("white-box", "pgd-7")) is None
    assert published.gain(("wide", "none"), ("plain", "none")) == pytest.approx(0.10)


class Tiny(Study):
    name, title = "tiny", "Tiny"
    scales: ClassVar = {"demo": None, "cut": None}

    def networks(self, scale):
        """A generator, which can be read once."""
        yield network()
        yield network("other", seed=1)

    def measurements(self, scale, networks):
        first, second = networks
        yield fw.Attacked(system=second, examples=examples(first), words={"crafted": "elsewhere"}, panel="charts")

    def claims(self, scale):
        evidence = fw.Difference(a={"model": "other"}, b={"model": "plain"})
        yield fw.Claim(id="unmeasured", text="never measured", evidence=evidence, rule=fw.Above(0))


def test_networks_that_are_only_needed_are_made_too_and_claims_without_evidence_left_out(tmp_path):
    result = run_study(Tiny(), "demo", tmp_path, console=Console(quiet=True))
    (row,) = result.rows
    assert (row.model, row.protocol, row.panel, row.settings) == (
        "other",
        "transfer",
        "charts",
        {"crafted": "elsewhere"},
    )
    assert result.claims == []
    assert result.data == {"digits": {"train": 1400, "attacked": 8}}
    assert Tiny().describe("demo") == "2 networks on digits, 1 measurement"
    assert (result.summary, result.cuts) == ("", [])


def test_a_study_says_what_was_claimed_and_what_it_cut(tmp_path, monkeypatch):
    text = tmp_path / "study.md"
    text.write_text("Of {{ claims | length }} claims, on {{ results.rows[0].n }} images.\n---\nA note.")
    monkeypatch.setattr(framework_study, "text_beside", lambda kind: text)
    work = Workspace(tmp_path, None, "cpu", Console(quiet=True))
    results = fw.Results.collect("demo", work, Tiny().plan(None))
    assert Tiny().summary(None, results, {}) == "Of 0 claims, on 8 images."
    assert list(Tiny().notes(None, results)) == ["A note."]
    (tmp_path / "cuts.yaml").write_text("cut:\n  - One epoch for ten.\n")
    assert (Tiny().cuts("cut"), Tiny().cuts("demo")) == (["One epoch for ten."], [])
    (tmp_path / "cuts.yaml").write_text("cut: One epoch for ten.\n")
    with pytest.raises(DataError, match=r"cuts.yaml has no list of sentences for 'cut'"):
        Tiny().cuts("cut")


@pytest.mark.parametrize("name", [name for name in STUDIES if isinstance(STUDIES[name](), Study)])
def test_every_study_says_what_each_scale_does_and_has_claims_of_its_own(name):
    study = STUDIES[name]()
    for scale, settings in study.scales.items():
        words = study.describe(scale)
        assert words
        claims = [claim.id for claim in study.claims(settings)]
        assert claims
        assert len(set(claims)) == len(claims)
        assert all(id == id.lower() and " " not in id for id in claims)


@pytest.mark.parametrize(
    ("source", "words"),
    [("x = 1", "defines 0 studies"), ("1 / 0", "ZeroDivisionError"), (None, "there is no plugin file")],
)
def test_a_file_without_one_study_is_refused(tmp_path, source, words):
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(SpecError, match=words):
        load_study(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [model]\nfigures:\n  - [a, 1.5, 0.2, 3]\n", r"\['a', 1.5, 0.2, 3\] is no row of 1 words"),
        ("names: [model]\n", "no published figures: 'figures'"),
        ("[", "no published figures"),
    ],
)
def test_published_figures_of_another_form_are_one_line(tmp_path, text, words):
    (tmp_path / "published.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        fw.Published.beside(str(tmp_path / "scales.py"))


def test_published_figures_stand_beside_a_study(tmp_path):
    text = "names: [model, attack]\nfigures:\n  - [a, none, 90.5]\n  - [a, fgsm, 10, 2.5]\n"
    (tmp_path / "published.yaml").write_text(text)
    figures = fw.Published.beside(str(tmp_path / "scales.py"))
    assert (figures.figures, figures.losses) == (
        {("a", "none"): 90.5, ("a", "fgsm"): 10},
        {("a", "fgsm"): 2.5},
    )
    assert figures.gain(("a", "fgsm"), ("a", "none")) == pytest.approx(-0.805)


def test_claims_share_no_id_and_those_without_rows_are_named(work, monkeypatch):
    class Empty(fw.Study):
        name, scales = "empty", {"tiny": 0}

        def networks(self, scale):
            return []

        def measurements(self, scale, networks):
            return []

        def claims(self, scale):
            for name in names:
                yield fw.Claim(id=name, text="", evidence=lambda results: None, rule=fw.Above(0))

    names = ["one", "another"]
    result = fw.run_study(Empty(), "tiny", work.out, console=work.console)
    assert not result.claims
    assert "claims without rows, left out: another, one" in work.console.file.getvalue()
    names = ["one", "One"]
    with pytest.raises(SpecError, match="two claims have the id 'one'"):
        fw.run_study(Empty(), "tiny", work.out, console=work.console)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Mine(Study):\n    scales = {'tiny': 0}", "wrong.py failed: TypeError: Can't instantiate"),
        (
            "class Mine(Study):\n    def networks(self, scale): ...\n    def measurements(self, scale, networks): ...",
            "unknown scale of study 'wrong': 'tiny'; allowed: none",
        ),
    ],
)
def test_what_a_study_s_file_lacks_is_named(tmp_path, source, words):
    path = tmp_path / "wrong.py"
    path.write_text(f"from unfool.studies import Study\n{source}\n")
    with pytest.raises(SpecError, match=words):
        fw.run_study(str(path), "tiny", tmp_path / "out")
    assert not (tmp_path / "out" / "study.json").exists()
