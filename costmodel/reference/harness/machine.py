"""What a measurement ran on: device, memory, caches, software versions, commit."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Machine", "cpu_cache_bytes", "describe_machine", "git_commit"]

_SYSFS_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_UNKNOWN_CACHE_BYTES = 32 << 20
# More than any GPU has so far, so that inputs rotate through more than it.
_UNKNOWN_GPU_CACHE_BYTES = 128 << 20
# CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE of cuda.h.
_L2_ATTRIBUTE = 38
_DRIVER = Path("/proc/driver/nvidia/version")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """A device, its host and the software.

    Attributes
    ----------
    gpu : str
        Device as torch names it, ``cpu`` for a CPU: the column of that name.
    software : str
        Library and version, and the threads of a CPU: rows that differ in it are not mixed.
    cache_bytes : int
        Last-level cache of the device [B].
    memory_bytes : int
        Its memory [B].
    processors : int
        Streaming multiprocessors, or threads that torch uses.
    device : mapping
        More about the device: compute capability, driver.
    host : mapping
        Processor model, cores, caches [B], clock [MHz], memory [B], system.
    versions : mapping of str to str
        Of Python, torch, CUDA, cuDNN, transformers, numpy.
    settings : mapping
        Of torch that change times: tf32, threads.
    git_commit : str
        Of the repository that the code is part of; empty outside of one.
    """

    gpu: str
    software: str
    cache_bytes: int
    memory_bytes: int
    processors: int
    device: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    git_commit: str = ""

    def record(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def describe_machine(device: str) -> Machine:
    """Return what is known about a device and its host.

    Parameters
    ----------
    device : str
        As torch names it: ``cpu``, ``cuda`` or ``cuda:1``.

    Returns
    -------
    Machine
    """
    import torch

    host = _host()
    common: dict[str, Any] = {
        "host": host,
        "versions": _versions(),
        "settings": {
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "allow_tf32": bool(torch.backends.cuda.matmul.allow_tf32),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "attention": _attention(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
        },
        "git_commit": git_commit(),
    }
    if not device.startswith("cuda"):
        threads = torch.get_num_threads()
        return Machine(
            gpu="cpu",
            software=f"torch {torch.__version__}, {threads} thread{'s' if threads > 1 else ''}",
            cache_bytes=max(host["caches_bytes"].values(), default=_UNKNOWN_CACHE_BYTES),
            memory_bytes=host["memory_bytes"],
            processors=threads,
            device={"name": host["cpu"]},
            **common,
        )
    found = torch.cuda.get_device_properties(device)
    return Machine(
        gpu=found.name,
        software=f"torch {torch.__version__}",
        cache_bytes=_gpu_cache_bytes(found),
        memory_bytes=int(found.total_memory),
        processors=int(found.multi_processor_count),
        device={
            "name": found.name,
            "compute_capability": f"{found.major}.{found.minor}",
            "driver": _nvidia_driver(device),
        },
        **common,
    )


def _attention() -> list[str]:
    """Return the implementations among which torch may choose."""
    import torch

    kinds = ("flash", "mem_efficient", "cudnn", "math")
    asked = {kind: getattr(torch.backends.cuda, f"{kind}_sdp_enabled", None) for kind in kinds}
    return [kind for kind, ask in asked.items() if ask is not None and ask()]


def _gpu_cache_bytes(properties: Any) -> int:
    """Return the L2 cache; torch says it from version 2.5 on, else the driver is asked."""
    import torch

    size = int(getattr(properties, "L2_cache_size", 0))
    if size > 0:
        return size
    value = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        driver.cuDeviceGetAttribute(ctypes.byref(value), _L2_ATTRIBUTE, torch.cuda.current_device())
    except (OSError, AttributeError):
        return _UNKNOWN_GPU_CACHE_BYTES
    return value.value or _UNKNOWN_GPU_CACHE_BYTES


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__}
    found["cuda"] = str(torch.version.cuda or "")
    found["cudnn"] = str(torch.backends.cudnn.version() or "")
    for name in ("transformers", "numpy", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def _host() -> dict[str, Any]:
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "logical_cores": os.cpu_count() or 1,
        "usable_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "clock_mhz": float(_cpuinfo("cpu MHz") or 0.0),
        "caches_bytes": cpu_cache_bytes(),
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
    }


def _cpuinfo(key: str) -> str:
    """Return the first value of a key of /proc/cpuinfo, empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def cpu_cache_bytes(folder: Path = _SYSFS_CACHE) -> dict[str, int]:
    """Return the data caches of the first core by level [B]; empty where the system hides them."""
    found: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = (
                (index / name).read_text(encoding="utf-8").strip()
                for name in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and size[:-1].isdigit():
            found[f"L{level}"] = int(size[:-1]) * _UNITS.get(size[-1], 1)
    return found


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _nvidia_driver(device: str) -> str:
    from .conditions import query_nvidia_smi

    said = query_nvidia_smi(("driver_version",), device).get("driver_version", "")
    if said:
        return str(said)
    try:
        # Its first line ends in the version and the date of the kernel module.
        text = _DRIVER.read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text)
    return found.group() if found else ""


def git_commit(file: Path = Path(__file__)) -> str:
    """Return the commit of the repository that a file is tracked in, ``+`` if it was changed.

    An installed copy may lie inside a repository of somebody else, whose commit says nothing.
    """
    folder = str(file.parent)
    if _git(folder, "ls-files", "--error-unmatch", file.name) is None:
        return ""
    commit = _git(folder, "rev-parse", "HEAD") or ""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return commit + ("+" if changed else "")


def _git(folder: str, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
