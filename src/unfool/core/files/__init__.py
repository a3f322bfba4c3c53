"""Files that are either whole or absent, and folders that belong to one owner and one process at a time."""

from unfool.core.files.atomic import JsonObject, atomic_folder, atomic_path, remove_folder, write_json, write_text
from unfool.core.files.owners import claim_folder, folder_lock

__all__ = [
    "JsonObject",
    "atomic_folder",
    "atomic_path",
    "claim_folder",
    "folder_lock",
    "remove_folder",
    "write_json",
    "write_text",
]
