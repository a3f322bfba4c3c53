"""Evaluation: one record per image and attack, accuracies with intervals, and the system that was attacked."""

from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.crafting.stored_set import load_set, save_set
from unfool.evaluation.identity import identity
from unfool.evaluation.intervals import wilson
from unfool.evaluation.records import Records

__all__ = ["AdversarialSet", "Records", "classify", "craft", "identity", "load_set", "save_set", "wilson"]
