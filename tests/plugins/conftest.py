"""Plugin files for the tests."""

import pytest


@pytest.fixture
def write(tmp_path):
    """A function that writes a plugin file."""

    def write_plugin(source, name="my_plugin.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return write_plugin
