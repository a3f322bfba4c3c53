# pyright: reportUnknownMemberType=false
"""Opening a split as a table: from its store, which is built where there is none that is whole, or straight."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from unfool.core.borders.checksum import checksum
from unfool.core.borders.mapped import MappedPages
from unfool.core.errors import OutputError, UnfoolWarning
from unfool.data.decode import SEVERAL_FRAMES, Framing
from unfool.data.encoded import EncodedPixels
from unfool.data.pixels import DecodedPixels, Pixels
from unfool.data.readers.decode_rows import resident_pixels, workers
from unfool.data.sources import Columns, ReadReport, Source, primary_column
from unfool.data.store.manifest import SCHEMA_VERSION, Manifest, checked_manifest
from unfool.data.store.writing import build_store
from unfool.data.table import Table

LIMIT_BYTES = 8 << 30
"""Above this many decoded bytes a store keeps the encoded images."""


def store_key(name: str, split: str, framing: Framing, columns: Columns, limit: int, fingerprint: str) -> str:
    """The folder name of a store."""
    parts = [SCHEMA_VERSION, name, split, framing.size, "centre" if framing.crop == 1.0 else framing.crop, limit]
    parts += [fingerprint, *([columns.image, *columns.labels] if columns != Columns() else [])]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9._]+", "_", name).strip("._")[-60:]
    return f"{slug}-{split}-{framing.size or 'native'}-{digest}"


def stored_table(
    name: str,
    split: str,
    source: Source,
    *,
    framing: Framing = Framing(),  # noqa: B008 - frozen
    columns: Columns = Columns(),  # noqa: B008 - frozen
    cache: Path,
    limit: int = LIMIT_BYTES,
) -> Table:
    """Open the store of a split, building it first where there is none that is whole.

    Raises DataError for sources that cannot be read and OutputError for a cache that cannot be written; warns
    (UnfoolWarning) on every opening when images were left out as corrupt or converted from CMYK.
    """
    folder = cache / "store" / store_key(name, split, framing, columns, limit, source.fingerprint)
    manifest = checked_manifest(folder)
    if manifest is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(folder.name + ".lock")):
                manifest = checked_manifest(folder)  # another process may have built it while this one waited
                if manifest is None:
                    build_store(folder, f"{name} {split}", source.rows(columns), framing, limit)
                    manifest = checked_manifest(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write the image store in {cache}: {error.strerror or error}; free some space, or set "
                "UNFOOL_CACHE_DIR to a writable folder"
            ) from error
        if manifest is None:
            raise OutputError(f"the image store in {folder} does not read back as written; check that disk")
    return _open(folder, manifest, name, split, columns)


def resident_table(
    name: str,
    split: str,
    source: Source,
    *,
    framing: Framing = Framing(),  # noqa: B008 - frozen
    columns: Columns = Columns(),  # noqa: B008 - frozen
) -> Table:
    """The same without files, for a set that is small and embedded."""
    rows = source.rows(columns)
    pixels, kept = resident_pixels(rows, framing)
    ids = np.arange(rows.count) if rows.ids is None else rows.ids
    return Table(
        DecodedPixels(pixels),
        torch.from_numpy(ids[kept].astype(np.int64)),
        {key: torch.from_numpy(values[kept].astype(np.int64)) for key, values in rows.columns.items()},
        rows.classes,
        label_column=primary_column(rows.columns, columns.labels),
        name=name,
        split=split,
        others=rows.others,
    )


def _load(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _open(folder: Path, manifest: Manifest, name: str, split: str, columns: Columns) -> Table:
    """The table of a store that is whole: pixels stay in its file, ids and labels are read."""
    shape = tuple(manifest["shape"])
    kept = ("kind", "shape", "size", "checksums")
    content = checksum({"crop": manifest.get("crop", 1.0), **{name: manifest[name] for name in kept}})
    if manifest["kind"] == "encoded":
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        framing = Framing(manifest["size"], manifest.get("crop", 1.0))
        pixels: Pixels = EncodedPixels(folder / "encoded.bin", offsets, shape, framing, workers(), content)
    else:
        # a private mapping: the pages are shared between processes, and a write to them never reaches the file
        mapped = torch.from_file(str(folder / "pixels.bin"), shared=False, size=manifest["bytes"], dtype=torch.uint8)
        pixels = DecodedPixels(mapped.view(shape), MappedPages(mapped.data_ptr(), mapped.nbytes), content)
    report = manifest["report"]
    _warn_of(manifest["what"], report)
    return Table(
        pixels,
        _load(folder / "ids.npy"),
        {column: _load(folder / f"column-{index}.npy") for index, column in enumerate(manifest["columns"])},
        manifest["classes"],
        label_column=primary_column(manifest["columns"], columns.labels),
        name=name,
        split=split,
        report=report,
        others=manifest.get("others"),
    )


def _warn_of(what: str, report: ReadReport) -> None:
    """Warn of images that were left out, or read as something else than they are."""
    if report["corrupt"]:
        first = ", ".join(f"{name} ({reason})" for name, reason in islice(report["corrupt_images"].items(), 3))
        warnings.warn(
            f"{what}: {report['corrupt']} of {report['rows']} images are corrupt and left out, first: {first}",
            UnfoolWarning,
            stacklevel=4,
        )
    if several := report["converted"].get(SEVERAL_FRAMES):
        words = f"{several} of {report['rows']} images have several frames or pages, of which the first is taken"
        warnings.warn(f"{what}: {words}", UnfoolWarning, stacklevel=4)
    if cmyk := report["converted"].get("CMYK"):
        warnings.warn(
            f"{what}: {cmyk} of {report['rows']} images are CMYK and were converted to RGB without a colour profile",
            UnfoolWarning,
            stacklevel=4,
        )
