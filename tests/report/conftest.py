"""Fixtures of the report's tests."""

from typing import Any

import pytest
from made_up_study import make_study


@pytest.fixture
def study() -> dict[str, Any]:
    return make_study()
