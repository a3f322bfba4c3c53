"""Which weights a stage ends with: the last ones, a running average, or the best on held-out images."""
