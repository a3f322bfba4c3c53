"""Optimisation loops that perturb images along an objective; attacks configure them."""
