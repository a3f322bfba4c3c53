"""``python -m unfool`` is the command ``unfool``."""

import sys

from unfool.cli import main

if __name__ == "__main__":
    sys.exit(main())
