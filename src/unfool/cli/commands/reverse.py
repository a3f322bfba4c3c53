"""``unfool reverse``: purify image files, and see what a classifier says of them before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.shared import (
    DataOptions,
    Device,
    ImageOptions,
    Json,
    ModelOptions,
    OutsideOptions,
    Preset,
    Seed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from unfool.evaluation.adaptive.purification import Purification
    from unfool.report.reversal import ReversedPicture

_BATCH = 64
"""Images reversed at a time; where predictions depend on batch-mates, the defense's own batch size is."""


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(ImageOptions):
    """The images that the defense is calibrated on, whose size and classes the files are given."""


@dataclass(frozen=True, kw_only=True)
class ReverseCommand:
    """Purify image files by descending a pretext loss (the reverse attack), and show the predictions before and after.

    Each image is scaled to the size that the run was trained on (or --size), and its purified form is written as a PNG
    beside it, or into --out. `unfool evaluate --defense ... --adaptive` measures whether a reversal makes a classifier
    harder to fool.
    """

    system: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A finished run with a pretext head."""
    images: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGES", help_behavior_hint="")
    ] = ()
    """PNG, JPEG or other image files."""
    defense: Annotated[
        str | None,
        tyro.conf.arg(metavar="reverse:KEY=VALUE,..", help_behavior_hint="(default: along the run's pretext task)"),
    ] = None
    """The reversal: task, steps, step_size, eps and others; or a gate."""
    preset: Preset = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: beside each image)")] = None
    """Folder for the purified images."""
    page: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write a page (.html) that shows every image before and after, and the pretext loss on the way."""
    seed: Seed = 0
    device: Device = "auto"
    json: Json = False
    model: OutsideOptions = field(default_factory=OutsideOptions)
    data: ReferenceOptions = field(default_factory=ReferenceOptions)

    examples: ClassVar[str] = """
  unfool reverse runs/robust cat.png dog.jpg
  unfool reverse runs/robust cat.png --defense reverse:task=contrast,steps=10,eps=16/255 --out purified
  unfool reverse runs/robust cat.png --page cat.html
  unfool reverse runs/robust cat.png --json
  unfool reverse runs/head cat.png --model net.py:build --features layer4
"""

    def run(self) -> None:
        import torch

        from unfool.cli.parsing.defended import default_reversal, open_defense
        from unfool.cli.parsing.systems import open_system
        from unfool.cli.printing import check_page, check_writable, print_json, print_lines, stderr
        from unfool.core.batch import spans_of_mates
        from unfool.core.errors import SpecError
        from unfool.core.files import atomic_path
        from unfool.core.progress_display import progress_bar
        from unfool.data.decode import decode_file
        from unfool.defenses import as_defense
        from unfool.evaluation.adaptive.purification import purification
        from unfool.evaluation.crafting.pictures import png

        targets = self._targets()
        if self.page is not None:
            check_page(self.page)
        system = open_system(ModelOptions(system=self.system, **vars(self.model)), self.device)
        text = default_reversal(self.defense, self.preset, system)
        options = DataOptions(**vars(self.data), images=1)
        table = system.split(options, "train")
        crop = system.config.crop if system.config is not None else 1.0
        crop = crop if options.crop is None else options.crop
        loaded = torch.stack([torch.from_numpy(decode_file(path, table.shape, crop)) for path in self.images]).float()
        loaded /= 255
        for target in targets:
            check_writable(target)
        shown, column = system.images(options)
        names = shown.classes[column or shown.label_column or ""]
        results: list[ReversedImage] = []
        pictures: list[ReversedPicture] = []
        with progress_bar(stderr(), system.name) as progress:
            defense = open_defense(text, system, table, self.seed)
            declared = as_defense(defense)
            if declared.batch_dependent and len(loaded) == 1:
                raise SpecError(
                    f"{text!r} takes its negatives from the other images of a batch, and {self.images[0]} is the only "
                    "one; give at least 2 images, or set negatives=bank in --defense"
                )
            for images in map(loaded.__getitem__, spans_of_mates(len(loaded), declared.own_batch_size or _BATCH)):
                purified = purification(defense, images)
                for row in range(len(images)):
                    target = targets[len(results)]
                    with atomic_path(target) as temporary:
                        temporary.write_bytes(png(purified.images[row]))
                    before, after = _predictions(purified, row, names)
                    path = self.images[len(results)]
                    acted = None if purified.acted is None else bool(purified.acted[row])
                    results.append(
                        ReversedImage(image=str(path), written=str(target), before=before, after=after, acted=acted)
                    )
                    if self.page is not None:
                        pictures.append(_picture(results[-1], images[row], purified, row))
                progress("", len(results), len(targets))
        if self.page is not None:
            self._write_page(self.page, pictures, system.name, text)
        if self.json:
            print_json({"defense": text, "images": [result.to_json() for result in results]})
        else:
            print_lines(result.line() for result in results)

    def _write_page(self, page: Path, pictures: Sequence[ReversedPicture], system: str, defense: str) -> None:
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.run_details import run_details
        from unfool.report import write_page
        from unfool.report.reversal import reversal_page

        write_page(page, reversal_page(pictures, system, defense, run_details(choose_device(self.device))))

    def _targets(self) -> list[Path]:
        """Where the purified images go; SpecError for no images, or two that would become one file."""
        from unfool.core.errors import SpecError

        if not self.images:
            raise SpecError("no IMAGES were given; name one or more image files after the run")
        targets = [(self.out or path.parent) / f"{path.stem}-reversed.png" for path in self.images]
        for target in targets:
            if targets.count(target) > 1:
                raise SpecError(f"two images would both be written to {target}; reverse them one by one, or rename one")
        return targets


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest class of an image, and the image's pretext loss if the defense has a pretext task."""

    name: str
    probability: float
    pretext_loss: float | None = None

    def to_json(self) -> dict[str, str | float]:
        loss = {} if self.pretext_loss is None else {"pretext_loss": self.pretext_loss}
        return {"name": self.name, "probability": self.probability, **loss}

    def __str__(self) -> str:
        loss = "" if self.pretext_loss is None else f", pretext loss {self.pretext_loss:.3f}"
        return f"{self.name} ({100 * self.probability:.1f} %){loss}"


@dataclass(frozen=True, kw_only=True)
class ReversedImage:
    """An image file, its purified form, and the predictions for both; ``acted``: whether a gate let it be reversed, or
    refused it, and None without a gate."""

    image: str
    written: str
    before: Prediction
    after: Prediction
    acted: bool | None = None

    def to_json(self) -> dict[str, object]:
        """The JSON object that --json prints."""
        shown = {"before": self.before.to_json(), "after": self.after.to_json()}
        acted = {} if self.acted is None else {"acted": self.acted}
        return {"image": self.image, "written": self.written, **shown, **acted}

    def line(self) -> str:
        """The line for a person."""
        from unfool.evaluation.adaptive.purification import ABSTAINS

        before, after = self.before.pretext_loss, self.after.pretext_loss
        note = " (it did not fall)" if before is not None and after is not None and after >= before else ""
        if self.acted is False:
            note = " (not acted on: it is not above the gate's threshold)"
        elif self.acted and self.after.name == ABSTAINS:
            note = ""  # A gate that abstains moves no image.
        return f"{self.image}: {self.before} -> {self.after}{note}; written to {self.written}"


def _picture(image: ReversedImage, before: Tensor, purified: Purification, row: int) -> ReversedPicture:
    """An image as the page shows it."""
    from unfool.report.reversal import ReversedPicture

    return ReversedPicture(
        name=Path(image.image).name,
        before=before,
        after=purified.images[row],
        classes=(image.before.name, image.after.name),
        probabilities=(image.before.probability, image.after.probability),
        path=[] if purified.path is None else [round(value, 4) for value in purified.path[:, row].tolist()],
    )


def _predictions(purified: Purification, row: int, names: Sequence[str]) -> tuple[Prediction, Prediction]:
    """The predictions for one image, before and after."""
    from unfool.evaluation.adaptive.purification import top_classes

    losses = [None, None] if purified.losses is None else [round(float(each[row]), 4) for each in purified.losses]
    before, after = (top_classes(shares[row], names)[0] for shares in (purified.before, purified.after))
    return (
        Prediction(name=before.name, probability=before.probability, pretext_loss=losses[0]),
        Prediction(name=after.name, probability=after.probability, pretext_loss=losses[1]),
    )
