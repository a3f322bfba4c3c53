"""Options that several commands share, each described once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

DataDir = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="DIR",
        help="Directory with data sets in folders by name; searched before anything is downloaded.",
        help_behavior_hint="(default: $UNFOOL_DATA_DIR)",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="Where to compute; auto takes a GPU if there is one.")
]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object on stdout.", help_behavior_hint="")]
Threat = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NORM:EPS",
        help="Threat model: linf:8/255, l2:0.5 or l1:12, in pixel units, or l0:10, which counts pixels.",
        help_behavior_hint="(default: linf:8/255)",
    ),
]
Norm = Annotated[
    Literal["linf", "l2", "l1", "l0"] | None,
    tyro.conf.arg(
        help="Instead of --threat: its norm, with --eps or with linf:8/255, l2:0.5, l1:12, l0:10.",
        help_behavior_hint="(default: linf)",
    ),
]
Eps = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="EPS",
        help="Instead of --threat: the largest distance in --norm, such as 8/255.",
        help_behavior_hint="(default: that of --threat)",
    ),
]
Data = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help="Data set: a name from `unfool list data`, folder:PATH, FILE.csv or hub:OWNER/NAME.",
        help_behavior_hint="(default: the run's)",
    ),
]
Column = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="COLUMN",
        aliases=["--label"],
        help="Label column that the classifier predicts.",
        help_behavior_hint="(default: the run's, or the set's primary column)",
    ),
]
Images = Annotated[
    int, tyro.conf.arg(metavar="N", help="Number of test images, always the same ones; all of them if there are fewer.")
]
Size = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="PIXELS",
        help="Pixels a side that images are brought to.",
        help_behavior_hint="(default: the run's, or the set's own)",
    ),
]
Crop = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="SHARE",
        help="Share of the shorter side that the centre cut to --size keeps, such as 0.875; 0 cuts nothing and "
        "squeezes images to a square.",
        help_behavior_hint="(default: the run's, or 1)",
    ),
]
Image = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="COLUMN",
        help="Column of the images, where several may be meant.",
        help_behavior_hint="(default: the run's, or as declared)",
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    tyro.conf.arg(help="Precision in which attacks search; every success is confirmed in fp32."),
]
Seed = Annotated[int, tyro.conf.arg(metavar="N", help="Seed of all random draws.")]
BatchSize = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="N",
        aliases=["--batch"],
        help="Images at a time.",
        help_behavior_hint="(default: as many as memory allows)",
    ),
]

_NONE = "(default: none)"
Track = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        metavar="NAME[:KEY=VALUE,..]",
        help="Log to trackio, tensorboard, mlflow or wandb too; project=P and run=R name where.",
        help_behavior_hint="(repeatable, default: none)",
    ),
]
Key = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help="Which weights of a checkpoint with several: state_dict, model_ema, or 0.model of a list.",
        help_behavior_hint="(default: those that fit)",
    ),
]
Prefix = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="TEXT",
        help="What stands before the names in the checkpoint, such as module.encoder_q.",
        help_behavior_hint="(default: from the names)",
    ),
]
Preset = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help="Settings of a published reversal: mao2021. What --defense sets takes precedence.",
        help_behavior_hint=_NONE,
    ),
]


@dataclass(frozen=True, kw_only=True)
class OutsideOptions:
    """A classifier that unfool did not train."""

    model: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE.py:NAME",
            help="Any classifier: a model in this file, a function that returns one, or a black box (images to "
            "scores); hf:FOLDER, hf:OWNER/NAME, timm:NAME, torchvision:NAME; or a TorchScript or torch.export file.",
            help_behavior_hint=_NONE,
        ),
    ] = None
    weights: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE",
            help="State dict of --model: .safetensors, or a checkpoint (unfool convert).",
            help_behavior_hint="(default: as built)",
        ),
    ] = None
    key: Key = None
    prefix: Prefix = None
    mean: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NUMBERS",
            help="Mean that is subtracted from images in [0,1] before --model: 0.49,0.48,0.45, or cifar10, cifar100, "
            "imagenet.",
            help_behavior_hint=_NONE,
        ),
    ] = None
    std: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NUMBERS",
            help="Standard deviation that images are divided by before --model, written as --mean is.",
            help_behavior_hint=_NONE,
        ),
    ] = None
    output: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="PATH",
            help="Where in what --model gives the logits are: logits, 1, heads.main.",
            help_behavior_hint="(default: the tensor, .logits, or the first)",
        ),
    ] = None
    scale: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="NUMBER",
            help="255 for a --model of images in 0-255: images are multiplied by it, --mean and --std come after.",
            help_behavior_hint=_NONE,
        ),
    ] = None
    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        tyro.conf.arg(help="nhwc for a --model that takes (B, H, W, C).", help_behavior_hint="(default: nchw)"),
    ] = None
    features: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="MODULE.PATH",
            help="Submodule of --model whose output is its representation.",
            help_behavior_hint=_NONE,
        ),
    ] = None

    multi_label: Annotated[
        bool,
        tyro.conf.arg(
            help="Each output of --model is a label by itself, predicted where its logit is above 0; an image has any "
            "number of them, in a column of lists or written a;b (none: no label), and counts as fooled when others "
            "are predicted.",
            help_behavior_hint="",
        ),
    ] = False
    classes: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FILE",
            help="Names of the classifier's outputs in order, a line each or as JSON, where it has more of them than "
            "the set has classes: labels are matched by name.",
            help_behavior_hint="(default: labels are output numbers; ImageNet's by name)",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions(OutsideOptions):
    """The classifier: a network that unfool trained, or any other."""

    system: tyro.conf.Positional[
        Annotated[
            Path | None,
            tyro.conf.arg(
                metavar="[SYSTEM]",
                help="A finished run's folder, a weights file (.safetensors), a network of the package (zoo:digits); "
                "or else --model; both where the run trained that classifier.",
                help_behavior_hint="",
            ),
        ]
    ] = None


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Where images come from, and how they are framed."""

    data: Data = None
    column: Column = None
    size: Size = None
    crop: Crop = None
    image: Image = None
    data_dir: DataDir = None


@dataclass(frozen=True, kw_only=True)
class DataOptions(ImageOptions):
    """The test images."""

    images: Images = 1000


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Random draws and hardware."""

    seed: Seed = 0
    batch_size: BatchSize = None
    device: Device = "auto"
