"""Plugin files for the tests: each is loaded for a test and removed from every registry afterwards."""

import pytest


@pytest.fixture(autouse=True)
def _plugins_undone(plugins_undone):
    pass


@pytest.fixture
def write(tmp_path):
    """A function that writes a plugin file."""

    def write_plugin(source, name="my_plugin.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return write_plugin
