"""Defenses: modules that take images and give logits, and do more on the way than their network. One file a defense."""

from unfool.defenses.base import DEFENSES, Defense, make_defense

__all__ = ["DEFENSES", "Defense", "make_defense"]
