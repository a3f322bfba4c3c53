"""Experiment trackers: which there are, and a training run in several of them."""
