"""What comes from outside, each kind through one door: files, JSON and YAML, bounded before they are read."""
