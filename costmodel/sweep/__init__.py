"""Millions of points from a YAML file to a table: `run_sweep`, `iterate`, `to_frame`."""

from __future__ import annotations

from costmodel.sweep.running import Summary, iterate, run_sweep, to_frame
from costmodel.sweep.spec import SweepSpec, load_spec

__all__ = ["Summary", "SweepSpec", "iterate", "load_spec", "run_sweep", "to_frame"]
