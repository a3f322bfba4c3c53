"""The card of a trained run: figures from results files that name this very network, hashes of what lies there."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from unfool.core.errors import DataError, UnfoolWarning
from unfool.data.catalog import open_table
from unfool.data.table import Table
from unfool.evaluation.identity import identity
from unfool.evaluation.records import NO_ATTACK, OWN
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.results.versions import versions
from unfool.models.header import read_header
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.zoo.model_card import Card, Figure, Training, Words, file_sha256
from unfool.models.zoo.probes import probe_images, probe_logits
from unfool.training.config import RunConfig
from unfool.training.folder import CONFIG, WEIGHTS, TrainedRun, open_run

_CHUNK = 1000
"""Images that are hashed at a time."""
_SIDE = 32
"""Side of generated images for a run whose images keep the set's own size."""


def make_card(
    folder: Path,
    name: str,
    words: Words,
    results: Sequence[StudyResult] = (),
    before: Card | None = None,
    *,
    shown: Path | None = None,
    measure: str | None = None,
) -> tuple[Card, dict[str, StudyResult]]:
    """The card of the run in a folder, and the evaluation behind each of its figures.

    Args:
        folder: A finished run, as it is published.
        name: What the card calls the network.
        words: What it is for, and what not.
        results: Evaluations of this network; the clean figure is that on most images, the attacked one the lowest.
            Which rows count, `OwnRows` says.
        before: The card that the run had.
        shown: The folder that refusals name; default: ``folder``.
        measure: What refusals say to do for results that count; default: to evaluate that folder.

    Returns:
        The card, and by ``clean`` and ``attacked`` the results that these figures were taken from.

    Raises:
        DataError: Results of another network, or none with a row that counts. Warns (UnfoolWarning) of results that
            are left out since no row counts, where others have one.
    """
    run = open_run(folder)
    network, own = run.network, identity(run.network)
    own_rows = OwnRows(own=own, data=run.config.data, before=before)
    shown = shown or folder
    measure = measure or f"give what unfool evaluate {shown} --attack fgsm --out FILE writes"
    results = _counting(results, own_rows, shown, measure)
    clean, attacked = (measured(results, clean=clean, own_rows=own_rows) for clean in (True, False))
    table = _test_table(run.config)
    metadata = read_header(folder / WEIGHTS).metadata
    side = run.config.size or _SIDE
    said = attacked[1] if attacked is not None else None
    heads = sorted(network.heads, key=lambda head: head != run.config.classifier)
    card = Card(
        name=name,
        words=words,
        data=run.config.data,
        test_images=images_hash(table) if table is not None else None,
        trunk=trunk_text(network.trunk.spec),
        heads=tuple(heads),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights_bytes=(folder / WEIGHTS).stat().st_size,
        weights_sha256=file_sha256(folder / WEIGHTS),
        identity=own,
        training=Training(
            command=f"unfool train --config {CONFIG} --out {name}",
            recipe_sha256=file_sha256(folder / CONFIG),
            images=_text(metadata.get("table")),
            cpu_seconds=round(run.cpu_seconds, 1),
            model_images=run.model_images,
        ),
        clean=figure(clean, table),
        attacked=figure(attacked, table),
        reliability=reliability_word(said) if said is not None else "",
        probes=tuple(tuple(row) for row in probe_logits(network, side)) if takes_probes(run, side) else (),
        probe_side=side,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        versions=dict(said.versions) if said is not None else versions(),
    )
    return card, {kind: each[1] for kind, each in (("clean", clean), ("attacked", attacked)) if each is not None}


@dataclass(frozen=True, kw_only=True)
class OwnRows:
    """Which rows of results say something of the network of identity ``own`` on its ``data``, without a defense.

    A row of an attack counts if it was crafted on this very network: transfer is no attack on it. A clean row names no
    system. It counts in the file that holds a row of this very network under its name, and where the card that the run
    had ``before`` states it of this very network.
    """

    own: str
    data: str
    before: Card | None = None

    def counts(self, row: Row, result: StudyResult) -> bool:
        """Whether a row of a results file is one of them."""
        if row.data != self.data or row.defense != "none":
            return False
        if row.attack != NO_ATTACK:
            return row.judged_on == self.own and row.protocol in OWN
        # Rows of corrupted images and of probes have settings.
        return not row.settings and (self._named_in(row, result) or self._stated(row))

    def _named_in(self, row: Row, result: StudyResult) -> bool:
        same = (row.model, row.defense, row.data, row.split)
        return any(
            each.judged_on == self.own and (each.model, each.defense, each.data, each.split) == same
            for each in result.rows
        )

    def _stated(self, row: Row) -> bool:
        said = self.before.clean if self.before is not None and self.before.identity == self.own else None
        return said is not None and (row.split, row.accuracy, row.low, row.high, row.n) == (
            said.split,
            said.accuracy,
            said.low,
            said.high,
            said.images,
        )


def measured(results: Sequence[StudyResult], *, clean: bool, own_rows: OwnRows) -> tuple[Row, StudyResult] | None:
    """The row that a card's figure is taken from, and its results: clean that on most images, else the lowest.

    Only rows that count among ``own_rows`` are looked at.
    """
    rows = [
        (row, each)
        for each in results
        for row in each.rows
        if (row.attack == NO_ATTACK) == clean and own_rows.counts(row, each)
    ]
    return max(rows, key=lambda each: each[0].n if clean else -each[0].accuracy, default=None)


def figure(source: tuple[Row, StudyResult] | None, table: Table | None = None) -> Figure | None:
    """A row of results as a card's figure; None for none."""
    if source is None:
        return None
    row, result = source
    return Figure(
        attack=row.attack,
        threat=row.threat if row.attack != NO_ATTACK else None,
        split=row.split,
        accuracy=row.accuracy,
        low=row.low,
        high=row.high,
        images=row.n,
        available=len(table) if table is not None and table.split == row.split else None,
        command=result.run.command if result.run is not None else "",
        date=result.run.date if result.run is not None else "",
    )


def reliability_word(result: StudyResult) -> str:
    """What the reliability report of an evaluation says, in a sentence."""
    if result.doubts:
        return f"not to be believed: {result.doubts[0]}"
    if result.reliability is None:
        return "not checked"
    return result.reliability.no_doubt


def trunk_text(spec: TrunkSpec) -> str:
    """A trunk as the command line takes it: its name, and the settings that are not the default."""
    plain = TrunkSpec(name=spec.name).to_dict()
    settings = {key: value for key, value in spec.to_dict().items() if key != "name" and value != plain.get(key)}
    shown = (
        f"{key}={'-'.join(map(str, value)) if isinstance(value, list) else value}" for key, value in settings.items()
    )
    return ":".join(filter(None, [spec.name, ",".join(shown)]))


def images_hash(table: Table) -> str:
    """Thirty-two hex digits over the pixels, as bytes, and the labels of a table."""
    digest = hashlib.blake2b(digest_size=16)
    for rows in torch.arange(len(table)).split(_CHUNK):
        batch = table.batch(rows)
        digest.update((batch.images * 255).round().to(torch.uint8).contiguous().numpy().tobytes())
        digest.update(batch.labels(table.label_column or "label").contiguous().numpy().tobytes())
    return digest.hexdigest()


def split_table(config: RunConfig, split: str) -> Table:
    """The images of a split as the run saw them; raises as `open_table`."""
    return open_table(config.data, split, size=config.size or None, crop=config.crop, image=config.image)


def takes_probes(run: TrainedRun, side: int) -> bool:
    """Whether the generated images go through the network: a foreign one may take others."""
    try:
        with torch.no_grad():
            run.network(probe_images(side)[:1])
    except (RuntimeError, ValueError):
        return False
    return isinstance(run.network, Network)


def _test_table(config: RunConfig) -> Table | None:
    try:
        return split_table(config, "test")
    except DataError:
        return None


def _counting(results: Sequence[StudyResult], own_rows: OwnRows, shown: Path, measure: str) -> list[StudyResult]:
    """The results with a row that counts; DataError where all that one attacked was another network, or none counts."""
    for row in (row for each in results for row in each.rows):
        if row.judged_on is not None and row.judged_on != own_rows.own:
            raise DataError(
                f"the results of {row.model} are those of another network ({row.judged_on}) than the one that is "
                f"published from {shown} ({own_rows.own}); {measure}"
            )
    counting = [each for each in results if any(own_rows.counts(row, each) for row in each.rows)]
    for each in results:
        if each in counting:
            continue
        command = each.run.command if each.run is not None else ""
        reason = (
            f"the results of {command or each.system or each.study or 'an evaluation'} have no row that is known to be "
            f"of the network in {shown} on {own_rows.data}: attacked rows count if they were crafted on it, clean ones "
            "beside a row under attack"
        )
        if not counting:
            raise DataError(f"{reason}; {measure}")
        warnings.warn(f"{reason}; they are left out", UnfoolWarning, stacklevel=3)
    return counting


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
