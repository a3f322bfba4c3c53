"""The page of a ladder: every figure, every picture, nothing unescaped, nothing malformed."""

import base64
import copy
import io
import json
import re

import numpy as np
import pytest
from made_up_study import result
from PIL import Image

from unfool.core.errors import DataError, SpecError
from unfool.report import Page
from unfool.report.ladder import ladders
from unfool.report.page import render

EVIL = "<script>alert(1)</script>"


def png(shade, kind="PNG", side=4):
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), shade, np.uint8)).save(file, format=kind)
    return base64.b64encode(file.getvalue()).decode()


def share(accuracy, n):
    return {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "n": n}


def rung(letter, accuracy, protocol="adaptive", **more):
    return {
        "rung": letter,
        "title": f"what {letter} is",
        "attack": "bpda",
        "protocol": protocol,
        **share(accuracy, 200),
        "common": share(accuracy - 0.01, 100),
        "cpu_seconds": 12.0,
        "model_images": 45_000,
        "fooled_by": {"from (a)": 12, "random start 1": 0},
        "flat": 0,
        **more,
    }


LADDER = {
    "model": "net",
    "defense": "reverse:steps=10",
    "threat": "linf:8/255",
    "verdict": "fails",
    "sentences": ["First.", "Second."],
    "difference": {"difference": -0.1, "low": -0.2, "high": -0.01, "p_value": 0.02},
    "images_per_prediction": 21,
    "rungs": [
        rung("a", 0.51, "white-box"),
        rung("b", 0.63, "transfer"),
        rung("c", 0.44),
        rung("worst", 0.42, fooled_by={}),
    ],
    "absent": {"g": "the defense has no gate"},
    "notes": ["A note."],
    "examples": [
        {
            "rung": "b",
            "attack": "autoattack",
            "id": 3,
            "label": "cat",
            "path": [4.0, 2.5, 2.0],
            "pictures": [
                {"kind": kind, "png": png(shade), "classes": [{"name": name, "probability": 0.75}]}
                for kind, shade, name in (("clean", 10, "cat"), ("attacked", 20, "dog"), ("purified", 30, "cat"))
            ],
        }
    ],
}


def page(ladder, **more):
    return render(Page(title="t", subtitle="", result=result({"ladder": ladder, **more})))


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html.partition("<main")[2]).split())


def test_every_figure_and_picture_is_shown():
    html = page(LADDER)
    text = text_of(html)
    for piece in (
        "fails reverse:steps=10 before net, linf:8/255 First. Second.",
        "(a) what a is",
        "51.0 [46.0, 56.0] 200 images 50.0 [45.0, 55.0] 100 images 12 s 45 k from (a) 12",
        "42.0 [37.0, 47.0]",
        "(g) was not run: the defense has no gate.",
        "A note.",
        "true class cat transfer (b) autoattack",
        "pretext loss 4 → 2 in 2 steps",
    ):
        assert piece in text, text
    assert "random start 1" not in text
    assert html.count('<img src="data:image/png;base64,') == 3
    assert html.count('class="right"') == 2
    assert html.count('class="wrong"') == 1
    assert re.search(r'<td class="protocol transfer"><span class="tag">transfer', html)
    assert '<a href="#ladder">' in html


def test_a_random_system_shows_what_is_right_in_every_draw():
    random = copy.deepcopy(LADDER)
    random["rungs"][2]["every_draw"] = share(0.31, 200)
    text = text_of(page(random))
    assert "44.0 [39.0, 49.0] 200 images 31.0 [26.0, 36.0] in every draw 43.0 [38.0, 48.0] 100 images" in text
    assert text.count("in every draw") == 1
    (section,) = result({"ladder": random}).ladders
    assert type(section).from_json(json.loads(json.dumps(section.to_json()))) == section


def test_the_path_falls_as_the_loss_does():
    (section,) = ladders(result({"ladder": LADDER}))
    points = [tuple(map(float, pair.split(","))) for pair in section.examples[0].points.split()]
    assert len(points) == 3
    across, down = zip(*points, strict=True)
    assert across == tuple(sorted(across))
    assert (down[0], down[2]) == (3.0, 33.0)
    assert down[1] == pytest.approx(3 + 30 * 0.75, abs=0.1)


def test_several_ladders_and_none():
    two = [LADDER, {**LADDER, "defense": "gate", "verdict": "helps", "examples": []}]
    html = page(two)
    assert html.count('class="climb"') == 2
    assert 'class="badge holds">helps' in html
    assert 'id="ladder"' not in page([])
    assert 'id="ladder"' not in render(Page(title="t", subtitle="", result=result({})))


def test_every_name_is_escaped():
    evil = copy.deepcopy(LADDER)
    evil |= dict.fromkeys(("model", "defense", "threat"), EVIL)
    evil |= {"sentences": [EVIL], "notes": [EVIL], "absent": {EVIL: EVIL}}
    evil["rungs"][2] |= {"title": EVIL, "attack": EVIL, "fooled_by": {EVIL: 3}}
    evil["examples"][0] |= {"label": EVIL, "rung": EVIL, "attack": EVIL}
    evil["examples"][0]["pictures"][1]["classes"][0]["name"] = EVIL
    html = page(evil)
    assert EVIL not in html
    assert html.count("&lt;script&gt;") >= 12


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("verdict",), "wins"),
        (("rungs",), {"a": 1}),
        (("rungs", 0, "accuracy"), 1.5),
        (("rungs", 0, "accuracy"), "0.5"),
        (("rungs", 0, "common"), None),
        (("rungs", 0, "every_draw"), {"accuracy": 1.5, "low": 0.1, "high": 0.2, "n": 3}),
        (("rungs", 0, "protocol"), "trust-me"),
        (("rungs", 0, "model_images"), -1),
        (("absent",), ["g"]),
        (("examples", 0, "path"), [1.0, float("nan")]),
        (("examples", 0, "pictures"), []),
        (("examples", 0, "pictures", 0, "png"), "no base64!"),
        (("examples", 0, "pictures", 0, "png"), base64.b64encode(b"<svg onload='x'/>").decode()),
        (("examples", 0, "pictures", 0, "png"), png(1, "JPEG")),
        (("examples", 0, "pictures", 0, "png"), png(1, side=1025)),
        (("examples", 0, "pictures", 0, "classes", 0, "probability"), True),
    ],
)
def test_malformed_ladders_are_one_line(where, value):
    broken = copy.deepcopy(LADDER)
    inner = broken
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises((DataError, SpecError)) as caught:
        ladders(result({"ladder": broken}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", ["a text", [1], 3])
def test_what_is_no_ladder_is_refused(given):
    with pytest.raises(DataError, match="no object"):
        ladders(result({"ladder": given}))


def test_a_section_comes_back_as_it_was():
    (section,) = result({"ladder": LADDER}).ladders
    assert type(section).from_json(json.loads(json.dumps(section.to_json()))) == section
    assert result({"ladder": LADDER}).to_json()["ladder"]["rungs"][0]["accuracy"] == LADDER["rungs"][0]["accuracy"]
