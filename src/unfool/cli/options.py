"""Options that several commands share, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

DataDir = Annotated[
    Path | None,
    tyro.conf.arg(
        metavar="DIR",
        help="Directory that holds image sets by name; searched before the network.",
        help_behavior_hint="(default: $UNFOOL_DATA_DIR)",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], tyro.conf.arg(help="Where to compute; auto takes a GPU if there is one.")
]
Json = Annotated[bool, tyro.conf.arg(help="Print one JSON object on stdout.", help_behavior_hint="")]
System = Annotated[
    Path, tyro.conf.arg(metavar="SYSTEM", help="A finished run's folder, or a weights file (.safetensors).")
]
Threat = Annotated[
    str, tyro.conf.arg(metavar="NORM:EPS", help="Threat model: linf:8/255, l2:0.5 or l1:12, in pixel units.")
]
Data = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help="Data set: a name that `unfool doctor` lists, folder:PATH or hub:OWNER/NAME.",
        help_behavior_hint="(default: the run's)",
    ),
]
Column = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help="Label column that the classifier predicts.",
        help_behavior_hint="(default: the run's, or the set's primary column)",
    ),
]
Images = Annotated[
    int, tyro.conf.arg(metavar="N", help="Test images to draw, always the same ones; all if there are fewer.")
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    tyro.conf.arg(help="Precision in which attacks search; every success is confirmed in fp32."),
]
Seed = Annotated[int, tyro.conf.arg(metavar="N", help="Seed of all random draws.")]
