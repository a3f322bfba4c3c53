"""The faster copy of a model that attacks search on, where the model can be copied."""

from __future__ import annotations

import warnings

from torch import nn

from unfool.attacks import ProxySettings
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.models.outside.black_box import is_black_box


def proxy_for(model: nn.Module, precision: str) -> ProxySettings | None:
    """The proxy for attacks on ``model``; None, with an UnfoolWarning, for a model in fp32 that cannot be copied.

    Raises SpecError where another precision was asked for, which needs the copy.
    """
    if is_black_box(model):
        return None
    proxy = ProxySettings(dtype=precision)
    try:
        proxy.copy(model)
    except SpecError as error:
        if precision != "fp32":
            raise
        warnings.warn(f"{error}: so it is done, which takes longer", UnfoolWarning, stacklevel=3)
        return None
    return proxy
