"""What is collected where torch is missing."""

from __future__ import annotations

import importlib.util

# Doctests import the modules they are in, and these need the extra `measure`.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["costmodel/reference/*"]
