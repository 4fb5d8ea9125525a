"""Calibrations as YAML files that people can read and that load fast."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from costmodel.specs.calibration import Calibration

__all__ = ["calibration_yaml", "write_calibration"]


def calibration_yaml(calibration: Calibration) -> str:
    """Return a calibration as YAML text; long lists of numbers become one string each."""
    import yaml

    data = _plain(calibration.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
    data = {"schema_version": calibration.schema_version, **data}
    text: str = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return text


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration atomically.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(calibration_yaml(calibration))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


_SHORT = 8


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        numbers = all(isinstance(item, int | float) for item in value)
        if numbers and len(value) > _SHORT:
            return " ".join(map(_number, value))
        if value and all(_is_numbers(item) for item in value):
            return [" ".join(str(number) for number in item) for item in value]
        return [_plain(item) for item in value]
    return value


def _number(value: float) -> str:
    """Six digits are enough for a number, but not for the size of a product."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int | float) for item in value)
