"""Published checkpoints as networks: the layout from the tensors' names, the architecture from their shapes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unfool.core.errors import SpecError, UnfoolWarning, WeightsError
from unfool.models.checkpoints.reader import PREFIXES, check_fit, read_state, stripped
from unfool.models.network import Network
from unfool.models.trunks import scaled
from unfool.models.trunks.wide_resnet import STEM_WIDTH
from unfool.models.weights import load_network
from unfool.models.zoo.located import weights_file

_SIGNS = ("block1.layer.0.bn1.weight", "block1.layer.0.conv1.weight")
"""Names that no other layout has; the file of a network that was cut off elsewhere still has them."""
_SIGNED = re.compile(rf"(?:{'|'.join(map(re.escape, PREFIXES))})*(?:{'|'.join(map(re.escape, _SIGNS))})")
_NUMBERED = re.compile(r"block[123]\.layer\.(\d{1,4})\.")
_UNUSED = "sub_block1."
"""A second copy of the first stage, which the published code makes and never runs."""
_ENDS = {"trunk.parts.stem.0": "conv1", "trunk.parts.last.0": "bn1", "heads.labels.0": "fc"}
_IN_BLOCK = {
    "entry.0": "bn1",
    "residual.0": "conv1",
    "residual.1": "bn2",
    "residual.3": "conv2",
    "shortcut": "convShortcut",
}
_REMEDY = "give a whole checkpoint of that layout, or keep its names with --layout none"


def detect_layout(names: Iterable[str]) -> str | None:
    """The layout of `LAYOUTS` that a state dict of these names has, also behind prefixes; None for no known one."""
    count = sum(_SIGNED.fullmatch(name) is not None for name in names)
    return "carmon2019" if count == len(_SIGNS) else None


def carmon2019(tensors: Mapping[str, Tensor], where: str | Path) -> Network:
    """The classifier of a state dict as Carmon et al. 2019 published their WRN-28-10, in eval mode on the CPU.

    The layout (conv1, block1.layer.0.bn1 and so on, bn1, fc) is that of the TRADES code (Zhang et al. 2019), which
    many robust wide resnets share; depth, width, image channels and classes are read from it. Names and shapes tell
    neither normalisation nor activation: as in the published code there is none and ReLU, which is reported as an
    UnfoolWarning with whatever is left out. Raises WeightsError that names what is missing, unexpected or misshapen.
    """
    tensors = stripped(tensors, _SIGNS, where)
    unused = [name for name in tensors if name.startswith(_UNUSED)]
    if unused:
        _warn(f"{where}: {len(unused)} tensors {_UNUSED}* were left out; the published code never runs them")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_UNUSED)}
    network = _empty(tensors, where)
    settings = network.trunk.spec.settings
    state = network.state_dict()
    names = {_published(name): name for name in state if name not in ("mean", "std")}
    for name in names:
        # Checkpoints from before PyTorch 0.4.1 do not count batches, and nothing here reads the count.
        if name.endswith(".num_batches_tracked"):
            tensors.setdefault(name, torch.zeros((), dtype=torch.int64))
    what = f"layout carmon2019 (WRN-{settings.depth}-{settings.width:g})"
    check_fit(tensors, {name: state[ours] for name, ours in names.items()}, where, what, _REMEDY)
    for name, ours in names.items():
        state[ours] = tensors[name].to(state[ours].dtype, copy=True)
    network.load_state_dict(state, strict=True, assign=True)
    _warn(f"{where} was read as {what} with ReLU and without normalisation; check its accuracy before you trust it")
    return network.eval()


LAYOUTS: dict[str, Callable[[Mapping[str, Tensor], str | Path], Network]] = {"carmon2019": carmon2019}
"""How to read each layout: a state dict and where it is from, as a network with the head "labels"."""


def read_published(path: str | Path) -> Network:
    """The classifier in a file or of ``zoo:NAME``: in one of `LAYOUTS`, or as unfool writes its own.

    Raises WeightsError for a file that is neither.
    """
    path = weights_file(path)
    tensors = read_state(path)
    layout = detect_layout(tensors)
    return LAYOUTS[layout](tensors, path) if layout else load_network(path)


def _empty(tensors: Mapping[str, Tensor], where: str | Path) -> Network:
    """The network on the meta device; what a missing tensor would have determined is WRN-28-10's."""
    width = _length(tensors, "block1.layer.0.conv1.weight", 0, 10 * STEM_WIDTH) / STEM_WIDTH
    numbered = (_NUMBERED.match(name) for name in tensors)
    blocks = 1 + max((int(match[1]) for match in numbered if match is not None), default=3)
    trunk = {"name": "wide-resnet", "depth": 6 * blocks + 4, "width": width}
    labels = {"kind": "linear", "inputs": scaled(64, width), "outputs": _length(tensors, "fc.weight", 0, 10)}
    try:
        return Network.empty(
            {
                "trunk": {**trunk, "channels": _length(tensors, "conv1.weight", 1, 3)},
                "mean": "none",
                "std": "none",
                "heads": {"labels": labels},
                "classifier": "labels",
            }
        )
    except SpecError as error:
        raise WeightsError(f"{where} holds no wide resnet that can be built ({error}); {_REMEDY}") from error


def _length(tensors: Mapping[str, Tensor], name: str, dimension: int, otherwise: int) -> int:
    shape = tuple(tensors[name].shape) if name in tensors else ()
    return shape[dimension] if len(shape) > dimension else otherwise


def _published(name: str) -> str:
    """The layout's name of one of our tensors."""
    module, _, tensor = name.rpartition(".")
    if module in _ENDS:
        return f"{_ENDS[module]}.{tensor}"
    stage, index, part = module.removeprefix("trunk.parts.").split(".", 2)
    return f"{stage}.layer.{index}.{_IN_BLOCK[part]}.{tensor}"


def _warn(text: str) -> None:
    warnings.warn(text, UnfoolWarning, stacklevel=3)
