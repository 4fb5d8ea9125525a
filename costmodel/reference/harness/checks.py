"""What this machine can measure, found out in seconds by measuring the smallest of everything."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .case import Case, Options
from .inputs import Rotation
from .registry import load_suite
from .request import Request
from .timing import Limits
from .trial import Trial

__all__ = ["Finding", "check", "findings"]

_LIMITS = Limits(samples=3, seconds=0.01, warm_up_s=0.0)
_CACHE_BYTES, _CAP_BYTES = 1 << 20, 16 << 20
_MODELS = ("llava-1.5-7b", "llama-3-8b")
_TINY = "llava-tiny@1layers"
_FREE = 0.9
_FIELDS = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "utilization.gpu")


@dataclass(frozen=True)
class Finding:
    """One thing that measuring needs.

    Attributes
    ----------
    name : str
        What.
    reason : str
        What is not measured without it, and why it is not there; empty if it is.
    text : str
        More about it.
    """

    name: str
    reason: str = ""
    text: str = ""

    @property
    def line(self) -> str:
        """The finding in words.

        Examples
        --------
        >>> print(Finding("parquet", text="pyarrow 20.0").line)
        ok    parquet                        pyarrow 20.0
        >>> print(Finding("gemm bf16", reason="not supported").line)
        FAIL  gemm bf16                      not supported
        """
        return f"{'FAIL' if self.reason else 'ok':4}  {self.name:30} {self.reason or self.text}"


def check(request: Request, stream: TextIO) -> int:
    """Say line by line what can be measured.

    Parameters
    ----------
    request : Request
        Its device and number formats; nothing is written to its output.
    stream : TextIO
        Gets a line for each finding.

    Returns
    -------
    int
        0 if everything can be measured, else 1.

    Raises
    ------
    MeasureError
        If there is no such device.
    """
    request.check()
    start, failed = time.monotonic(), 0
    for finding in findings(request):
        failed += bool(finding.reason)
        stream.write(finding.line.rstrip() + "\n")
        stream.flush()
    stream.write(f"{failed} of these missing; {time.monotonic() - start:.0f} s\n")
    return int(failed > 0)


def findings(request: Request) -> Iterator[Finding]:
    """Yield what `check` says, one after the other."""
    import torch

    options, device = request.options, request.device
    if options.device == "cuda":
        torch.cuda.set_device(int(device.partition(":")[2] or 0))
        yield _free_memory()
        yield _nvidia_smi(device)
    yield _caught("machine", lambda: _machine(device))
    yield _caught("parquet", _parquet)
    yield _caught("models that fit", lambda: _models(options))
    trial = Trial(device, Rotation(_CACHE_BYTES, _CAP_BYTES))
    dtypes = options.dtypes if options.device == "cpu" else ("fp16", "bf16")
    for name, case in _smallest(options, dtypes):
        _, reason = trial.run(case, _LIMITS)
        yield Finding(name, reason)
        lost = trial.lost()
        if lost:
            yield Finding("device", f"lost by {name}: {lost}")
            return
    if options.device == "cuda":
        yield _caught("default attention", lambda: _chosen(device))
    yield _caught("torch.compile", lambda: _compile(device))


def _caught(name: str, make: Callable[[], str]) -> Finding:
    try:
        return Finding(name, text=make())
    except Exception as error:
        # Whatever is wrong with this, the others are looked at.
        return Finding(name, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")


def _machine(device: str) -> str:
    from .machine import describe_machine

    machine = describe_machine(device)
    found = {"gpu": machine.gpu, "driver": machine.device.get("driver", ""), **machine.versions}
    known = [f"{name} {value}" for name, value in found.items() if value]
    return ", ".join([*known, f"cache {machine.cache_bytes / 2**20:.0f} MiB"])


def _free_memory() -> Finding:
    import torch

    free, total = torch.cuda.mem_get_info()
    text = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB"
    return Finding("free memory", "" if free >= _FREE * total else f"others hold it: {text}", text)


def _nvidia_smi(device: str) -> Finding:
    from .conditions import query_nvidia_smi

    found = query_nvidia_smi(_FIELDS, device)
    missing = [name for name in _FIELDS if name not in found]
    text = ", ".join(f"{name} {value}" for name, value in found.items())
    return Finding("nvidia-smi", f"no {', '.join(missing)}" if missing else "", text)


def _parquet() -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.parquet")
        pq.write_table(pa.table({"time_us": [1.0]}), path)
        if pq.read_table(path).to_pylist() != [{"time_us": 1.0}]:
            raise ValueError("what was written is not what was read")
    return f"pyarrow {pa.__version__}"


def _models(options: Options) -> str:
    requests = importlib.import_module("..suites._requests", __package__)
    return ", ".join(shape.name for shape in requests.fitting_models(options, options.dtypes[0]))


def _smallest(options: Options, dtypes: tuple[str, ...]) -> Iterator[tuple[str, Case]]:
    """Yield a case of every way in which something is timed, and its name."""
    kind = options.device
    for dtype in dtypes:
        some = Options(kind, (dtype,), _MODELS, (64,))
        yield f"gemm {dtype}", load_suite("gemm").cases(some)[0]
        seen = set()
        for case in load_suite("attention").cases(some):
            grouped = " grouped" if case.key["heads"] != case.key["kv_heads"] else ""
            name = f"{case.key['kernel']}{grouped} {dtype}"
            if case.kind == "attention_prefill" and name not in seen:
                seen.add(name)
                yield name, case
    some = Options(kind, dtypes[:1], (_TINY,), (96,), quick=True)
    yield "memory_bound", load_suite("memory_bound").cases(some)[0]
    yield from _once(load_suite("compression").cases(some), ("method", "runtime"), "random")
    yield from _once(load_suite("launch").cases(some), ("runtime", "op"))
    # What a graph captures is compiled, so that compiled code by itself would be one more wait.
    whole = [
        case
        for case in load_suite("prefill").cases(some)
        if case.key["stage"] == "ttft" and case.key["runtime"] != "compiled"
    ]
    yield from _once(whole, ("runtime", "stage"))


def _once(
    cases: Iterable[Case], columns: tuple[str, ...], start: str = ""
) -> Iterator[tuple[str, Case]]:
    """Yield the first case of each value of some columns."""
    seen = set()
    for case in cases:
        name = " ".join(str(case.key[column]) for column in columns)
        if name not in seen and name.startswith(start):
            seen.add(name)
            yield f"{case.suite} {name}", case


def _compile(device: str) -> str:
    """Compile a matrix product and a kernel of its own, as suites do."""
    import torch

    runtimes = importlib.import_module("..models.runtimes", __package__)
    compiled = runtimes.wrap(lambda x: (x @ x).relu(), "compiled")
    with torch.inference_mode():
        compiled(torch.ones(16, 16, device=device))
    compilers = [name for name in ("gcc", "clang", "g++") if shutil.which(name)]
    triton = "triton" if importlib.util.find_spec("triton") else "no triton"
    return ", ".join([*compilers, triton])


def _chosen(device: str) -> str:
    """Return which implementation torch takes by itself, with cuDNN's and without.

    Raises
    ------
    ValueError
        If it is not flash attention when cuDNN's is off, as it is while whole models are timed.
    """
    import torch
    from torch.nn.attention import SDPBackend

    one = torch.zeros(1, 32, 640, 128, device=device, dtype=torch.float16)
    known = {int(getattr(SDPBackend, name)): name for name in dir(SDPBackend) if name.isupper()}
    is_cudnn, chosen = torch.backends.cuda.cudnn_sdp_enabled(), []
    for allowed in (is_cudnn, False):
        torch.backends.cuda.enable_cudnn_sdp(allowed)
        number = int(torch._fused_sdp_choice(one, one, one, is_causal=True))
        chosen.append(known.get(number, str(number)))
    torch.backends.cuda.enable_cudnn_sdp(is_cudnn)
    if chosen[1] != "FLASH_ATTENTION":
        raise ValueError(f"whole models run {chosen[1]}, not FLASH_ATTENTION")
    return f"{chosen[1]}; torch's own choice is {chosen[0]}"
