"""The folder of an evaluation, with one folder for each attack, from which an interrupted evaluation resumes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from unfool.attacks import Attack
from unfool.core.borders.checksum import checksum
from unfool.core.files import JsonObject, remove_folder
from unfool.core.processes import rank_and_world_size
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.chosen_attacks import AttackLike, ChosenAttack, choose_attacks
from unfool.evaluation.results.rows import is_unverified
from unfool.evaluation.results.versions import versions


def attack_folder(folder: Path, title: str, attack: Attack) -> Path:
    """The folder of one attack in that of an evaluation, named for the attack, so that others may come and go."""
    return folder / re.sub(r"[^\w.-]+", "_", f"{title} {attack.threat}")


def clean_folder(folder: Path, table: Table, column: str | None, identity: str, size: int) -> Path | None:
    """Where the outcomes of clean images lie, by all that they follow from; None where the identity proves nothing."""
    return _place(folder, "clean", table, column, {"model": identity, "size": size})


def judged_folder(home: Path, size: int) -> Path:
    """Where the outcomes of the images in an attack's folder lie, classified so many at a time."""
    return home / f"judged-{size}"


def corrupted_folder(
    folder: Path, table: Table, column: str | None, identity: str, size: int, seed: int
) -> Path | None:
    """Where the records of corrupted images lie, those of each corruption and severity as ``NAME-SEVERITY.json``; None
    where the identity proves nothing."""
    return _place(folder, "corrupted", table, column, {"model": identity, "size": size, "seed": seed})


def checks_folder(
    folder: Path, table: Table, column: str | None, identity: str, seed: int, attacks: Iterable[Attack], threat: str
) -> Path | None:
    """Where the attacks of the reliability checks are kept; None where the identity proves nothing."""
    values = {"model": identity, "seed": seed, "threat": threat}
    values["attacks"] = [[attack.name, dict(attack.settings)] for attack in attacks]
    return _place(folder, "checks", table, column, values)


def _place(folder: Path, kind: str, table: Table, column: str | None, values: JsonObject) -> Path | None:
    """A folder for what follows from images, their labels, and values with a model among them, by a hash of these.

    None for a model whose identity another may have: nothing but the folder's name would tell the two apart.
    """
    if is_unverified(values["model"]):
        return None
    values = {**values, "data": table.name, "split": table.split, "images": table.pixel_digest, "versions": versions()}
    key = checksum(values, {"ids": table.ids, "labels": table.labels(column)})[:16]
    return folder / f"{kind}-{key}"


def discard_attacks(folder: Path, attacks: Iterable[ChosenAttack]) -> None:
    """Remove the folders of these attacks, and that of the evaluation if nothing else is in it; one process does it.

    In that case all go at once: a process that is killed meanwhile leaves all of them or none.
    """
    if rank_and_world_size()[0] != 0 or not folder.is_dir():
        return
    own = [attack_folder(folder, chosen.title, chosen.attack) for chosen in attacks]
    own += [path for name in ("clean", "corrupted", "checks") for path in folder.glob(f"{name}-{'[0-9a-f]' * 16}")]
    if set(folder.iterdir()) <= set(own):
        remove_folder(folder)
        return
    for kept in own:
        remove_folder(kept)


def discard(folder: Path, attacks: Iterable[AttackLike], threat: ThreatModel | str | None = None) -> None:
    """Remove the folders of attacks within one threat model, as `discard_attacks` does."""
    discard_attacks(folder, choose_attacks(attacks, threat))
