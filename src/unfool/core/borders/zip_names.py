"""What a zip archive holds, without unpacking it."""

from __future__ import annotations

import zipfile
from pathlib import Path


def zip_names(path: Path) -> list[str] | None:
    """The names in a zip archive, None for a file that is none; ValueError in one line for a damaged one."""
    try:
        # Both raise: the first where the end of the archive is damaged, the second where its list is.
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as fault:
        raise ValueError(f"a damaged zip archive ({' '.join(str(fault).split())[:100]})") from fault
