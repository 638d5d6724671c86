"""``python -m underhood`` is the command ``underhood``."""

import sys

from underhood.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
