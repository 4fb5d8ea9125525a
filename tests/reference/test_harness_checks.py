"""``--check`` and processes that are started anew."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costmodel.reference.harness import checks
from costmodel.reference.harness.checks import check, findings
from costmodel.reference.harness.command import main
from costmodel.reference.harness.errors import MeasureError
from costmodel.reference.harness.machine import describe_machine
from costmodel.reference.harness.measuring import _settings
from costmodel.reference.harness.request import Request
from costmodel.reference.harness.runner import LOST_DEVICE
from costmodel.reference.harness.supervise import supervise
from costmodel.reference.harness.trial import Trial

torch = pytest.importorskip("torch", reason="needs the extra 'measure'")
pytest.importorskip("transformers", reason="needs the extra 'measure'")

pytestmark = pytest.mark.verify

CPU = Request(Path())


def _lines(request: Request) -> dict[str, str]:
    stream = io.StringIO()
    check(request, stream)
    lines = [line for line in stream.getvalue().splitlines() if line[:4] in ("ok  ", "FAIL")]
    return {line[6:37].strip(): line[:4].strip() for line in lines}


def test_a_processor_is_checked_in_what_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_compile", lambda device: "not tried")
    found = _lines(CPU)
    assert set(found.values()) == {"ok"}, found
    assert set(found) >= {
        "machine", "parquet", "models that fit", "gemm fp32", "sdpa-flash fp32",
        "sdpa-flash grouped fp32", "eager fp32", "launch eager launch", "prefill eager ttft",
        "torch.compile",
    }  # fmt: skip
    assert not {name for name in found if "nvidia" in name or "cuda" in name}


def test_what_is_missing_is_a_line_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(device: str) -> str:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    def refuse(self: object, case: Any, limits: object) -> tuple[dict[str, Any], str]:
        return {}, "no kernel" if case.key.get("kernel") == "sdpa-math" else ""

    monkeypatch.setattr(checks, "_compile", none)
    monkeypatch.setattr(Trial, "run", refuse)
    stream = io.StringIO()
    assert check(CPU, stream) == 1
    failed = [line for line in stream.getvalue().splitlines() if line.startswith("FAIL")]
    assert failed == [
        "FAIL  sdpa-math grouped fp32         no kernel",
        "FAIL  sdpa-math fp32                 no kernel",
        "FAIL  torch.compile                  RuntimeError: Failed to find C compiler.",
    ]
    assert "3 of these missing" in stream.getvalue()


def test_nothing_is_tried_on_a_device_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "run", lambda self, case, limits: ({}, "illegal"))
    monkeypatch.setattr(Trial, "lost", lambda self: "illegal")
    found = list(findings(CPU))
    assert (found[-1].name, found[-1].reason) == ("device", "lost by gemm fp32: illegal")
    assert found[-2].name == "gemm fp32"


def test_every_way_of_timing_on_a_gpu_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the suites' own cases, small ones."""
    options = Request(Path(), device="cuda").options
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    names = [name for name, _ in checks._smallest(options, ("fp16", "bf16"))]
    assert len(set(names)) == len(names) < 50
    assert set(names) >= {
        "gemm fp16", "gemm bf16", "sdpa-flash fp16", "sdpa-flash bf16", "sdpa-mem-efficient fp16",
        "sdpa-math fp16", "eager fp16", "sdpa-flash grouped fp16", "memory_bound",
        "compression random cuda-graph", "launch compiled call", "launch cuda-graph replay",
        "launch eager queued", "prefill eager ttft", "prefill cuda-graph ttft",
    }  # fmt: skip


def test_a_gpu_that_is_not_there_is_a_bad_request(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MeasureError, match="sees no GPU"):
        check(Request(Path(), device="cuda"), io.StringIO())
    assert main(["--check", "--device", "cuda"]) == 2
    assert "sees no GPU" in capsys.readouterr().err


def test_an_output_is_needed_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cpu"])
    assert "-o/--output" in capsys.readouterr().err


def test_the_attention_of_whole_models_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch prefers cuDNN's, a model would run another kernel than the one that is timed."""
    from torch.nn.attention import SDPBackend

    state = [True]
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: state[-1])
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", state.append)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device, dtype: zeros(1, dtype=dtype))
    flash, cudnn = int(SDPBackend.FLASH_ATTENTION), int(SDPBackend.CUDNN_ATTENTION)
    choose = lambda *tensors, is_causal: cudnn if state[-1] else flash  # noqa: E731
    monkeypatch.setattr(torch, "_fused_sdp_choice", choose)
    assert checks._chosen("cuda") == "FLASH_ATTENTION; torch's own choice is CUDNN_ATTENTION"
    assert state[-1] is True
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_, is_causal: int(SDPBackend.MATH))
    with pytest.raises(ValueError, match="whole models run MATH"):
        checks._chosen("cuda")


def test_cudnn_attention_is_off_while_measuring() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with _settings(1):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert "cudnn" not in describe_machine("cpu").settings["attention"]
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


WORKER = """
import os, signal, sys
from pathlib import Path
log = Path(sys.argv[1])
starts = len(log.read_text().splitlines()) if log.exists() else 0
with log.open("a") as file:
    file.write(" ".join(sys.argv[3:]) + chr(10))
then = sys.argv[2].split(",")[starts]
if then.startswith("-"):
    os.kill(os.getpid(), -int(then))
sys.exit(int(then))
"""


def _supervise(folder: Path, codes: str, **rest: Any) -> tuple[int, list[str]]:
    log = folder / "log"
    command = [sys.executable, "-c", WORKER, str(log), codes]
    code = supervise(command, rest.pop("budget_s", math.inf), io.StringIO(), **rest)
    return code, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("codes", "code", "starts"),
    [
        ("0", 0, 1),
        ("1", 1, 1),
        ("130", 130, 1),
        (f"{LOST_DEVICE},{-signal.SIGSEGV},{-signal.SIGABRT},0", 0, 4),
        (f"{-signal.SIGKILL},0", 128 + signal.SIGKILL, 1),
        (",".join([str(LOST_DEVICE)] * 9), 1, 5),
    ],
)
def test_lost_devices_and_crashes_are_started_anew(
    tmp_path: Path, codes: str, code: int, starts: int
) -> None:
    found, log = _supervise(tmp_path, codes, most=5)
    assert (found, len(log)) == (code, starts)


def test_all_starts_share_a_budget(tmp_path: Path) -> None:
    def times() -> Iterator[float]:
        yield from (0.0, 0.0, 40.0, 100.0)

    clock = times()
    found, log = _supervise(
        tmp_path, ",".join([str(LOST_DEVICE)] * 9), budget_s=100.0, clock=lambda: next(clock)
    )
    assert (found, log) == (0, ["--budget 100.0", "--budget 60.0"])


def test_a_signal_stops_what_is_measured(tmp_path: Path) -> None:
    """A time limit ends the process it started: rows of the other are written before it ends."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import time, pathlib, sys\n"
        "print('there', flush=True)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    code = (
        "import sys\nfrom costmodel.reference.harness.supervise import supervise\n"
        f"sys.exit(supervise([sys.executable, {str(worker)!r}], 60.0, sys.stderr))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "there\n"
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    assert time.monotonic() - start < 30
