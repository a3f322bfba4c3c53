"""Charts of a results file: what is drawn, and what is refused."""

import pytest
from made_up_study import make_study, result

from unfool.core.errors import UnfoolError
from unfool.evaluation.results.check import check_results
from unfool.report.page import Page, render
from unfool.report.plots.charts import chart_figures
from unfool.report.plots.scale import Scale, in_percent, nice_scale, plain, written


def chart(**changes):
    points = [[16, 0.41, 0.36, 0.46], [64, 0.43, 0.38, 0.48], [512, 0.44, 0.39, 0.49]]
    one = {"name": "reversed", "points": points}
    values = {"title": "Negatives", "x": "negatives", "y": "accuracy", "kind": "line", "series": [one]}
    return {**values, **changes}


BARS = chart(kind="bars", series=[{"name": "a", "points": [["nt-xent", 0.4], ["margin", 0.3]]}])
STEPS = chart(kind="steps", y="images", series=[{"name": "clean", "points": [[0, 3], [1, 5], [2, 0]]}])


def figure_of(given):
    ((title, figure),) = chart_figures(result({"charts": [given]}).charts)
    assert title == "Negatives"
    return figure


@pytest.mark.parametrize("given", [chart(), BARS])
def test_a_chart_says_its_figures_in_words(given):
    figure = figure_of(given)
    alt = figure.alt if figure.kind == "bars" else figure.panels[0].alt
    for series in given["series"]:
        assert all(f"{100 * point[1]:.3g} % at {point[0]}" in alt for point in series["points"])


def test_bars_are_as_long_as_their_figures():
    figure = figure_of(BARS)
    first, second = (row.bars[0] for row in figure.rows)
    assert first.width / second.width == pytest.approx(0.4 / 0.3, rel=1e-3)
    assert first.start == second.start == figure.zero == 0


def test_bars_below_zero_end_at_it():
    points = [["up", 0.2, 0.1, 0.3], ["down", -0.1, -0.2, 0.0]]
    figure = figure_of(chart(kind="bars", y="difference in accuracy", series=[{"name": "a", "points": points}]))
    up, down = (row.bars[0] for row in figure.rows)
    assert up.start == pytest.approx(down.start + down.width, abs=0.02)
    assert up.start == figure.zero
    assert down.low < down.start < down.high
    assert down.text == "-10 %"


def test_lines_lie_where_their_figures_are():
    (panel,) = figure_of(chart()).panels
    (line,) = panel.lines
    marks = line.marks
    assert [mark.x for mark in marks][::2] == [0, 100]
    assert 35 < marks[1].x < 45  # 64 of 16 to 512, as these are spread by their ratios
    assert marks[0].y > marks[1].y > marks[2].y
    (low, start), (high, end) = (
        (float(tick.text.split()[0]) / 100, tick.place) for tick in (panel.y_ticks[0], panel.y_ticks[-1])
    )
    assert 100 - marks[0].y == pytest.approx(start + (0.41 - low) / (high - low) * (end - start), abs=0.1)
    assert line.band.count(",") == 6


@pytest.mark.parametrize("values", [(-1e308, 1e308), (5.0, 6.0), (1e-320, 2e-320), (0.0, 0.0)])
def test_any_numbers_have_an_axis(values):
    scale = nice_scale(values, in_percent)
    assert scale.low < scale.high
    assert scale.ticks
    assert all(0 <= tick.place <= 100 for tick in scale.ticks)
    assert nice_scale([0.41, 0.995], in_percent).high == 1


def test_outlines_of_histograms_begin_and_end_at_zero():
    (panel,) = figure_of(STEPS).panels
    corners = [tuple(map(float, corner.split(","))) for corner in panel.lines[0].points.split()]
    assert corners[0][1] == corners[-1][1] == 1000
    heights = sorted({1000 - y for _, y in corners})
    assert heights[1] / heights[2] == pytest.approx(3 / 5, rel=1e-3)


def test_the_page_shows_charts_and_nothing_of_them_where_there_are_none():
    study = make_study()
    assert 'id="charts"' not in render(Page(title="t", subtitle="s", result=result(study)))
    text = render(Page(title="t", subtitle="s", result=result({**study, "charts": [chart(title="a <b> title"), BARS]})))
    assert text.count('class="bar c0"') == 2
    assert text.count("<polyline") >= 2
    assert "a &lt;b&gt; title" in text


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([], "lacks title"),
        (chart(x=None), "lacks title, x or y"),
        (chart(kind="lines"), "line"),
        (chart(series=[]), "no series"),
        (chart(series=[{"points": [[1, 2]]}]), "without a name"),
        (chart(series=[{"name": "a", "points": []}]), "point of 'a'"),
        (chart(series=[{"name": "a", "points": [[1, float("nan")]]}]), "point of 'a'"),
        (chart(series=[{"name": "a", "points": [["one", 2]]}]), "point of 'a'"),
        (chart(kind="bars"), "point of 'reversed'"),
        (chart(series=[{"name": "a", "points": [[1, 2, 3]]}]), "point of 'a'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(broken, said):
    with pytest.raises(UnfoolError, match=said):
        check_results({**make_study(), "charts": [broken]})


def test_words_that_would_touch_on_a_telephone_give_way_there():
    """At 390 pixels an axis is about 270 wide, and 1/255 takes 33 of them."""
    scale = written(
        Scale(low=0.0, high=8.0), [0.0, 1.0, 2.0, 4.0, 8.0], lambda value: f"{value:g}/255" if value else "0"
    )
    assert [tick.text for tick in scale.ticks if tick.minor] == ["2/255"]
    assert not any(tick.minor for tick in written(scale, [0.0, 1.0, 2.0, 4.0], plain).ticks)
