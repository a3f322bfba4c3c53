"""Copies of a model to search adversarial examples on, where the model's own gradient is of no use."""
