"""Adversarial training: perturbed views, perturbed weights, and early stopping on robust accuracy."""
