"""``unfool convert``: a checkpoint of another program as safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options.shared import Json, Key, Prefix


@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Convert a checkpoint of `torch.save` to safetensors, which is safe to read whoever wrote it.

    The checkpoint is read with weights_only=True: a file that holds more than tensors and plain values is refused.
    A published robust classifier of a known layout becomes a weights file that every command reads without its code.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """A checkpoint (.pt, .pth) or TorchScript file: a state dict, or a file that holds one or several, see --key."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Where to write the weights (.safetensors)."""
    model: Annotated[
        str | None, tyro.conf.arg(metavar="FILE.py:NAME", help_behavior_hint="(default: names stay as they are)")
    ] = None
    """The model that the weights belong to: names and shapes are checked, and a prefix such as module. is removed."""
    key: Key = None
    prefix: Prefix = None
    layout: Annotated[
        str | None,
        tyro.conf.arg(
            help="Names of tensors: carmon2019 (WRN-28-10 and other wide ResNets as TRADES names them), or none: "
            "kept as they are.",
            metavar="NAME",
            help_behavior_hint="(default: from the tensors' names)",
        ),
    ] = None
    json: Json = False

    examples: ClassVar[str] = """
  unfool convert checkpoint.pt weights.safetensors
  unfool convert checkpoint.pth weights.safetensors --model mine.py:build --json
  unfool convert checkpoint.pth average.safetensors --model mine.py:build --key model_ema
  unfool convert wrn-28-10.pt robust.safetensors --layout carmon2019
"""

    def run(self) -> None:
        from unfool.cli.printing import check_writable, print_json, print_lines
        from unfool.core.errors import SpecError
        from unfool.core.spec import unknown
        from unfool.models.checkpoints.reader import load_weights, read_state
        from unfool.models.published import LAYOUTS, detect_layout
        from unfool.models.python_file import load_module
        from unfool.models.weights import save_network, save_tensors

        if self.out.suffix != ".safetensors":
            raise SpecError(f"{self.out} does not end in .safetensors; choose such a name")
        if self.model is not None and self.layout is not None:
            raise SpecError(f"--model {self.model} and --layout {self.layout} were given; give one of them")
        if self.layout not in (None, "none", *LAYOUTS):
            raise unknown("layout", self.layout, ["none", *LAYOUTS])
        module = load_module(self.model) if self.model is not None else None
        if module is not None:
            tensors = load_weights(module, self.checkpoint, key=self.key, prefix=self.prefix)
        else:
            tensors = read_state(self.checkpoint, key=self.key, prefix=self.prefix)
        layout = self.layout or (detect_layout(tensors) if module is None else None)
        network = LAYOUTS[layout](tensors, self.checkpoint) if layout in LAYOUTS else None
        if network is not None:
            tensors = network.state_dict()
        check_writable(self.out)
        if network is not None:
            save_network(network, self.out)
        else:
            save_tensors(self.out, tensors)
        numbers = sum(tensor.numel() for tensor in tensors.values())
        known = {"layout": layout, "trunk": network.trunk.spec.to_dict()} if network is not None else {}
        if self.json:
            print_json({"weights": str(self.out), "tensors": len(tensors), "numbers": numbers, **known})
        else:
            read = f", read as layout {layout}" if network is not None else ""
            print_lines([f"{self.out}: {len(tensors)} tensors, {numbers:,} numbers{read}"])
