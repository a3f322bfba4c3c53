"""Options: those that several commands share, and those that come from the library's settings classes."""
