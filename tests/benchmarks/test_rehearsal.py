"""Both commands on this machine's processor, from the first kernel to the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'measure'")
pytest.importorskip("transformers", reason="needs the extra 'measure'")
pytest.importorskip("scipy", reason="needs the extra 'fit'")

pytestmark = pytest.mark.verify


def test_measure_go_on_and_report(repo_root: Path, tmp_path: Path) -> None:
    def call(*words: str | Path) -> str:
        script = repo_root / "benchmarks" / "gpu_loop.py"
        done = subprocess.run(
            [sys.executable, script, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    asked = ("--minutes", "1", "--device", "cpu", "--model", "llava-tiny", "--quick",
             "--threads", "1", "--only", "gemm", "--only", "prefill-first")  # fmt: skip
    # Copies tell the bandwidth, without which a processor has no profile.
    shown = call("measure", "--out", tmp_path, *asked, "--only", "memory_bound")
    assert "fastest product" in shown
    assert "llava-tiny eager, 40 tokens: first token" in shown
    archive = tmp_path / "run1.tar.gz"
    elsewhere = tmp_path / "elsewhere"
    shown = call("measure", "--out", elsewhere, "--resume", archive, *asked)
    assert "0 measured" in shown
    shown = call("report", archive, elsewhere / "run1.tar.gz", "-o", tmp_path / "report")
    assert "report.md" in shown
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "| gemm |" in page
    assert "| llava-tiny | eager | 40 |" in page
    assert "### Clustering against what it saves" in page
