"""Weights that other programs wrote: read without running their code, found in the file, and fitted to a model."""
