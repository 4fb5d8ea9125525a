"""Clocks, temperature, power and load while measurements run; only read, never set."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence

__all__ = ["conditions", "query_nvidia_smi"]

_FIELDS = (
    "pstate",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "temperature.gpu",
    "power.draw",
    "power.limit",
    "utilization.gpu",
    "clocks_throttle_reasons.active",
)
_TIMEOUT_S = 10.0


def conditions(device: str) -> dict[str, str | float]:
    """Return the state of a device now.

    Parameters
    ----------
    device : str
        ``cpu``, ``cuda`` or ``cuda:1``.

    Returns
    -------
    dict
        ``at`` [s since 1970], the host's load averages over 1 and 5 minutes and, of a GPU,
        what nvidia-smi says under its own names (MHz, C, W).  A load above the number of
        threads means that others used the cores.
    """
    found: dict[str, str | float] = {"at": round(time.time(), 3)}
    if hasattr(os, "getloadavg"):
        found["load_1min"], found["load_5min"] = (round(x, 2) for x in os.getloadavg()[:2])
    if device.startswith("cuda"):
        found.update(query_nvidia_smi(_FIELDS, device))
    return found


def query_nvidia_smi(fields: Sequence[str], device: str = "cuda") -> dict[str, str | float]:
    """Ask nvidia-smi for fields, one by one where it does not know all of them.

    Parameters
    ----------
    fields : sequence of str
        Names of ``nvidia-smi --help-query-gpu``.
    device : str
        ``cuda`` or ``cuda:1``.

    Returns
    -------
    dict
        Fields it answered, numbers as floats; empty where there is no nvidia-smi.
    """
    answer = _ask(fields, device)
    if answer is None and len(fields) > 1:
        parts = [query_nvidia_smi((name,), device) for name in fields]
        return {name: value for part in parts for name, value in part.items()}
    return dict(zip(fields, map(_number, answer or ()), strict=False))


def _ask(fields: Sequence[str], device: str) -> list[str] | None:
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
        f"--id={_identity(device)}",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except FileNotFoundError:
        return []
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return [part.strip() for part in lines[0].split(",")] if lines else []


def _identity(device: str) -> str:
    """Return what nvidia-smi calls a device: torch counts the visible ones only."""
    index = int(device.partition(":")[2] or 0)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[index] if index < len(visible) and visible[index] else str(index)


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
