"""The commands, one file each: options in groups, and a ``run`` that calls the library and prints."""
