"""Pages in a real browser at two widths and two themes: readable, whole, and alive."""

from pathlib import Path

import pytest
from browsing import FAULTS, faults_of, look, on_paper
from page_files import KINDS, write_pages

HEAD = "<!DOCTYPE html><html lang=en><head><link rel=icon href='data:,'></head>"
PLAIN = HEAD + "<body style='font:16px sans-serif'>{}</body>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    return write_pages(tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_no_fault_at_any_width_and_theme(browser, pages, kind):
    assert faults_of(browser, pages[kind]) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<p>good</p>", ""),
        ("<div style='width:2000px'>wide</div>", "1366 px, light: overflow"),
        ("<div style='width:600px'>wide</div>", "390 px, light: overflow"),
        ("<p style='color:#999'>faint</p>", "1366 px, light: contrast"),
        (
            "<style>@media (prefers-color-scheme: dark) { body { background: #333 } }</style><p>faint</p>",
            "dark: contrast",
        ),
        ("<svg><text y=20 fill='#bbb'>faint</text></svg>", "contrast"),
        ("<p style='font-size:7px'>small</p>", "small"),
        ("<p style='width:3em;overflow:hidden;white-space:nowrap'>much more than that</p>", "clipped"),
        ("<p style='margin-left:-40px'>cut</p>", "clipped"),
        ("<div><div class=scroll style='overflow:auto;width:90px'><pre>many more columns</pre></div></div>", "hint"),
        (
            "<figure><svg><text class=tick y=9>100 %</text><text class=tick y=9 x=9>20 %</text></svg></figure>",
            "overlap",
        ),
        ("<script>console.error('broken')</script><p>x</p>", "console"),
        ("<script>nothing.there()</script><p>x</p>", "console"),
    ],
)
def test_the_checks_see_what_is_broken(browser, tmp_path, body, fault):
    page = tmp_path / "page.html"
    page.write_text(PLAIN.format(body), encoding="utf-8")
    faults = faults_of(browser, page)
    assert any(fault in each for each in faults) if fault else faults == []


def test_a_table_is_sorted_and_filtered(browser, pages):
    look(browser, 1366, "light")
    browser.get(pages["longest"].as_uri())
    column = "[data-c='autoattack']"
    table = "document.querySelector('table.accuracy')"
    click = f'{table}.querySelector("th{column} button").click()'
    cells = f'[...{table}.tBodies].map(body => body.querySelector("td{column} data"))'
    shares = f"return {cells}.filter(data => data).map(data => Number(data.value))"
    browser.execute_script(click)
    down = browser.execute_script(shares)
    assert len(down) > 10
    assert down == sorted(down, reverse=True)
    browser.execute_script(click)
    assert browser.execute_script(shares) == down[::-1]
    field = browser.find_element("css selector", ".filter input")
    field.send_keys("jigsaw joint")
    shown = browser.execute_script(
        "return [...document.querySelector('table.accuracy').tBodies].filter(b => !b.hidden).map(b => b.innerText)"
    )
    assert 0 < len(shown) < len(down)
    assert all("jigsaw" in text and "joint" in text for text in shown)
    count = browser.find_element("css selector", ".filter output").text
    assert count.startswith(f"{len(shown)} of ")


def test_a_claim_opens_by_keyboard_and_everything_opens_on_paper(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.get(pages["demo"].as_uri())
    summary = browser.find_element("css selector", ".claim summary")
    said = summary.find_element("xpath", "../div")
    assert not said.is_displayed()
    summary.send_keys(Keys.ENTER)
    assert said.is_displayed()
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = browser.execute_script(closed)
    assert before > 0
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(closed) == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(closed) == before


@pytest.mark.parametrize("kind", ["ladder", "longest"])
def test_paper_holds_the_page(browser, pages, kind):
    browser.get(pages[kind].as_uri())
    on_paper(browser)
    try:
        assert browser.execute_script(FAULTS) == []
    finally:
        look(browser, 1366, "light")


def test_results_come_before_claims(browser, pages):
    look(browser, 1366, "light")
    browser.get(pages["longest"].as_uri())
    top = "return document.querySelector('{}').getBoundingClientRect().top + scrollY"
    assert browser.execute_script(top.format("#overview .plot")) < 600
    claims, accuracy = (browser.execute_script(top.format(place)) for place in ("#claims", "#accuracy"))
    assert accuracy - claims < 3500  # 60 claims, undecided ones folded
