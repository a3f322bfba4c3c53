"""Sweeps: many runs that differ in a few settings, judged on images that none of them learns from."""
