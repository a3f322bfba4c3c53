"""The page of a reversal: every image before and after, what the classifier says of it, and the loss on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unfool.evaluation.crafting.pictures import magnified_difference
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.run_details import RunDetails
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.results.versions import versions
from unfool.report.page import Page
from unfool.report.pictures.strips import Strip

_PATHS = 8
"""Images whose path of the loss is drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReversedPicture:
    """An image (C, H, W) in [0,1] before and after: class and probability of both, and the pretext losses on the way
    (empty where the defense does not keep them)."""

    name: str
    before: Tensor
    after: Tensor
    classes: tuple[str, str]
    probabilities: tuple[float, float]
    path: Sequence[float]


def reversal_page(pictures: Sequence[ReversedPicture], system: str, defense: str, run: RunDetails) -> Page:
    """The page of some reversed images; ``defense`` is the reversal as it was written."""
    result = StudyResult(
        system=system,
        summary=_summary(pictures),
        versions=versions(),
        charts=[_paths(pictures)] if any(picture.path for picture in pictures) else [],
        notes=[
            f"The reversal: {defense}. It moves the image, not the network, down a pretext loss.",
            "A changed class says nothing about an attacker who knows the reversal: unfool evaluate --defense … "
            "--adaptive measures that.",
        ],
        run=run,
    )
    strips = [_strip(picture) for picture in pictures]
    title = "What the reversal makes of an image" if len(pictures) == 1 else "What the reversal makes of images"
    return Page(title=title, subtitle=f"{system}, {defense}", result=result, strips=strips)


def _summary(pictures: Sequence[ReversedPicture]) -> str:
    changed = [picture for picture in pictures if picture.classes[0] != picture.classes[1]]
    if len(pictures) == 1:
        (before, after), (first, last) = pictures[0].classes, pictures[0].probabilities
        words = f"from {before} ({100 * first:.0f} %) to {after} ({100 * last:.0f} %)"
        text = f"The reversal moves the class {words}." if changed else f"The class stays: {words}."
    else:
        text = f"The reversal changes the class of {len(changed)} of {len(pictures)} images."
    paths = [picture.path for picture in pictures if len(picture.path) > 1]
    if not paths:
        return text
    first, last = (sum(path[place] for path in paths) / len(paths) for place in (0, -1))
    return f"{text} The pretext loss goes from {first:.3g} to {last:.3g}."


def _paths(pictures: Sequence[ReversedPicture]) -> Chart:
    drawn = [picture for picture in pictures if picture.path][:_PATHS]
    series = {f"{number + 1}: {picture.name}": list(enumerate(picture.path)) for number, picture in enumerate(drawn)}
    text = "Each step on views of its own."
    return Chart(
        title="The pretext loss on the way", x="step", y="pretext loss", kind="line", series=series, caption=text
    )


def _strip(picture: ReversedPicture) -> Strip:
    difference, factor = magnified_difference(picture.before, picture.after)
    before, after = (f"{name}, {100 * p:.0f} %" for name, p in zip(picture.classes, picture.probabilities, strict=True))
    shown = (
        (f"before: {before}", picture.before),
        (f"after: {after}", picture.after),
        (f"difference ×{factor}", difference),
    )
    path = picture.path
    caption = f"pretext loss {path[0]:.3g} → {path[-1]:.3g} in {len(path) - 1} steps" if len(path) > 1 else ""
    return Strip(group="Before and after", pictures=shown, caption="; ".join(filter(None, (picture.name, caption))))
