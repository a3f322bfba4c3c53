"""The adaptive ladder: is a defended system harder to fool than the network inside it, by an attacker who knows it?

Published reversals beat the examples that were crafted without them, and were evaluated by those; what counts is the
worst of all rungs that know the defense on each image, against the network by itself (Croce et al., ICML 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from unfool.core.errors import SpecError
from unfool.core.files import remove_folder
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, silent
from unfool.data.as_table import TableLike, as_table
from unfool.defenses import WholeModel
from unfool.evaluation.adaptive.examples import picture_examples
from unfool.evaluation.adaptive.ladder_result import LadderResult
from unfool.evaluation.adaptive.ladder_run import LadderRun
from unfool.evaluation.adaptive.rung import AnyRung, Rung, all_rungs, parse_rung, parse_rungs
from unfool.evaluation.adaptive.rung_result import RungResult, compared, restricted, worst_of
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.adaptive.static_attack import ReplayedExamples, StaticAttack
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack
from unfool.evaluation.records import TRANSFER
from unfool.evaluation.reliability.over_draws import DRAWS


def ladder(
    defense: nn.Module,
    data: TableLike,
    attack: AttackLike = "autoattack",
    *,
    settings: LadderSettings | None = None,
    rungs: str | Iterable[AnyRung] | None = None,
    name: str = "model",
    defended: str = "defense",
    column: str | None = None,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> LadderResult:
    """Attack a defense by attackers who know it, and compare it with the network inside.

    The rungs: (a) the network by itself under a strong attack, for comparison; (b) those examples replayed on the
    defense; (c) the gradient passed straight through the purification (BPDA, Athalye et al., ICML 2018); (d) the same
    averaged over redrawn randomness (EOT); (e) the network's loss and the pretext loss together (Mao et al., ICCV
    2021); (f) the exact gradient; (g) the gate attacked jointly; (h) targeted APGD, passed straight through, from where
    the network by itself is surest of each class; (i) queries alone (Square); (j) the gradient passed straight through
    the parts of a model that a probing found to block it; (k) that of fixed draws of a random model; and whatever else
    is registered in `RUNGS`. Each adaptive rung but (i) starts from the examples of (a), or of its own, and from random
    points; the deployed defense confirms every success. Which rungs apply follows from what the defense declares.

    A model that declares nothing is looked at: the classifier that it wraps, if it wraps one, is the network of (a) and
    gives (c) its gradient. One that wraps none is compared with nothing, and only its worst case counts.

    A system that draws at random is judged over ten draws: every accuracy is the mean over them, and beside it stands
    the share of images that are right in every draw. An attack has fooled an image of it only where ten draws in a row
    are wrong. The worst case takes of each image the rung that leaves the fewest draws right.

    Args:
        defense: A `Defense`; any module with ``network``, the classifier inside, and ``purify(images, ids, streams)``,
            whose result has ``images``; or any other classifier. Called on images (B, C, H, W) in [0,1] it gives
            logits.
        data: A table of labelled images, or what `as_table` makes one of: ``(images, labels)``, a data set, its name.
        attack: The attack of (a): an attack, or its name such as ``"autoattack"`` or ``"apgd-ce"``.
        settings: The threat model, and how hard the rungs try; default: ``LadderSettings()``.
        rungs: Names, keys, classes or objects of rungs; text such as ``"abcf"`` or ``"bpda,unrolled"``. Default: all
            that are registered. (a) and (b) are always run.
        name: What rows call the network.
        defended: What rows call the defense.
        column: Label column of the data; default: the table's own choice.
        folder: Where finished batches are stored. The same call with the same folder resumes a ladder that was stopped;
            a folder of another defense, other images or other settings is refused.
        progress: Called with what is being done, and how much of it is done.

    Returns:
        The records of every rung, the worst case over them, and the verdict: "helps", "fails" or "undecided".

    Raises:
        SpecError: For an unknown attack or rung, and numbers of images that do not fit.
        DataError: For a table without images or labels.
        OutputError: For a folder of another ladder, or one that cannot be written.

    Example:
        >>> import torch
        >>> from unfool import LadderSettings, Linf, Network, TrunkSpec, defenses, ladder
        >>> heads = {"labels": {"kind": "linear", "outputs": 2}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> images = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
        >>> labels = network(images).argmax(1)
        >>> defense = defenses.Reverse(network, "rotation", threat=Linf(4/255), steps=1)
        >>> few = LadderSettings(threat=Linf(2/255), steps=2)
        >>> result = ladder(defense, (images, labels), "fgsm", settings=few, rungs="bpda")
        >>> [(key, rung.rung.name, rung.protocol) for key, rung in result.rungs.items()]
        [('a', 'static', 'white-box'), ('b', 'replayed', 'transfer'), ('c', 'bpda', 'adaptive')]
        >>> result.verdict
        'undecided'
    """
    settings = settings or LadderSettings()
    table = as_table(data)
    chosen = parse_rungs(rungs)
    static = choose_attack(attack, settings.threat).attack
    counts = _image_counts(settings.images, chosen, len(table))
    run = LadderRun(defense, table, static, settings, counts, column, folder, progress)
    clean = run.evaluate_on(run.network, run.part(StaticAttack.key)), run.evaluate(run.part(StaticAttack.key))
    results: dict[str, RungResult] = {}
    absent: dict[str, str] = {}
    for rung in chosen:
        reason = rung.unfit_in(run)
        if reason is not None:
            absent[rung.key] = reason
            continue
        records = rung.evaluate(run)
        results[rung.key] = RungResult(rung=rung, records=records, examples=run.sets.get(rung.key))
    fewest = min((result.records for result in results.values()), key=lambda records: records.count).ids
    common = {key: restricted(result.records, fewest) for key, result in results.items()}
    worst = worst_of([records for key, records in common.items() if key != StaticAttack.key])
    alone = isinstance(run.declared, WholeModel) and not run.declared.wraps
    comparable = worst.protocol != TRANSFER and not alone
    return LadderResult(
        model=name,
        defense=defended,
        rungs=results,
        clean=clean,
        worst=worst,
        comparison=compared(worst, common[StaticAttack.key]) if comparable else None,
        images_per_prediction=run.declared.images_per_prediction,
        absent=absent,
        notes=_notes(run, [result.rung for result in results.values()]),
        examples=picture_examples(run.declared, table, results, column),
    )


def discard_ladder(folder: Path) -> None:
    """Remove what `ladder` stored in its folder, at once if nothing else is in it; one process does it."""
    if rank_and_world_size()[0] != 0 or not folder.is_dir():
        return
    own = [folder / rung.key for rung in all_rungs()]
    for path in [folder] if set(folder.iterdir()) <= set(own) else own:
        remove_folder(path)


def _image_counts(images: int | Mapping[str, int] | None, rungs: Sequence[Rung], count: int) -> dict[str, int]:
    """How many of a table's ``count`` images each rung attacks, by key; SpecError for rungs or numbers that do not fit.

    The other rungs start from the examples of (a), so that they cannot have more.
    """
    if images is None or isinstance(images, int):
        images = {} if images is None else {StaticAttack.key: images}
    numbers = {parse_rung(name).key: number for name, number in images.items()}
    for key, number in numbers.items():
        if not 1 <= number <= count:
            raise SpecError(f"{number} images of rung {key} are not allowed; give 1 to {count}, what the table has")
    static, replayed = StaticAttack.key, ReplayedExamples.key
    most = numbers.get(static, count)
    if numbers.get(replayed, most) != most or any(number > most for number in numbers.values()):
        raise SpecError(
            f"rung {static} has {most} images, so {replayed} has as many and the others, which start from them, no more"
        )
    return {rung.key: numbers.get(rung.key, most) for rung in rungs}


def _notes(run: LadderRun, rungs: Sequence[Rung]) -> list[str]:
    """What a reader must know of a defense beside the figures of these rungs, one sentence each."""
    defense, notes = run.declared, list[str]()
    if run.random:
        notes.append(
            f"The system draws at random: accuracies are means over {DRAWS} draws, and the worst case takes of each "
            "image the fewest draws that any rung leaves right. It helps, or fails, only where that is shown both of "
            "the images right in every draw and of those right in any."
        )
    if defense.batch_dependent:
        notes.append("Predictions depend on batch-mates, so the figures are those of these very batches.")
    if defense.abstains:
        notes.append("An abstention counts as an error, on clean images and under attack.")
    return notes + [note for note in (rung.note(defense) for rung in rungs) if note is not None]
