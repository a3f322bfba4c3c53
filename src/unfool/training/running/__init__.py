"""A run at work: prepared, trained stage by stage, logged, and stored so that it can go on after a stop."""
