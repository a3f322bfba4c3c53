"""The folder of an evaluation: one below it for each attack, so that what was stopped goes on where it was."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from unfool.attacks import Attack, make_attack
from unfool.core.processes import rank_and_world_size


def attack_folder(folder: Path | None, text: str, attack: Attack) -> Path | None:
    """Where an attack is kept in the folder of an evaluation: by what it is, so that others may come and go."""
    return folder / re.sub(r"[^\w.-]+", "_", f"{text} {attack.threat}") if folder is not None else None


def forget(folder: Path, attacks: Sequence[str], threat: str) -> None:
    """Remove what `evaluate` kept of these attacks, and the folder if nothing else is in it; one process does it."""
    if rank_and_world_size()[0] != 0:
        return
    for text in attacks:
        kept = attack_folder(folder, text, make_attack(text, threat))
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
