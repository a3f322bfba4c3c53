"""Small trained networks that come with the package, each with a card that proves its numbers.

``zoo:NAME`` stands for one of them wherever a run's folder or a weights file is read: on the command line, as ``start``
in a run's YAML, in `open_run` and `load_network`. Its folder is that of a finished run, so that its recipe is the run's
``config.yaml``.
"""

from unfool.models.zoo.catalog import card, folder, load, names

__all__ = ["card", "folder", "load", "names"]
