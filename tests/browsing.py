"""Pages in a real browser: one headless Chromium for all tests, and what no page may show at any width or theme."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDTHS = (1366, 390)
THEMES = ("light", "dark")
_FLAGS = (
    "--headless=new",
    "--hide-scrollbars",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
)

FAULTS = Path(__file__).with_name("page_faults.js").read_text(encoding="utf-8")


def missing() -> str:
    """What a browser test lacks here; empty where it lacks nothing."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    programs = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return (
        f"{' and '.join(programs)} not found; on Debian: apt-get install chromium chromium-driver" if programs else ""
    )


def started() -> Iterator[Any]:
    """A headless browser, which ends with the tests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


def look(browser: Any, width: int, theme: str) -> None:
    """Give the browser's window a width and a theme."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"media": "", "features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def on_paper(browser: Any) -> None:
    """Show the page as it is printed on paper of 190 mm."""
    look(browser, 720, "light")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")


def faults_of(browser: Any, path: Path) -> list[str]:
    """What is wrong with a page at any width and theme, all that it folds opened: overflow, text that is clipped, too
    small or too faint, ticks that overlap, columns that are hidden without a hint, errors on the console."""
    browser.get_log("browser")
    look(browser, WIDTHS[0], THEMES[0])
    browser.get(path.resolve().as_uri())
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true;")
    return faults_shown(browser)


def faults_shown(browser: Any) -> list[str]:
    """What is wrong with the page that the browser shows, as it stands, at any width and theme."""
    faults: list[str] = []
    for width in WIDTHS:
        for theme in THEMES:
            look(browser, width, theme)
            # two frames, so that what watches sizes has seen the new one
            browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
            faults += [f"{width} px, {theme}: {fault}" for fault in browser.execute_script(FAULTS)]
    return faults + [f"console: {entry['message']}" for entry in browser.get_log("browser")]
