# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Which parameters a stage trains: ``all``, the ``heads``, the trunk ``from:STAGE`` on, or ``after:N`` layers.

``after:10`` freezes the first ten convolutions and linear layers of the trunk, in forward order and with the norms
behind them. STAGE is a stage of the trunk, or of another library's classifier the path of a submodule. Layers are
counted as papers count them: the convolution of a shortcut is not one, and is trained if its
block ends in a layer that is.
"""

from __future__ import annotations

import re

from torch import nn

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.models.foreign_network import ForeignTrunk
from unfool.models.outside.features import checked_path
from unfool.models.trunks import Trunk

_PART = re.compile(r"all|heads|from:\w+(\.\w+)*|after:[1-9]\d{0,17}", re.ASCII)


def check_trainable(trainable: str) -> None:
    """SpecError for words that are not understood; `frozen_parts` checks that a trunk has the stage or layer."""
    if not _PART.fullmatch(trainable):
        raise SpecError(
            f"trainable {trainable!r} is unknown; write all, heads, from:STAGE (of the trunk) or after:N (layers)"
        )


def frozen_parts(trunk: Trunk, trainable: str) -> list[nn.Module]:
    """The modules of a trunk that are not trained; SpecError for a stage or a layer that it lacks."""
    check_trainable(trainable)
    kind, _, which = trainable.partition(":")
    if kind == "all":
        return []
    if kind == "heads":
        # Parameters may lie on a module that has parts too, as the class token of a transformer does.
        own = [part for part in trunk.modules() if list(part.children()) and list(part.parameters(recurse=False))]
        return [*_innermost(trunk), *own]
    if kind == "from":
        if isinstance(trunk, ForeignTrunk):
            return _before(trunk.classifier.module, which)
        if which not in trunk.stages:
            raise unknown(f"stage of trunk {trunk.spec.name!r}", which, trunk.stages)
        before = trunk.stages[: trunk.stages.index(which)]
        return [module for stage in before for module in _innermost(trunk.parts[stage])]
    counted = _counted(trunk)
    if int(which) >= len(counted):
        raise SpecError(
            f"trainable {trainable!r} leaves no layer of {trunk.spec.name!r} to train; it has {len(counted)} layers: "
            "name a smaller number, or heads"
        )
    modules = _innermost(trunk)
    # Modules are registered in forward order, a block's shortcut behind its last layer.
    return modules[: next(number for number, module in enumerate(modules) if module is counted[int(which)])]


def frozen_parameters(trunk: Trunk, trainable: str) -> list[nn.Parameter]:
    """The parameters that are not trained beside those of `frozen_parts`: such as lie on a module that has parts, as
    positional embeddings and a transformer's projections do, and are registered before what is trained."""
    kind, _, which = trainable.partition(":")
    if kind == "from" and isinstance(trunk, ForeignTrunk):
        holders = _above(trunk.classifier.module, which)
    elif kind == "after":
        modules, first = list(trunk.modules()), _counted(trunk)[int(which)]
        holders = modules[: next(number for number, module in enumerate(modules) if module is first)]
    else:
        return []
    return [each for module in holders if list(module.children()) for each in module.parameters(recurse=False)]


def _counted(trunk: Trunk) -> list[nn.Module]:
    """The layers that papers count."""
    return [
        module
        for name, module in trunk.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "shortcut" not in name.split(".")
    ]


def _above(module: nn.Module, path: str) -> list[nn.Module]:
    """A classifier and its submodules on the way to that of a path."""
    *names, _ = path.split(".")
    return [module, *(module.get_submodule(".".join(names[: depth + 1])) for depth in range(len(names)))]


def _before(module: nn.Module, path: str) -> list[nn.Module]:
    """The parts of another library's classifier that are registered before the submodule of a path."""
    parts: list[nn.Module] = []
    for name in checked_path(module, path).split("."):
        for own, child in module.named_children():
            if own == name:
                break
            parts += child.modules()
        module = module.get_submodule(name)
    return parts


def _innermost(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if not list(part.children())]
