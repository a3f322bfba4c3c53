"""Hardening: a short adversarial training of a classifier's own weights, measured before and after."""

from unfool.evaluation.hardening.harden import harden
from unfool.evaluation.hardening.hardened import Hardened
from unfool.evaluation.hardening.settings import HardenSettings

__all__ = ["HardenSettings", "Hardened", "harden"]
