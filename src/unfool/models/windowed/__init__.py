"""Passes of images that differ from known ones in a window."""
