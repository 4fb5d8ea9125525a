"""What `measure` does where the device is: order, time, failures, what comes home."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

HARNESS = """
import pathlib, sys, time
if "--check" in sys.argv:
    print("ok    machine")
    sys.exit(0)
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
suite, out = words["--suite"], pathlib.Path(words["-o"])
out.mkdir(exist_ok=True)
(out / f"{suite}.jsonl").write_text(" ".join(sys.argv[1:]))
print("measuring", suite, flush=True)
if suite == "attention":
    sys.exit(1)
while suite == "launch":
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted, rows are kept")
        sys.exit(130)
"""


@pytest.fixture
def session(loop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a harness that only says what it was asked."""
    module = loop("session")
    fake = tmp_path / "harness"
    fake.mkdir()
    (fake / "__init__.py").touch()
    (fake / "__main__.py").write_text(HARNESS, encoding="utf-8")
    monkeypatch.setattr(module, "REFERENCE", fake)
    monkeypatch.setattr(module, "_GRACE_S", 0.0)
    monkeypatch.setattr(module, "_STOP_S", 2.0)
    monkeypatch.setattr(module, "_LEAST_S", 0.1)
    return module


def ran(session: Any, steps: Any, work: Path, seconds: float, **rest: Any) -> Any:
    work.mkdir(exist_ok=True)
    options = session.Options(work=work, minutes=seconds / 60, device="cpu", **rest)
    return session.run_session(steps, options)


def test_a_step_that_fails_or_hangs_does_not_stop_the_next(
    session: Any, loop: Any, tmp_path: Path
) -> None:
    step = loop("plan").Step
    steps = [step("attention", "attention", 1), step("launch", "launch", 1),
             step("gemm", "gemm", 20, tokens=(40, 128))]  # fmt: skip
    start = time.monotonic()
    results = ran(session, steps, tmp_path / "work", 12.0, run=2, quick=False)
    assert time.monotonic() - start < 14
    codes = {one.name: one.code for one in results}
    assert codes == {"check": 0, "smoke": 0, "attention": 1, "launch": 130, "gemm": 0}
    (launch,) = (one for one in results if one.name == "launch")
    assert launch.lines == ["measuring launch", "interrupted, rows are kept"]
    asked = (tmp_path / "work" / "timings" / "gemm.jsonl").read_text(encoding="utf-8")
    assert "--tokens 40,128" in asked
    assert "--seed 1" in asked
    assert "--model llava-1.5-7b" in asked
    tried = (tmp_path / "work" / "trial" / "attention,launch,gemm.jsonl").read_text("utf-8")
    assert tried.endswith("--quick")


def test_what_there_is_no_time_for_is_said(session: Any, loop: Any, tmp_path: Path) -> None:
    steps = [loop("plan").Step("gemm", "gemm", 1)]
    results = ran(session, steps, tmp_path / "work", 2.0)
    assert results[-1].lines == ["no time left"]
    assert results[-1].code is None


def test_sessions_of_one_folder_follow_each_other(session: Any, loop: Any, tmp_path: Path) -> None:
    steps = [loop("plan").Step("gemm", "gemm", 1)]
    for commit in ("a", "b"):
        ran(session, steps, tmp_path / "work", 6.0, commit=commit)
    found = json.loads((tmp_path / "work" / "session.json").read_text(encoding="utf-8"))
    assert [one["options"]["commit"] for one in found] == ["a", "b"]
    assert [len(one["steps"]) for one in found] == [3, 3]


def test_archives_hold_what_was_measured_and_no_program(loop: Any, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("timings/gemm.parquet", "logs/gemm.log", "session.json", "timings/x.tmp"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name, encoding="utf-8")
    (work / "reference").symlink_to(ROOT / "costmodel" / "reference")
    size = loop("packing").pack(work, tmp_path / "run.tar.gz")
    assert size == (tmp_path / "run.tar.gz").stat().st_size
    loop("packing").unpack(tmp_path / "run.tar.gz", tmp_path / "home")
    found = {str(p.relative_to(tmp_path / "home")) for p in (tmp_path / "home").rglob("*.*")}
    assert found == {"timings/gemm.parquet", "logs/gemm.log", "session.json"}


def test_an_unknown_step_is_named(loop: Any) -> None:
    with pytest.raises(ValueError, match="only: 'lunch' is none of attention, blocks"):
        loop("plan").steps_for("llava-1.5-7b", ["lunch"])


def test_small_models_have_no_larger_sister(loop: Any) -> None:
    steps = loop("plan").steps_for("llava-tiny")
    assert not any(step.model for step in steps)
    assert steps[0].tokens == (40, 128)


def test_measuring_imports_nothing_of_the_package() -> None:
    code = "import sys; sys.modules['costmodel'] = None; import benchmarks.gpu_loop"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_without_a_command_it_says_how(repo_root: Path) -> None:
    script = repo_root / "benchmarks" / "gpu_loop.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "measure" in done.stdout
    assert "report" in done.stdout
