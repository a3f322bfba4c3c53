"""Classifiers from elsewhere: where they come from, what goes into them, and what comes out."""
