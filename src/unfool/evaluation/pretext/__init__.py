"""Pretext tasks on held-out images: how accurately a network answers them, and what probes read."""
