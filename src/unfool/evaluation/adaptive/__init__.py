"""Adaptive evaluation: attacks on a defended system by an attacker who knows the defense."""
