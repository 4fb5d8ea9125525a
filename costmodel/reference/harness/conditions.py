"""Clocks, temperature, power and load while measurements run; only read, never set."""

from __future__ import annotations

import os
import subprocess
import sys
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
)
# Drivers before 535 know the first name only, and some day they may know the second only.
_REASONS = ("clocks_throttle_reasons.active", "clocks_event_reasons.active")
_TIMEOUT_S = 10.0
_MISSING = frozenset({"", "N/A", "[N/A]", "[Not Supported]", "[Unknown Error]"})

_known: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {}


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
        what nvidia-smi says under its own names (MHz, C, W); the runner keeps the device busy
        meanwhile, except at the end.  A load above the number of
        threads means that others used the cores.
    """
    found: dict[str, str | float] = {"at": round(time.time(), 3)}
    if hasattr(os, "getloadavg"):
        found["load_1min"], found["load_5min"] = (round(x, 2) for x in os.getloadavg()[:2])
    if device.startswith("cuda"):
        found.update(query_nvidia_smi((*_FIELDS, *_REASONS), device))
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
        Fields it answered, numbers as floats; without those that the device does not have, and
        empty where there is no nvidia-smi.
    """
    which = _identity(device)
    wanted = tuple(fields)
    # Every question takes a process and the device's time: none is asked in vain twice.
    known = _known.get((wanted, which), wanted)
    try:
        answer = _ask(known, which) if known else []
        if answer is None:
            answers = {name: (_ask((name,), which) or [""])[0] for name in known}
            known = _known[wanted, which] = tuple(name for name, one in answers.items() if one)
            answer = [answers[name] for name in known]
    except subprocess.TimeoutExpired:
        known, answer = (), []
        _known[wanted, which] = known
    pairs = zip(known, answer, strict=False)
    return {name: _number(text) for name, text in pairs if text not in _MISSING}


def _ask(fields: Sequence[str], which: str) -> list[str] | None:
    """Return the answers; None if there are none to this question, empty without nvidia-smi."""
    command = [
        "nvidia-smi",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
        f"--id={which}",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except FileNotFoundError:
        return []
    except subprocess.TimeoutExpired:
        raise
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return [part.strip() for part in lines[0].split(",")] if lines else []


def _identity(device: str) -> str:
    """Return what nvidia-smi calls a device: torch counts the visible ones only, fastest first."""
    index = int(device.partition(":")[2] or 0)
    uuid = _uuid(index)
    if uuid:
        return f"GPU-{uuid}"
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[index] if index < len(visible) and visible[index] else str(index)


def _uuid(index: int) -> str:
    """Return the UUID of a device as torch has it from version 2.4 or so on, else nothing."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return ""
    properties = torch.cuda.get_device_properties(index)
    # Of a part of a device (MIG) nvidia-smi wants another name, which is in the environment.
    return "" if "MIG" in properties.name else str(getattr(properties, "uuid", ""))


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
