"""Devices of timing files, by any name that a profile or the caller knows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from costmodel.catalog.hardware import list_gpus, load_gpu
from costmodel.errors import UnknownNameError, did_you_mean
from costmodel.specs.hardware import HardwareProfile

__all__ = ["Gpus", "gpu_below"]


class Gpus:
    """Finds the profile of a device name.

    Parameters
    ----------
    own : mapping of str to HardwareProfile, optional
        Devices of the caller, by the name that files use; also found by profile name.

    Examples
    --------
    >>> Gpus().find("A100-SXM4-80GB").name
    'a100-80gb-sxm'
    >>> Gpus().problem("A10O-SXM4-80GB")
    "gpu: unknown name 'A10O-SXM4-80GB'; did you mean A100-SXM4-80GB?"
    """

    def __init__(self, own: Mapping[str, HardwareProfile] | None = None) -> None:
        named = own or {}
        self._known: dict[str, HardwareProfile | None] = {
            **{profile.name: profile for profile in named.values()},
            **named,
        }

    def find(self, name: str) -> HardwareProfile | None:
        """Return the profile of a device, or None."""
        if name not in self._known:
            # What looks like a path would be opened, and data must not open files.
            is_path = "/" in name or "\\" in name or name.lower().endswith((".yaml", ".yml"))
            try:
                self._known[name] = None if is_path else load_gpu(name)
            except UnknownNameError:
                self._known[name] = None
        return self._known[name]

    def problem(self, name: str) -> str:
        """Return what to say about an unknown name."""
        names = [*list_gpus(), *(key for key, profile in self._known.items() if profile)]
        for profile in map(load_gpu, list_gpus()):
            names.extend(profile.aliases)
        close = did_you_mean(name, names)
        return f"gpu: unknown name {name!r}" + (f"; did you mean {close}?" if close else "")


def gpu_below(path: Path, folder: str) -> str | None:
    """Return the device that the folder after `folder` in a path names.

    The first word counts: ``a100_dgx`` is a cluster of A100.

    Examples
    --------
    >>> gpu_below(Path("data/profiling/network/a100_dgx/all_reduce.csv"), "network")
    'a100'
    >>> gpu_below(Path("mlp.csv"), "compute") is None
    True
    """
    parts = path.parts[-2::-1]
    after = next((b for b, a in pairwise(parts) if a == folder), None)
    return after.split("_")[0] if after else None
