"""Two classifiers on the same images: is one more accurate than the other?"""

from __future__ import annotations

from typing import overload

from unfool.core.errors import DataError
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.records import Records
from unfool.evaluation.statistics.comparison import Comparison, compare_records


@overload
def compare(first: Records, second: Records) -> Comparison: ...
@overload
def compare(first: Evaluation, second: Evaluation) -> dict[str, Comparison]: ...
def compare(first: Records | Evaluation, second: Records | Evaluation) -> Comparison | dict[str, Comparison]:
    """Test whether one of two classifiers is more accurate than the other, on the same images under the same attack.

    A difference counts as shown where McNemar's exact test (1947) gives p < 0.05 and Tango's 95 % score interval of the
    paired difference (Statistics in Medicine 17, 1998) leaves out 0.

    Args:
        first: Records of one classifier, or its evaluation.
        second: Records of the other under the same attack, or its evaluation.

    Returns:
        For records, the comparison. For evaluations, one for each attack that both have, by the attack's name and
        threat model; clean images are ``"none"``.

    Raises:
        DataError: Records of different images, attacks or threat models, or evaluations that share no attack.

    Example:
        >>> import torch
        >>> from unfool import compare, classify
        >>> colour = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> guess = torch.nn.Sequential(colour, torch.nn.Softmax(1), torch.nn.Hardtanh(0.0, 0.1))
        >>> images = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4).repeat(8, 1, 1, 1)
        >>> labels = [0, 1, 2] * 8
        >>> compare(classify(colour, (images, labels)), classify(guess, (images, labels))).verdict
        'the first model is more accurate: +66.7 points [+43.7, +82.0] on 24 images, McNemar p = 3.1e-05'
    """
    if isinstance(first, Records) and isinstance(second, Records):
        return compare_records(first, second)
    if not isinstance(first, Evaluation) or not isinstance(second, Evaluation):
        kinds = f"{type(first).__name__} and {type(second).__name__}"
        raise DataError(f"{kinds} cannot be compared; give two Records or two Evaluations")
    theirs = _by_attack(second)
    shared = {title: records for title, records in _by_attack(first).items() if title in theirs}
    if not shared:
        raise DataError(f"{first.name} and {second.name} share no attack; evaluate both under the same attacks")
    return {title: compare_records(records, theirs[title]) for title, records in shared.items()}


def _by_attack(evaluation: Evaluation) -> dict[str, Records]:
    """The records of an evaluation by what its rows are told apart by."""
    titled: dict[str, Records] = {}
    for row, records in zip(evaluation.rows, evaluation.records, strict=True):
        settings = ", ".join(f"{key}={value}" for key, value in row.settings.items())
        attack = row.attack if row.attack == "none" else f"{row.attack} at {row.threat}"
        titled[f"{attack}, {settings}" if settings else attack] = records
    return titled
