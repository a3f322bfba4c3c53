"""The playground in a real browser: attack, borrow, reverse, upload; readable at two widths and in two themes."""

import time

import pytest
import torch
from browsing import faults_shown, look

from unfool.data.as_table import as_table
from unfool.playground import Playground, PlaygroundSystem
from unfool.playground.server import serving

SENTENCE = "return document.querySelector('#result .sentence').innerText"
ANSWERS = "return [...document.querySelectorAll('#result .pictures b')].map(b => b.innerText)"


@pytest.fixture(scope="module")
def address(play, browser):
    with serving(play, port=0) as url:
        yield url


def until(browser, script, wanted, seconds=60):
    """What a script gives as soon as it is as wanted; fails with what it gave last."""
    end = time.monotonic() + seconds
    while not wanted(value := browser.execute_script(script)):
        assert time.monotonic() < end, f"{script} still gives {value!r}"
        time.sleep(0.05)
    return value


def press(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def opened(browser, address):
    look(browser, 1366, "light")
    browser.get_log("browser")
    browser.get(address)
    until(browser, "return document.querySelectorAll('#picker button img').length", lambda count: count == 10)
    until(browser, SENTENCE, lambda text: text.startswith("The network sees a 0"))


def test_a_picture_is_attacked_borrowed_and_reversed(browser, address):
    opened(browser, address)
    press(browser, "#picker button:nth-child(4)")
    until(browser, SENTENCE, lambda text: text.startswith("The network sees a 3"))
    press(browser, "#attack")
    own = until(browser, ANSWERS, lambda answers: len(answers) == 2)
    assert own[0] == "3"
    assert own[1] != "3"
    assert f"the network sees a {own[1]}" in browser.execute_script(SENTENCE)
    press(browser, "#source label:nth-child(2) input")
    said = until(browser, SENTENCE, lambda text: "on an example made for zoo:digits-robust" in text)
    assert "the network still sees a 3" in said
    assert browser.execute_script(ANSWERS) == ["3", "3"]
    press(browser, "#source label:nth-child(1) input")
    until(browser, ANSWERS, lambda answers: answers == own)
    press(browser, "#reverse")
    until(browser, SENTENCE, lambda text: "Reversed: " in text)
    assert len(browser.execute_script(ANSWERS)) == 3
    charts = browser.execute_script("return document.querySelector('#charts').innerText")
    assert "The reversal" in charts
    assert "pretext loss" in charts
    assert browser.execute_script("return document.querySelector('#result .gate').innerText").startswith("The gate ")
    assert faults_shown(browser) == []
    script = "return [...new Set(performance.getEntriesByType('resource').map(each => new URL(each.name).origin))]"
    assert browser.execute_script(script) == [address.rstrip("/")]


def test_a_class_name_is_shown_and_never_run(browser):
    names = ["${document.title = 'run'}", "`+(document.title = 'run')+`", "\\`${document.title = 'run'}", "{{value}}"]
    table = as_table((torch.rand(4, 3, 32, 32), [0, 1, 2, 3]), split="test")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    system = PlaygroundSystem(name="own", network=network, classes=names, shape=(3, 32, 32), examples=table)
    look(browser, 1366, "light")
    with serving(Playground({"own": lambda: system}), port=0) as url:
        browser.get(url)
        shown = "return [...document.querySelectorAll('#picker button')].map(each => each.title)"
        until(browser, shown, lambda titles: titles[:4] == names)
        press(browser, "#picker button:nth-child(2)")
        pressed = "return [...document.querySelectorAll('#picker button[aria-pressed=true]')].map(each => each.title)"
        until(browser, pressed, lambda titles: titles == names[1:2])
        described = "return document.querySelector('#picker button:nth-child(2) img').alt"
        until(browser, described, lambda words: words == names[1])
        assert browser.title != "run"
        browser.get("about:blank")  # before its server goes


def test_a_bad_upload_says_one_line_and_leaves_the_page(browser, address, tmp_path):
    from PIL import Image

    opened(browser, address)
    result = "return document.querySelector('#result .play').innerHTML"
    before = browser.execute_script(result)
    (tmp_path / "bad.png").write_text("no image")
    Image.new("RGB", (40, 40), "white").save(tmp_path / "good.png")
    field = "input[type=file]"
    browser.find_element("css selector", field).send_keys(str(tmp_path / "bad.png"))
    notice = "return document.querySelector('#notice .notice')?.innerText ?? ''"
    line = until(browser, notice, bool)
    assert line.startswith("bad.png is no image that can be read")
    assert "\n" not in line
    assert browser.execute_script(result) == before
    assert faults_shown(browser) == []
    browser.find_element("css selector", field).send_keys(str(tmp_path / "good.png"))
    until(browser, notice, lambda text: not text)
    until(browser, "return document.querySelectorAll('#picker img').length", lambda count: count == 11)
    assert browser.execute_script(SENTENCE).startswith("The network sees a")
