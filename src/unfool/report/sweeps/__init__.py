"""Sweeps: their sentences, and their page."""
