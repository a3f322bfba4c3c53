"""Attacks that look for the nearest adversarial example, whose real result is a distance for each image."""
