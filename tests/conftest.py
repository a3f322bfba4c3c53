"""For all tests: one thread a process, so that parallel workers do not trample on each other, and no deadlines."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings

from unfool.core import plugins

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# A shared machine stalls now and then; slowness is measured in benchmarks, not here.
settings.register_profile("unfool", deadline=None)
settings.load_profile("unfool")


def pytest_addoption(parser):
    parser.addoption(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="Load a plugin file, so that the conformance tests run on what it registers.",
    )


def pytest_configure(config):
    for path in config.getoption("--plugin"):
        plugins.load_plugin(path)


@pytest.fixture(autouse=True)
def plugins_undone(monkeypatch):
    """Removes the plugin files that a test loads, also through a study's file, from every registry when it ends."""
    monkeypatch.setenv(plugins.VARIABLE, os.environ.get(plugins.VARIABLE, ""))
    before = set(plugins._files)
    yield
    for file in set(plugins._files) - before:
        plugins.unload_plugin(file)
