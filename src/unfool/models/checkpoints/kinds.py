"""What a file is that holds no weights as they are: a web page, an archive, a pointer, by its first bytes."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from unfool.core.borders.reading import is_file, is_folder
from unfool.core.borders.zip_names import zip_names
from unfool.core.errors import WeightsError

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
_PART = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<count>\d{5})(?P<ending>\.\w+)")
"""How transformers names the parts of a checkpoint of several files."""
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".index.json")


def check_kind(path: Path) -> None:
    """Raise WeightsError for a folder, and for a file that is known to be something else than weights."""
    if is_folder(path):
        raise WeightsError(f"{path} is a folder; {_within(path)}")
    if not is_file(path):
        return
    part = _PART.fullmatch(path.name)
    if part is not None and int(part["count"]) > 1:
        index = f"{part['name']}{part['ending']}.index.json"
        raise WeightsError(f"{path} is one of {int(part['count'])} parts; give the file that lists them, {index}")
    with open(path, "rb") as file:
        start = file.read(512)
    fault = _fault(path, start)
    if fault is not None:
        raise WeightsError(f"{path} is refused: it is {fault}")


def is_safetensors(path: Path) -> bool:
    """Whether a file is named so, or begins so under another name."""
    if path.suffix == ".safetensors" or not is_file(path):
        return path.suffix == ".safetensors"
    with open(path, "rb") as file:
        start = file.read(10)
    return start[8:] == b'{"' and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def _fault(path: Path, start: bytes) -> str | None:
    text = start.lstrip().lower()
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if not start:
        return "empty; download or copy it again"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, such as a failed download leaves; download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS instead of the file; fetch the file with git lfs pull"
    if packed is not None:
        return f"compressed with {packed}; unpack it first"
    if start.startswith(b"\x89HDF"):
        return "HDF5, as Keras writes it; load it there and save its arrays with numpy.savez"
    if start.startswith(b"\x93NUMPY"):
        return "a single NumPy array (.npy); save the arrays by name with numpy.savez"
    if text[:1] in (b"{", b"[") and not path.name.endswith(".index.json"):
        return "JSON text, not weights; give the file with the tensors"
    if start[257:262] == b"ustar":
        return _tar(path)
    return _zip(path) if start.startswith(b"PK") else None


def _tar(path: Path) -> str:
    try:
        with tarfile.open(path) as archive:
            first = [member.name for _, member in zip(range(8), archive, strict=False)]
    except (tarfile.TarError, OSError):
        first = []
    if "storages" in first:
        return "of PyTorch's first format (tar), which weights_only=True does not load; load and save it with PyTorch"
    return f"a tar archive ({', '.join(first[:3]) or 'damaged'}); unpack it first"


def _zip(path: Path) -> str | None:
    try:
        names = zip_names(path)
    except ValueError:
        return "a damaged zip archive; download or copy it again"
    if names is None:
        return "cut off, a zip archive without its end; download or copy it again"
    if path.suffix == ".npz" or any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return None
    if any("exported_program" in name or name.endswith("archive_format") for name in names):
        return "a program of torch.export; give it as the model itself, with --model FILE"
    return f"a zip archive of other files, such as {names[0][:60] if names else 'none'}; unpack it first"


def _within(folder: Path) -> str:
    """Which file of a folder to give."""
    if (folder / ".metadata").is_file():
        return "make one file of its parts with torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(ENDINGS))
    indices = [name for name in names if name.endswith(".index.json")]
    shown = ", ".join((indices or names)[:3])
    return f"give a file in it, such as {shown}" if shown else "give a file of weights"
