"""For all tests: one thread a process, so that parallel workers do not trample on each other, and no deadlines."""

import gc
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import settings

from unfool.core import plugins

# Compiled once and kept: the suite's many processes would each compile its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
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


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported here lives to the end; collecting garbage among it costs as much as many tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbouring tests go to one worker, which makes what they share once; one that is done takes from others."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.option.dist == "load" else None


@pytest.fixture(autouse=True, scope="session")
def threads():
    import torch  # not needed by the process that only hands out tests

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def plugins_undone(monkeypatch):
    """Removes the plugin files that a test loads, also through a study's file, from every registry when it ends."""
    monkeypatch.setenv(plugins.VARIABLE, os.environ.get(plugins.VARIABLE, ""))
    before = set(plugins._files)
    yield
    for file in set(plugins._files) - before:
        plugins.unload_plugin(file)


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests that need one; they are skipped, saying why, where there is none."""
    import browsing

    if reason := browsing.missing():
        pytest.skip(reason)
    yield from browsing.started()
