"""The networks of the package by name, and where their files lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unfool.core.borders.reading import is_file
from unfool.core.spec import unknown

if TYPE_CHECKING:
    from unfool.models.network import Network
    from unfool.models.zoo.model_card import Card

PREFIX = "zoo"
"""What stands before a name, with a colon between."""
WEIGHTS = "weights.safetensors"
"""The name of the weights in the folder of a run."""
_NETWORKS = Path(__file__).with_name("networks")


def names() -> list[str]:
    """The names of the networks that come with the package, in alphabetical order.

    Example:
        >>> from unfool import zoo
        >>> "digits" in zoo.names()
        True
    """
    return sorted(path.name for path in _NETWORKS.iterdir() if is_file(path / WEIGHTS))


def folder(name: str) -> Path:
    """The folder of a network: that of a finished run, with a card beside the weights.

    Args:
        name: A name of `names`, with or without ``zoo:`` before it.

    Returns:
        The folder, inside the installed package.

    Raises:
        SpecError: An unknown name; the nearest one is named.

    Example:
        >>> from unfool import zoo
        >>> (zoo.folder("digits") / "config.yaml").is_file()
        True
    """
    short = name.removeprefix(f"{PREFIX}:")
    if short not in names():
        raise unknown("network of the zoo", short, names())
    return _NETWORKS / short


def load(name: str) -> Network:
    """A network that comes with the package.

    Args:
        name: A name of `names`, with or without ``zoo:`` before it.

    Returns:
        The network, on the CPU and in eval mode: images (B, C, H, W) in [0,1] to logits (B, classes).

    Raises:
        SpecError: An unknown name; the nearest one is named.
        WeightsError: Weights that were changed after they were written.

    Example:
        >>> from unfool import zoo
        >>> zoo.load("digits")(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    from unfool.models.weights import load_network

    return load_network(folder(name) / WEIGHTS)


def card(name: str) -> Card:
    """The card of a network that comes with the package: recipe, figures with their intervals, hashes, limits.

    Args:
        name: A name of `names`, with or without ``zoo:`` before it.

    Returns:
        The card; ``clean`` and ``attacked`` are its figures.

    Raises:
        SpecError: An unknown name; the nearest one is named.

    Example:
        >>> from unfool import zoo
        >>> zoo.card("digits").data
        'digits'
    """
    from unfool.models.zoo.model_card import CARD, Card

    return Card.load(folder(name) / CARD)
