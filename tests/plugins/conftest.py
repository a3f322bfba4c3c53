"""Plugin files for the tests: each is loaded for a test and removed from every registry afterwards."""

import os
from pathlib import Path

import pytest

from unfool.core import plugins

FOLDER = Path(__file__).parent / "files"


@pytest.fixture(autouse=True)
def _only_this_tests_plugins(monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, os.environ.get(plugins.VARIABLE, ""))
    before = set(plugins._files)
    yield
    for file in set(plugins._files) - before:
        plugins.unload_plugin(file)


@pytest.fixture
def write(tmp_path):
    """A function that writes a plugin file."""

    def write_plugin(source, name="my_plugin.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return write_plugin
