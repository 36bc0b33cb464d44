"""`python -m nbray` is the `nbray` command."""

import sys

from nbray.cli import main

if __name__ == "__main__":
    sys.exit(main())
