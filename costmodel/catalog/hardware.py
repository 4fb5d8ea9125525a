"""Find a device by name, by an alias from timing files, or in a user's own file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.errors import SpecError, UnknownNameError, did_you_mean
from costmodel.specs.hardware import HardwareProfile, HostProfile

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["list_gpus", "load_gpu", "load_host"]

_SUFFIXES = (".yaml", ".yml")
_PEAK_KEY = ("dtype", "accumulate", "engine")


def list_gpus() -> tuple[str, ...]:
    """Return the names of the devices that ship with the package.

    Only file names are read, so this is fast.

    Examples
    --------
    >>> "rtx-a6000" in list_gpus()
    True
    """
    return _stems(files("costmodel.hardware_profiles"))


def load_gpu(name_or_path: str | os.PathLike[str]) -> HardwareProfile:
    """Return a device by name, alias or file.

    Parameters
    ----------
    name_or_path : str or path
        A name of `list_gpus`, an alias of one (``A100-SXM4-80GB``), both without regard
        to case, or a YAML file: whatever ends in ``.yaml`` or ``.yml`` or contains a path
        separator.  A file describes a whole device, or changes a known one that its key
        ``base`` names.

    Returns
    -------
    HardwareProfile
        The validated profile.

    Raises
    ------
    UnknownNameError
        If no device has that name or alias.
    SpecError
        If the file cannot be read or does not describe a device.

    Examples
    --------
    >>> load_gpu("A100-SXM4-80GB").name
    'a100-80gb-sxm'
    >>> load_gpu("h100").bandwidth_bytes_per_s / 1e9
    3350.0
    >>> load_gpu("a100-80g-sxm")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    costmodel.errors.UnknownNameError: unknown gpu 'a100-80g-sxm'. Did you mean a100-80gb-sxm? ...
    """
    text = os.fspath(name_or_path)
    if not _is_path(name_or_path):
        return _shipped_gpu(_resolve(text))
    path = Path(text)
    data = read_yaml_mapping(path, text)
    return HardwareProfile.parse(_on_base(data, path, text) if "base" in data else data, text)


def load_host(name_or_path: str | os.PathLike[str] = "epyc-7742") -> HostProfile:
    """Return the processor that feeds a device, by name or file.

    Parameters
    ----------
    name_or_path : str or path, optional
        A shipped name, or a YAML file as for `load_gpu`; one socket of a DGX A100 by default.

    Returns
    -------
    HostProfile
        The validated profile.

    Raises
    ------
    UnknownNameError
        If no host has that name.
    SpecError
        If the file cannot be read or does not describe a host.

    Examples
    --------
    >>> load_host().peak_fp32.si / 1e12
    4.608
    """
    text = os.fspath(name_or_path)
    if _is_path(name_or_path):
        return HostProfile.parse(read_yaml_mapping(Path(text), text), text)
    folder = files("costmodel.hardware_profiles") / "hosts"
    names = _stems(folder)
    if _normal(text) not in names:
        raise UnknownNameError("host", text, names, "A path to a YAML file is accepted too.")
    file = f"{_normal(text)}.yaml"
    return HostProfile.parse(read_yaml_mapping(folder / file, file), file)


def _stems(folder: Traversable) -> tuple[str, ...]:
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def _is_path(name_or_path: str | os.PathLike[str]) -> bool:
    if not isinstance(name_or_path, str):
        return True
    separators = {"/", os.sep, os.altsep or os.sep}
    return name_or_path.lower().endswith(_SUFFIXES) or any(
        separator in name_or_path for separator in separators
    )


def _normal(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.strip().lower())


@lru_cache
def _shipped(name: str) -> Mapping[str, Any]:
    file = f"{name}.yaml"
    return read_yaml_mapping(files("costmodel.hardware_profiles") / file, file)


@lru_cache
def _shipped_gpu(name: str) -> HardwareProfile:
    return HardwareProfile.parse(_shipped(name), f"{name}.yaml")


@lru_cache
def _aliases() -> dict[str, str]:
    return {alias: name for name in list_gpus() for alias in _shipped(name).get("aliases", ())}


def _resolve(text: str) -> str:
    names, key = list_gpus(), _normal(text)
    if key in names:
        return key
    aliases = _aliases()
    for alias, name in aliases.items():
        if _normal(alias) == key:
            return name
    hint = "A path to a YAML file is accepted too."
    close = did_you_mean(text, aliases)
    if close and aliases[close] != did_you_mean(text, names):
        hint = f"{close} is an alias of {aliases[close]}. {hint}"
    raise UnknownNameError("gpu", text, names, hint)


def _on_base(data: Mapping[Any, Any], path: Path, where: str) -> dict[Any, Any]:
    base = data["base"]
    if not isinstance(base, str):
        raise SpecError(f"{where}: base: expected the name of a known GPU, got {base!r}")
    try:
        known = _shipped(_resolve(base))
    except UnknownNameError as error:
        raise SpecError(f"{where}: base: {error}") from None
    defaults = {
        **known,
        "name": re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.") or "custom",
        "title": f"{known['title']}, changed",
        "aliases": [],
    }
    return _merge(defaults, {key: value for key, value in data.items() if key != "base"})


def _merge(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> dict[Any, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _requantify(before, value) if "value" in before else _merge(before, value)
        elif key == "peaks" and isinstance(before, list) and isinstance(value, list):
            merged[key] = _merge_peaks(before, value)
        else:
            merged[key] = value
    return merged


def _requantify(before: Mapping[Any, Any], value: Mapping[Any, Any]) -> dict[Any, Any]:
    # The source stays behind: it does not vouch for the user's number.
    return {"unit": before["unit"], **value}


def _merge_peaks(before: list[Any], value: list[Any]) -> list[Any]:
    merged = {tuple(peak[key] for key in _PEAK_KEY): peak for peak in before}
    bad: list[Any] = []
    for peak in value:
        if not isinstance(peak, Mapping) or not all(
            isinstance(peak.get(part), str) for part in _PEAK_KEY
        ):
            bad.append(peak)
            continue
        key = tuple(peak[part] for part in _PEAK_KEY)
        merged[key] = _requantify(merged.get(key, {"unit": "TFLOP/s"}), peak)
    return [*bad, *merged.values()]
