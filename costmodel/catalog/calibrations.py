"""Calibrations by name or path: fitted parameters beside the datasheet profiles."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.errors import UnknownNameError
from costmodel.specs.calibration import Calibration
from costmodel.specs.hardware import HardwareProfile

__all__ = ["default_calibration", "list_calibrations", "load_calibration"]


def _folder() -> Traversable:
    return files("costmodel.hardware_profiles") / "calibrations"


@lru_cache(maxsize=1)
def list_calibrations() -> tuple[str, ...]:
    """Return the names of the shipped calibrations, ``<device>.<stack>``."""
    folder = _folder()
    if not folder.is_dir():
        return ()
    names = (item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
    return tuple(sorted(name.removesuffix(".yaml") for name in names))


@lru_cache(maxsize=64)
def _shipped(name: str) -> Calibration:
    where = f"calibration {name}"
    return Calibration.parse(read_yaml_mapping(_folder() / f"{name}.yaml", where), where)


def load_calibration(name_or_path: str | os.PathLike[str], profile: HardwareProfile) -> Calibration:
    """Return a calibration for a device.

    Parameters
    ----------
    name_or_path : str or path
        ``<device>.<stack>``, the stack alone, or the path of a YAML file.
    profile : HardwareProfile
        The device.

    Returns
    -------
    Calibration
        Possibly of another device: kernel models scale with the datasheet, and
        estimates label such times as transferred.

    Raises
    ------
    UnknownNameError
        If there is no calibration of that name.
    SpecError
        If a file is not a calibration.
    """
    text = os.fspath(name_or_path)
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        return Calibration.parse(read_yaml_mapping(Path(text), text), text)
    known = list_calibrations()
    owner = (profile.default_calibration or profile.name).partition(".")[0]
    for name in (text, f"{profile.name}.{text}", f"{owner}.{text}"):
        if name in known:
            return _shipped(name)
    mine = [name for name in known if name.startswith((f"{profile.name}.", f"{owner}."))]
    raise UnknownNameError(
        f"calibration of {profile.name}", text, mine or known, "The path of a YAML file works too."
    )


def default_calibration(profile: HardwareProfile) -> Calibration | None:
    """Return the calibration that the profile names, or None."""
    if profile.default_calibration is None:
        return None
    return load_calibration(profile.default_calibration, profile)
