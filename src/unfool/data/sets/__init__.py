"""The catalog's entries, one file each: a file here that files a ``DataSet`` in ``SETS`` is all a new set needs."""
