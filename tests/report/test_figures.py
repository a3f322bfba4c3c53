"""Figures drawn from rows and metrics: contents, tolerance, and nothing left behind."""

import base64
import math
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest
from made_up_study import make_row, result

from unfool.core.errors import DataError
from unfool.report.curves import Curve, series, shared_axis
from unfool.report.figures import _run_looks, curve_picture, model_colours, step_picture, system_colours
from unfool.report.tables import study_tables


def svg_of(picture):
    kind, _, data = picture.uri.partition(";base64,")
    assert kind == "data:image/svg+xml"
    return base64.b64decode(data).decode()


def test_steps_are_drawn_in_words_and_lines(study):
    picture = step_picture(result(study))
    assert picture is not None
    assert (
        "cifar10, simclr multitask (transfer from single-task): "
        "72.1 % at 0 steps, 56.4 % at 7 steps, 55.8 % at 20 steps, 55.7 % at 50 steps." in picture.alt
    )
    assert "cifar10, single-task (white-box): 81.4 % at 0 steps, 0.0 % at 7 steps" in picture.alt
    svg = svg_of(picture)
    ElementTree.fromstring(svg)
    assert "stroke-dasharray" in svg
    white_box = [row for row in study["rows"] if row["protocol"] != "transfer"]
    alone = step_picture(result({**study, "rows": white_box}))
    assert alone is not None
    assert "stroke-dasharray" not in svg_of(alone)


def test_more_systems_than_can_be_told_apart_are_not_drawn(study):
    def of(count):
        names = [f"network {number}" for number in range(count)]
        rows = [make_row(name, "cifar10", attack, 0.5) for name in names for attack in ("none", "pgd-7")]
        return step_picture(result({**study, "rows": rows}))

    assert of(24) is not None
    assert of(25) is None


def test_the_same_results_give_the_same_bytes_and_no_setting_stays(study):
    before = dict(matplotlib.rcParams)
    first, second = step_picture(result(study)), step_picture(result(study))
    assert first == second
    assert dict(matplotlib.rcParams) == before


def test_figures_load_nothing(study):
    picture = step_picture(result(study))
    assert picture is not None
    root = ElementTree.fromstring(svg_of(picture))
    links = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not [node for node in root.iter() if node.tag.endswith(("}image", "}script", "}foreignObject"))]


@pytest.mark.parametrize("name", ["$\\frac{$", "_hidden", "a\nb\x00c", "<b>&amp;", "名前", "x" * 300])
def test_names_are_plain_text(study, name):
    study["rows"] = [make_row(name, name, attack, 0.5) for attack in ("none", "fgsm", "pgd-7")]
    steps = step_picture(result(study))
    curves = curve_picture([Curve(name, {"step": [1, 2], "loss": [2, 1], f"accuracy/{name}": [0.1, 0.2]})])
    assert steps is not None
    assert curves is not None
    for picture in (steps, curves):
        ElementTree.fromstring(svg_of(picture))


def test_nothing_to_draw_is_no_figure(study):
    assert step_picture(result({**study, "rows": []})) is None
    assert step_picture(result({**study, "rows": [row for row in study["rows"] if row["attack"] == "none"]})) is None
    assert curve_picture([]) is None
    assert curve_picture([Curve("a", {"step": [1.0], "loss": [math.nan]})]) is None


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
    looks = _run_looks(["cifar10 simclr multitask", "cifar100 simclr multitask", "another"], colours)
    assert looks["cifar10 simclr multitask"]["color"] == colours["simclr multitask"]
    assert looks["cifar100 simclr multitask"]["color"] == colours["simclr multitask"]
    assert len({str(look) for look in looks.values()}) == 3
    assert looks["another"]["color"] not in colours.values()


def test_task_losses_have_panels_only_where_a_run_has_several():
    both = {"step": [1, 2], "loss": [3, 2], "loss/labels": [2, 1], "loss/contrast": [1, 1]}
    joint = curve_picture([Curve("joint", both)])
    single = curve_picture([Curve("single", {"step": [1, 2], "loss": [3, 2], "loss/labels": [3, 2]})])
    assert joint is not None
    assert single is not None
    assert "joint ends with loss, contrast 1." in joint.alt
    assert "labels" not in single.alt


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
