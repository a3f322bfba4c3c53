"""Attacks: images moved uphill inside a threat model. One engine, and each attack a setting of it."""

from unfool.attacks.base import ATTACKS, Attack, Attacked, ProxySettings, make_attack

__all__ = ["ATTACKS", "Attack", "Attacked", "ProxySettings", "make_attack"]
