"""The folder of a run on a node: what it was sent, the workspaces of its workers, and how all of it goes again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from unfool.core.cluster.messages import Bytes
from unfool.core.cluster.outgoing import NodeFolder, empty_folder
from unfool.core.cluster.parcels import Parcel, same_files
from unfool.core.errors import OutputError, WorkerError

PARCEL_SECONDS = 3600.0
"""How long a job waits for what its node is being sent: a node that has just joined is sent it while jobs begin."""

_LOCK = ".lock"

Lack: TypeAlias = Literal["", "content", "files"]
"""What a node lacks of a parcel: nothing, to know its content, or its files."""


@dataclass
class NodeRun:
    """What one run of an asker has on one node, below the folder for temporary files; as one worker sees it.

    It is locked by every worker that uses it, so that it goes when they are gone, at the latest with the next run.
    """

    run: str
    node: str
    root: Path = field(init=False)
    _spaces: dict[Path, NodeFolder] = field(default_factory=dict[Path, NodeFolder], init=False)

    def __post_init__(self) -> None:
        self.root = _base() / f"{self.run}-{self.node[:12]}"
        self.root.mkdir(mode=0o700, exist_ok=True)
        self._held = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def workspace(self, asker: Path) -> NodeFolder:
        """The workspace of this process for a folder of the asker, kept from job to job."""
        if asker not in self._spaces:
            own = empty_folder(self.root / f"worker-{os.getpid()}-{len(self._spaces)}")
            folder, outbox = own / "work", own / "outbox"
            folder.mkdir()
            self._spaces[asker] = NodeFolder(folder, outbox, asker)
        return self._spaces[asker]

    def parcel(self, digest: str) -> Path:
        """Where a parcel lies, once all of it has come."""
        whole, until = self.root / "parcels" / digest / "whole", time.monotonic() + PARCEL_SECONDS
        while not whole.exists():
            if time.monotonic() > until:
                raise WorkerError(f"node {self.node[:12]} waited an hour for its files; look after the network to it")
            time.sleep(0.05)
        return whole.parent / whole.read_text(encoding="utf-8")

    def lacks(self, parcel: Parcel, data_dir: Path | None) -> Lack:
        """What of the parcel must be sent here; of an image set that this node has itself nothing."""
        apart = self.root / "parcels" / parcel.digest
        if (apart / "whole").exists():
            return ""
        apart.mkdir(parents=True, exist_ok=True)
        own = own_set(parcel, data_dir) if parcel.place else None
        if not isinstance(own, Path):
            return own or "files"
        (apart / parcel.name).symlink_to(own)
        self.close(parcel)
        return ""

    def write(self, parcel: Parcel, file: str, offset: int, part: Bytes) -> None:
        """Write a part of a file of a parcel."""
        path = self.root / "parcels" / parcel.digest / parcel.name
        path = path / file if file else path
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "r+b" if offset else "wb") as opened:
            opened.seek(offset)
            opened.write(part.data)

    def close(self, parcel: Parcel) -> None:
        """All of a parcel is here."""
        apart = self.root / "parcels" / parcel.digest
        (apart / parcel.name).mkdir(exist_ok=True) if not parcel.files else None
        (apart / "name").write_text(parcel.name, encoding="utf-8")
        os.replace(apart / "name", apart / "whole")

    def data_dir(self, sets: dict[str, str], data_dir: Path | None) -> Path | None:
        """A directory of the image sets, by place with the digests of their parcels, beside those of this node."""
        if not sets:
            return own_data_dir(data_dir)
        sent = {place: self.parcel(digest) for place, digest in sets.items()}
        if not all(here.is_symlink() for here in sent.values()):
            # Stores of decoded images of what was sent go with the run.
            os.environ["UNFOOL_CACHE_DIR"] = str(self.root / "cache")
        # Jobs of a run may be sent different sets: a folder of the node that is linked whole for some takes no more.
        joined = self.root / "data" / hashlib.blake2b(repr(sorted(sets.items())).encode(), digest_size=8).hexdigest()
        joined.mkdir(parents=True, exist_ok=True)
        for place, here in sent.items():
            (joined / place).parent.mkdir(parents=True, exist_ok=True)
            _link(joined / place, here)
        own = own_data_dir(data_dir)
        if own is not None:
            _link_entries(joined, own)
        return joined

    def release(self) -> None:
        """This worker no longer uses it."""
        os.close(self._held)

    def remove(self) -> None:
        """Remove all that the run has here."""
        shutil.rmtree(self.root, ignore_errors=True)


def _link_entries(folder: Path, own: Path) -> None:
    """Link what lies in a folder of the node, and inside one by one where a sent set lies below a folder of that name:
    nothing is written into the node's own."""
    for entry in own.iterdir():
        place = folder / entry.name
        if place.is_symlink() or not place.is_dir():
            _link(place, entry)
        elif entry.is_dir():
            _link_entries(place, entry)


def _link(place: Path, target: Path) -> None:
    """Link a place to a target, where no other worker has."""
    with suppress(FileExistsError):
        place.symlink_to(target)


def own_data_dir(data_dir: Path | None) -> Path | None:
    """The data directory of this machine: the asker's path where it is here too, else that of its environment."""
    chosen = data_dir if data_dir is not None and data_dir.is_dir() else os.environ.get("UNFOOL_DATA_DIR")
    return Path(chosen) if chosen and Path(chosen).is_dir() else None


def own_set(parcel: Parcel, data_dir: Path | None) -> Path | Literal["content"] | None:
    """The image set of this machine with the files of a parcel, in its data directory or where the asker has it; None
    for none, ``content`` where only the parcel's content tells."""
    own = own_data_dir(data_dir)
    places = [*([own / parcel.place] if own is not None else []), parcel.path]
    same = {place: same_files(parcel, place) for place in places}
    if here := [place for place in places if same[place]]:
        return here[0]
    return "content" if None in same.values() else None


def sweep_runs() -> None:
    """Remove what runs left on this machine whose workers are all gone."""
    for root in _base().iterdir():
        with suppress(OSError):
            held = os.open(root / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(root, ignore_errors=True)
            finally:
                os.close(held)


def _base() -> Path:
    """The folder of all runs of this user; OutputError where it is someone else's."""
    base = Path(tempfile.gettempdir()) / f"unfool-cluster-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.stat().st_uid != os.getuid() or base.is_symlink():
        raise OutputError(f"{base} belongs to another user; set TMPDIR to a folder of your own on that node")
    return base
