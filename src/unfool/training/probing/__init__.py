"""Probes: how well classes can be read from the stages of a frozen trunk."""
