"""Figures drawn from rows and metrics: what they show, in lines and in words, and what is no figure."""

import math
from collections import Counter

import pytest
from made_up_study import make_row, result

from unfool.core.errors import DataError
from unfool.report.page import Page, render
from unfool.report.plots.attack_curves import eps_figure, model_colours, step_figure, system_colours
from unfool.report.plots.curves import Curve, series, shared_axis
from unfool.report.plots.overview import overview
from unfool.report.plots.training import run_looks, training_figure
from unfool.report.tables import study_tables


def steps_of(values):
    return step_figure(study_tables(result(values)))


def test_steps_are_drawn_in_words_and_lines(study):
    figure = steps_of(study)
    assert figure is not None
    words = " ".join(panel.alt for panel in figure.panels)
    assert "simclr multitask (transfer from single-task): 72.1 % at 0, 56.4 % at 7, 55.8 % at 20, 55.7 % at 50" in words
    assert "single-task (white-box): 81.4 % at 0, 0 % at 7" in words
    looks = Counter(line.look for panel in figure.panels for line in panel.lines)
    assert looks == {"plain": 5, "transfer": 3}
    assert [key.look for key in figure.keys if key.colour is None] == ["plain", "transfer"]
    first = figure.panels[0].lines[0]
    assert [mark.shape for mark in first.marks].count("diamond") == 1  # FGSM stands alone
    assert first.points.count(",") == 4


def test_one_number_of_steps_is_no_curve(study):
    rows = [make_row("net", "cifar10", attack, 0.5) for attack in ("none", "pgd-7")]
    assert steps_of({**study, "rows": rows}) is None


def test_more_systems_than_can_be_told_apart_are_not_drawn(study):
    def of(count):
        names = [f"network {number}" for number in range(count)]
        return steps_of(
            {**study, "rows": [make_row(n, "cifar10", attack, 0.5) for n in names for attack in ("pgd-7", "pgd-9")]}
        )

    assert of(24) is not None
    assert of(25) is None


def test_a_curve_over_eps_is_drawn_over_eps_and_not_over_steps(study):
    settings = {"curve": "over eps"}
    shares = {"linf:2/255": 0.6, "linf:4/255": 0.4, "linf:8/255": 0.1}
    rows = [make_row("net", "cifar10", "none", 0.8, settings={}), make_row("net", "cifar10", "pgd-7", 0.1, settings={})]
    rows += [make_row("net", "cifar10", "pgd-7", share, threat=eps, settings=settings) for eps, share in shares.items()]
    results = result({**study, "study": "", "rows": rows, "claims": []})
    figure = eps_figure(results.rows)
    assert figure is not None
    (panel,) = figure.panels
    (line,) = panel.lines
    assert [mark.x for mark in line.marks] == [0, 25, 50, 100]
    assert [tick.text for tick in panel.x_ticks] == ["0", "2/255", "4/255", "8/255"]
    assert "80 % at 0, 60 % at" in panel.alt
    page = render(Page(title="t", subtitle="", result=results))
    assert 'id="eps"' in page
    assert 'id="steps"' not in page
    assert "curve over eps" not in page.partition('id="overview"')[2].partition("</section>")[0]


def eps_rows(share, settings, **more):
    """A clean row and three sizes of FGSM, each size a tenth below the one before."""
    clean = make_row("net", "cifar10", "none", share, settings=settings, **more)
    words = {"settings": settings, **more}
    sizes = [("linf:2/255", 0.1), ("linf:4/255", 0.2), ("linf:8/255", 0.3)]
    return [clean, *(make_row("net", "cifar10", "fgsm", share - less, threat=eps, **words) for eps, less in sizes)]


def test_systems_that_only_their_settings_tell_apart_are_lines_of_their_own(study):
    few, all_labels = ({"labels": words, "moved": "the added layer"} for words in ("1 %", "100 %"))
    probe = make_row("net", "cifar10", "none", 0.99, settings={"linear_probe": "stage last"})
    rows = [*eps_rows(0.5, few), *eps_rows(0.8, all_labels), probe]
    figure = eps_figure(result({**study, "rows": rows, "claims": []}).rows)
    assert figure is not None
    assert [key.name for key in figure.keys] == ["net, labels 1 %, fgsm", "net, labels 100 %, fgsm"]
    (panel,) = figure.panels
    assert "labels 1 %, fgsm: 50 % at 0, 40 % at" in panel.alt
    assert "labels 100 %, fgsm: 80 % at 0, 70 % at" in panel.alt
    assert figure.caption.startswith("Each point is an attack by itself; eps 0")


def test_seeds_and_splits_are_lines_of_their_own(study):
    rows = [*eps_rows(0.5, {}), *eps_rows(0.6, {}, seed=1), *eps_rows(0.7, {}, split="train")]
    figure = eps_figure(result({**study, "rows": rows, "claims": []}).rows)
    assert figure is not None
    names = ["net, test split, seed 0, fgsm", "net, test split, seed 1, fgsm", "net, train split, seed 0, fgsm"]
    assert [key.name for key in figure.keys] == names


def test_only_rows_of_a_curve_are_said_to_attack_what_stood_before(study):
    def caption(settings):
        figure = eps_figure(result({**study, "rows": eps_rows(0.5, settings), "claims": []}).rows)
        assert figure is not None
        return figure.caption

    assert caption({"curve": "over eps"}).startswith("Each point attacks the images that no smaller ball fooled")
    assert caption({"curve": "over eps", "bound": "upper"}).startswith("One run finds")
    assert "no smaller ball" not in caption({})


def test_the_first_chart_shows_clean_borrowed_and_own(study):
    results = result(study)
    chart = overview(results, study_tables(results))
    assert chart is not None
    assert chart.looks == ("clean", "transfer", "white-box")
    row = chart.rows[1]
    assert (row.name, row.detail) == ("simclr multitask", "cifar10")
    clean, borrowed, own = row.intervals
    assert (clean.at, borrowed.at) == (pytest.approx(72.06, abs=0.01), pytest.approx(54.5, abs=0.1))
    assert own.at < 1
    assert borrowed.low < borrowed.at < borrowed.high
    assert overview(result({}), []) is None
    assert clean.words == "clean: 72.1 % [71.2, 72.9]"
    assert chart.caption.endswith("bars: 95 % intervals.")


def test_the_first_chart_says_where_bars_are_seeds(study):
    rows = [make_row("m", "digits", "none", 0.8, seed=seed) for seed in (0, 1)]
    rows += [make_row("m", "digits", "pgd-7", 0.1 * seed, seed=seed) for seed in (0, 1)]
    results = result({**study, "rows": rows, "claims": []})
    chart = overview(results, study_tables(results))
    assert chart is not None
    clean, own = chart.rows[0].intervals
    assert clean.words == "clean: 80.0 % 2 seeds agree"
    assert own.words == "attacked itself (PGD-7): 5.0 % [0.0, 10.0] 2 seeds"
    assert chart.caption.endswith("bars: 95 % intervals, or lowest to highest seed where several were trained.")


@pytest.mark.parametrize("name", ["$\\frac{$", "_hidden", "a\nb\x00c", "<b>&amp;", "名前", "x" * 300])
def test_names_are_plain_text(study, name):
    rows = [make_row(name, name, attack, 0.5) for attack in ("none", "fgsm", "pgd-7", "pgd-9")]
    curves = [Curve(name, {"step": [1, 2], "loss": [2, 1], f"accuracy/{name}": [0.1, 0.2]})]
    page = render(Page(title="t", subtitle="", result=result({**study, "rows": rows}), curves=curves))
    assert 'id="steps"' in page
    assert 'id="training"' in page
    assert "<b>&amp;" not in page.partition("<main")[2].replace("&lt;b&gt;", "")


def test_nothing_to_draw_is_no_figure(study):
    assert steps_of({**study, "rows": []}) is None
    assert steps_of({**study, "rows": [row for row in study["rows"] if row["attack"] == "none"]}) is None
    assert eps_figure(result(study).rows) is None
    assert training_figure([]) is None
    assert training_figure([Curve("a", {"step": [1.0], "loss": [math.nan]})]) is None


def test_a_metrics_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,loss,loss/labels,accuracy/held-out\n1,0.5,2.5,2.5,\n2,1.0,nan,2.0,0.5\n3,1.5,1.5,x")
    columns = Curve("run", path).columns()
    assert columns["loss/labels"][:2] == [2.5, 2.0]
    assert math.isnan(columns["loss/labels"][2])
    assert series(columns, "loss", "epoch") == ([0.5, 1.5], [2.5, 1.5])
    assert series(columns, "accuracy/held-out", "epoch") == ([1.0], [0.5])
    assert series(columns, "absent", "epoch") == ([], [])


def test_the_axis_is_one_that_all_runs_have():
    fine = {"epoch": [0.1, 0.2, 0.3], "step": [1, 2, 3], "images_seen": [8, 16, 24]}
    coarse = {"epoch": [0, 0, 0, 0, 1], "step": [1, 2, 3, 4, 5]}
    assert shared_axis([fine]) == "epoch"
    assert shared_axis([fine, coarse]) == "step"
    assert shared_axis([fine, {"loss": [1.0]}]) == "line"


def test_long_runs_are_averaged():
    steps = list(range(1, 1001))
    x, y = series({"step": steps, "loss": [2.0 * step for step in steps]}, "loss", "step")
    assert len(x) == 100
    assert x[0] == 5.5
    assert y == [2.0 * value for value in x]


def test_a_missing_or_binary_metrics_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot read the training curve"):
        Curve("run", tmp_path / "absent.csv").columns()
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00loss")
    with pytest.raises(DataError, match="cannot read the training curve"):
        Curve("run", tmp_path / "binary.csv").columns()


def test_runs_take_the_colour_of_their_model(study):
    colours = model_colours(study_tables(result(study)))
    looks = run_looks(["cifar10 simclr multitask", "cifar100 simclr multitask", "another"], colours)
    assert looks["cifar10 simclr multitask"][0] == colours["simclr multitask"]
    assert looks["cifar100 simclr multitask"][0] == colours["simclr multitask"]
    assert len({str(look) for look in looks.values()}) == 3
    assert looks["another"][0] not in colours.values()


def test_task_losses_have_panels_only_where_a_run_has_several():
    both = {"step": [1, 2], "loss": [3, 2], "loss/labels": [2, 1], "loss/contrast": [1, 1]}
    joint = training_figure([Curve("joint", both)])
    single = training_figure([Curve("single", {"step": [1, 2], "loss": [3, 2], "loss/labels": [3, 2]})])
    assert joint is not None
    assert single is not None
    assert [panel.title for panel in joint.panels] == ["loss", "loss, labels", "loss, contrast"]
    assert "joint: 1 at 1, 1 at 2" in joint.panels[2].alt
    assert [panel.title for panel in single.panels] == ["loss"]


def test_variants_of_one_model_are_told_apart_alike_in_all_panels(study):
    def settings(loss, trunk):
        return {"trunk": trunk, "loss": loss, "stem": "imagenet"}

    rows = [
        make_row("m", data, attack, 0.5, settings=settings(loss, trunk))
        for data, loss, trunk in (("a", "one", "x"), ("a", "two", "x"), ("a", "one", "y"), ("b", "one", "x"))
        for attack in ("none", "pgd-7")
    ]
    tables = study_tables(result({**study, "rows": rows}))
    assert [row.label for table in tables for row in table.rows] == [
        *("m, trunk x, loss one", "m, trunk x, loss two", "m, trunk y, loss one", "m, trunk x, loss one"),
    ]
    colours = system_colours(tables)
    assert len(set(colours.values())) == 3
    assert model_colours(tables) == {"m": colours["m, trunk x, loss one"]}
    assert tables[1].rows[0].variant == ""


def test_the_last_entries_of_a_column_are_averaged():
    curve = Curve("a", {"step": [1, 2, 3, 4], "accuracy/jigsaw": [0.1, 0.4, math.nan, 0.6], "loss": [math.nan] * 4})
    assert curve.last("accuracy/jigsaw", 2) == pytest.approx(0.5)
    assert curve.last("accuracy/jigsaw", 10) == pytest.approx(1.1 / 3)
    assert curve.last("loss", 2) is None
    assert curve.last("accuracy/rotation", 2) is None
