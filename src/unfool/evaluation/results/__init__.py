"""Results as typed values and as files: rows, claims, charts, and all of them together."""
