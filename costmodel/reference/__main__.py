"""``python -m reference``: measure from a copy of this folder alone."""

from __future__ import annotations

import sys

from .harness.command import main

if __name__ == "__main__":
    sys.exit(main())
