"""Charts of a results file: what is drawn, and what is refused."""

import base64
import re

import pytest
from made_up_study import make_study, result

from unfool.core.errors import UnfoolError
from unfool.evaluation.results.check import check_results
from unfool.report.charts import chart_pictures
from unfool.report.page import Page, render


def chart(**changes):
    points = [[16, 0.41, 0.36, 0.46], [64, 0.43, 0.38, 0.48], [512, 0.44, 0.39, 0.49]]
    one = {"name": "reversed", "points": points}
    values = {"title": "Negatives", "x": "negatives", "y": "accuracy", "kind": "line", "series": [one]}
    return {**values, **changes}


BARS = chart(kind="bars", series=[{"name": "a", "points": [["nt-xent", 0.4], ["margin", 0.3]]}])
STEPS = chart(kind="steps", y="images", series=[{"name": "clean", "points": [[0, 3], [1, 5], [2, 0]]}])


@pytest.mark.parametrize("given", [chart(), BARS, STEPS])
def test_a_chart_is_drawn_and_told_in_words(given):
    ((title, picture),) = chart_pictures(result({"charts": [given]}).charts)
    assert title == "Negatives"
    svg = base64.b64decode(picture.uri.split(",", 1)[1]).decode()
    assert svg.count("<path") > 10
    assert picture.alt.startswith("Negatives.")
    for series in given["series"]:
        if given["kind"] != "steps":
            assert all(f"{point[1]:.3g}" in picture.alt for point in series["points"])


def test_bars_are_as_high_as_their_figures():
    ((_, picture),) = chart_pictures(result({"charts": [BARS]}).charts)
    svg = base64.b64decode(picture.uri.split(",", 1)[1]).decode()
    heights = []
    for path in re.findall(r'<path d="([^"]+)"[^>]*style="fill: #0072b2; opacity: 0.85"', svg):
        rows = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", path)]
        heights.append(max(rows) - min(rows))
    assert len(heights) == 2
    assert heights[0] / heights[1] == pytest.approx(0.4 / 0.3, rel=1e-3)


def test_long_names_take_nothing_from_the_bars():
    def bars(*names):
        return chart(kind="bars", series=[{"name": "a", "points": [[name, 0.5] for name in names]}])

    def drawn(given):
        ((_, picture),) = chart_pictures(result({"charts": [given]}).charts)
        svg = base64.b64decode(picture.uri.split(",", 1)[1]).decode()
        paths = re.findall(r'<path d="([^"]+)"[^>]*style="fill: #0072b2; opacity: 0.85"', svg)
        rows = [float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", paths[0])]
        return picture.height, max(rows) - min(rows)

    short, long = drawn(bars(*(f"{number} of a few words" for number in range(5)))), drawn(bars("x" * 70, "y" * 70))
    assert long[0] > short[0] + 100
    assert long[1] > 0.8 * short[1]


def test_the_page_shows_charts_and_nothing_of_them_where_there_are_none():
    study = make_study()
    assert 'id="charts"' not in render(Page(title="t", subtitle="s", result=result(study)))
    text = render(Page(title="t", subtitle="s", result=result({**study, "charts": [chart(title="a <b> title"), BARS]})))
    assert text.count("data:image/svg+xml") >= 2
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
