"""docs/timings.md: its examples run, and no column or format is missing from it."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from costmodel.calibration.formats import list_sources
from costmodel.calibration.physics import FAST, FLOOR_S, MIN_ROWS, PEAK_MARGIN, SLOW
from costmodel.calibration.schema import KINDS


def test_examples(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo_root)
    found = doctest.testfile(
        str(repo_root / "docs" / "timings.md"),
        module_relative=False,
        globs={"folder": tmp_path},
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert found.attempted > 8
    assert found.failed == 0


def test_everything_is_documented(repo_root: Path) -> None:
    text = (repo_root / "docs" / "timings.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)))
    columns = {name for kind in KINDS.values() for name in kind.names}
    assert columns | set(KINDS) | set(list_sources()) <= named
    numbers = (f"{100 * (PEAK_MARGIN - 1):.0f} %", f"{SLOW:.0f}", f"1/{1 / FAST:.0f}")
    for number in (*numbers, f"{MIN_ROWS} rows", f"{FLOOR_S * 1e6:.0f} us"):
        assert number in text


def test_importing_the_reader_imports_no_data_frames() -> None:
    code = (
        "import sys, costmodel.calibration.loading; print({'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
