"""``unfool convert``: a checkpoint of another program as safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options import Json


@dataclass(frozen=True, kw_only=True)
class ConvertCommand:
    """Write a state dict that `torch.save` made as safetensors, which can be read without trusting anybody.

    The checkpoint is read with weights_only=True: a file that holds more than tensors and plain values is refused.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """A checkpoint (.pt, .pth): a state dict, or one under state_dict, model_state_dict, model or net."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Where to write the weights (.safetensors)."""
    model: Annotated[
        str | None, tyro.conf.arg(metavar="FILE.py:NAME", help_behavior_hint="(default: names stay as they are)")
    ] = None
    """The model they belong to: its names and shapes are checked, and a prefix such as module. is left out."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool convert checkpoint.pt weights.safetensors
  unfool convert checkpoint.pth weights.safetensors --model mine.py:build --json
"""

    def run(self) -> None:
        from unfool.cli.printing import check_writable, print_json, print_lines
        from unfool.core.errors import SpecError
        from unfool.models.checkpoint_reader import load_state, read_state
        from unfool.models.user_code import load_module
        from unfool.models.weights import save_tensors

        if self.out.suffix != ".safetensors":
            raise SpecError(f"{self.out} does not end in .safetensors; choose such a name")
        module = load_module(self.model) if self.model is not None else None
        tensors = read_state(self.checkpoint)
        if module is not None:
            tensors = load_state(module, tensors, self.checkpoint)
        check_writable(self.out)
        save_tensors(self.out, tensors)
        numbers = sum(tensor.numel() for tensor in tensors.values())
        if self.json:
            print_json({"weights": str(self.out), "tensors": len(tensors), "numbers": numbers})
        else:
            print_lines([f"{self.out}: {len(tensors)} tensors, {numbers:,} numbers"])
