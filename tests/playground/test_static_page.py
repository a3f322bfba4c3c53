"""The page that needs no server: what it holds is what the library computes, and it works in a browser."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from browsing import faults_shown, look
from PIL import Image
from test_playing import press, until

from unfool import Linf
from unfool.core.errors import DataError
from unfool.playground import Playground
from unfool.playground.pictures import example_pictures
from unfool.playground.static_page import STEPS, write_static_page
from unfool.playground.words import say

SYSTEM, OTHER = "zoo:digits", "zoo:digits-robust"


@pytest.fixture(scope="module")
def page(play, tmp_path_factory):
    path = tmp_path_factory.mktemp("static") / "digits.html"
    assert write_static_page(path, play, places={"linf": (8.0, 16.0)}) == path.stat().st_size
    return path


@pytest.fixture(scope="module")
def data(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_what_the_library_computes(play, data):
    system = play.system(SYSTEM)
    pictures = example_pictures(system)
    assert [digit["name"] for digit in data["digits"]] == [str(label) for label in range(10)]
    for source, lender in (("own", None), ("borrowed", OTHER)):
        outcome = play.attack(SYSTEM, pictures[3], Linf(16 / 255), STEPS, lender)
        shown = data["digits"][3]["linf 16"][source]
        assert shown["said"] == say(system, outcome)
        assert shown["answer"] == str(outcome.attacked.top)
        percents = (100 * outcome.attacked.probabilities).round().int()
        assert (torch.tensor(shown["percents"]) - percents).abs().max() <= 1
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["digits"][3]["tiles"].partition(",")[2]))))
        tile = torch.from_numpy(strip[:, shown["tile"] * 32 : (shown["tile"] + 1) * 32].copy()).permute(2, 0, 1)
        assert (tile - (255 * outcome.attacked.image).round()).abs().max() <= 1
    reversal = play.reverse(SYSTEM, "contrast", play.attack(SYSTEM, pictures[3], Linf(16 / 255), STEPS))
    shown = data["digits"][3]["linf 16"]["reversed"]
    assert shown["losses"] == pytest.approx(reversal.losses, abs=0.1)
    assert shown["answer"] == str(reversal.reversed.top)


def test_the_page_loads_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "linf is the most that any value changes" in text
    assert not re.search(r"""(?:src|href)=(?!["']?(?:data:|#))""", text.partition("<script")[0])


def test_without_a_network_of_digits_there_is_no_page(tmp_path, play):
    with pytest.raises(DataError, match="no network here sees digits"):
        write_static_page(tmp_path / "none.html", Playground({"natural": lambda: play.system("natural")}))


def test_the_page_is_played_in_a_browser(browser, page, data):
    look(browser, 1366, "light")
    browser.get_log("browser")
    browser.get(page.as_uri())
    said = "return document.getElementById('said').textContent"
    until(browser, said, bool)
    press(browser, "input[name=digit][value='3']")
    press(browser, "input[name=eps][value='16']")
    shown = data["digits"][3]["linf 16"]
    assert browser.execute_script(said) == shown["own"]["said"]
    answers = "return [...document.querySelectorAll('#pictures b')].map(b => b.textContent)"
    assert browser.execute_script(answers) == ["3", shown["own"]["answer"]]
    assert shown["own"]["answer"] != "3"
    press(browser, "#reverse")
    assert browser.execute_script(said) == shown["reversed"]["said"]
    assert len(browser.execute_script(answers)) == 3
    assert faults_shown(browser) == []
    press(browser, "input[name=source][value=borrowed]")
    assert browser.execute_script(said) == shown["borrowed"]["said"]
    assert browser.execute_script(answers) == ["3", shown["borrowed"]["answer"]]
    press(browser, "input[name=eps][value='8']")
    assert browser.execute_script(said) == data["digits"][3]["linf 8"]["borrowed"]["said"]
