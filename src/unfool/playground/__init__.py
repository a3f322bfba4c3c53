"""The playground: fool a network on one image, see what it makes of it, and move the image back; in a browser."""

from unfool.playground.play import Playground
from unfool.playground.systems import PlaygroundSystem

__all__ = ["Playground", "PlaygroundSystem"]
