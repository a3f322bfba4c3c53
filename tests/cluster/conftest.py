"""One cluster for all tests of this folder."""

import importlib.util
import shutil

import pytest
from three_nodes import NetworkRefusedError, ThreeNodes


@pytest.fixture(scope="session")
def nodes():
    """Three nodes; tests that need a cluster are skipped where none can be made."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the package ray is not installed (extra cluster)")
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("there are no programs unshare and nsenter, which make a network of its own")
    try:
        cluster = ThreeNodes()
    except NetworkRefusedError as error:
        pytest.skip(f"this machine allows no network of one's own ({error})")
    yield cluster
    cluster.close()
