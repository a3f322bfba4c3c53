"""Reliability: checks that say whether an accuracy under attack can be believed."""
