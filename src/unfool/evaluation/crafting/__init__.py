"""Crafting: adversarial examples made batch by batch, stored with their provenance, resumed after an interruption."""
