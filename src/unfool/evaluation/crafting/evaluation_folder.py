"""The folder of an evaluation, with one folder for each attack, from which an interrupted evaluation resumes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from unfool.attacks import Attack
from unfool.core.files import remove_folder
from unfool.core.processes import rank_and_world_size
from unfool.core.threat import ThreatModel
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attacks


def attack_folder(folder: Path | None, title: str, attack: Attack) -> Path | None:
    """The folder of one attack in that of an evaluation, named for the attack, so that others may come and go."""
    return folder / re.sub(r"[^\w.-]+", "_", f"{title} {attack.threat}") if folder is not None else None


def discard(folder: Path, attacks: Iterable[AttackLike], threat: ThreatModel | str | None = None) -> None:
    """Remove the folders of these attacks, and that of the evaluation if nothing else is in it; one process does it.

    In that case all go at once: a process that is killed meanwhile leaves all of them or none.
    """
    if rank_and_world_size()[0] != 0 or not folder.is_dir():
        return
    own = [attack_folder(folder, chosen.title, chosen.attack) for chosen in choose_attacks(attacks, threat)]
    if set(folder.iterdir()) <= set(own):
        remove_folder(folder)
        return
    for kept in own:
        if kept is not None:
            remove_folder(kept)
