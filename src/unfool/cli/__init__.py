"""The command line: one file a command, each of which parses, calls the library and prints.

Nothing here imports torch before a command runs, so that ``unfool --help`` answers at once.
"""

import os

# Read by OpenMP when torch is loaded: spinning threads cost a busy machine far more than they win an idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from unfool.cli.entry import main

__all__ = ["main"]
