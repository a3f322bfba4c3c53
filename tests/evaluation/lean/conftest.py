"""AutoAttack in a few steps: what lean escalates to is the same, and these models need no more of it."""

import functools

import pytest

from unfool import attacks
from unfool.evaluation.lean import steps


@pytest.fixture(autouse=True)
def short_autoattack(monkeypatch):
    monkeypatch.setattr(steps, "AutoAttack", functools.partial(attacks.AutoAttack, steps=12, draws=4))
