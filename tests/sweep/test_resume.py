"""A sweep that is killed goes on where it stopped, with nothing lost or doubled."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from costmodel.errors import InputError, SpecError
from costmodel.sweep import running
from costmodel.sweep.executors import one_by_one

Command = Callable[..., "subprocess.Popen[bytes]"]
Wait = Callable[..., None]

SMALL: dict[str, Any] = {
    "model": "llava-1.5-7b", "gpus": ["a40", "a30", "l4", "l40s"],
    "methods": ["none", "stf", "mbtf"],
    "text_tokens": [16, 17, 64], "time_model": "ideal", "outputs": "ttft_s",
}  # fmt: skip
"""Twelve blocks: two parts."""


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sweep fail after some parts."""
    whole = one_by_one

    def few(job: Any, tasks: Any) -> Any:
        for index, part in enumerate(whole(job, tasks)):
            if index == parts:
                raise SpecError("stopped")
            yield part

    monkeypatch.setattr(running, "one_by_one", few)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_killed_and_resumed_is_the_same_file(
    large: Path, tmp_path: Path, suffix: str, run_command: Command, wait_for_parts: Wait
) -> None:
    whole, output = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    spec = large
    if suffix == ".csv":
        # Text is slow to write: fewer points.
        data = yaml.safe_load(large.read_text()) | {"methods": "none", "outputs": "ttft_s"}
        data["text_tokens"] = {"range": [1, 90_000, 1]}
        spec = tmp_path / "csv.yaml"
        spec.write_text(yaml.safe_dump(data))
    running.run_sweep(spec, whole)
    process = run_command("sweep", str(spec), "-o", str(output))
    wait_for_parts(output, 1, process)
    process.kill()
    assert process.wait() == -9
    process.communicate()
    assert not output.exists()
    again = run_command("sweep", str(spec), "-o", str(output), "--resume", "--format", "json")
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert b'"resumed": 0' not in printed
    assert output.read_bytes() == whole.read_bytes()
    left = {
        path.name for path in tmp_path.iterdir() if "journal" in path.name or "partial" in path.name
    }
    assert not left


@pytest.mark.parametrize(
    "harm", ["half a line", "half a part", "a changed byte", "a part too many"]
)
def test_what_the_journal_does_not_vouch_for_is_computed_again(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    running.run_sweep(SMALL, whole)
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        with pytest.raises(SpecError, match="stopped"):
            running.run_sweep(SMALL, output)
    partial, journal = (tmp_path / f"out.parquet.{name}" for name in ("partial", "journal"))
    assert journal.read_bytes().count(b"\n") == 2
    kept = 24
    if harm == "half a line":
        with journal.open("ab") as file:
            file.write(b'{"position": 99, "si')
    elif harm == "half a part":
        partial.write_bytes(partial.read_bytes()[:-10])
        kept = 0
    elif harm == "a changed byte":
        data = bytearray(partial.read_bytes())
        data[100] ^= 1
        partial.write_bytes(data)
        kept = 0
    else:
        with partial.open("ab") as file:
            file.write(b"not in the journal")
    summary = running.run_sweep(SMALL, output, resume=True)
    assert summary.resumed == kept
    assert output.read_bytes() == whole.read_bytes()


def test_another_spec_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.parquet"
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        with pytest.raises(SpecError):
            running.run_sweep(SMALL, output)
    before = output.with_name("out.parquet.partial").read_bytes()
    with pytest.raises(InputError, match="the spec and version that the unfinished result"):
        running.run_sweep(SMALL | {"text_tokens": 99}, output, resume=True)
    assert output.with_name("out.parquet.partial").read_bytes() == before
    # Without resume it begins again.
    assert running.run_sweep(SMALL | {"text_tokens": 99}, output).points == 12


def test_resume_without_an_earlier_run_begins(tmp_path: Path) -> None:
    summary = running.run_sweep(SMALL, tmp_path / "out.csv", resume=True)
    assert (summary.points, summary.resumed) == (36, 0)


def test_old_result_stays_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.parquet"
    output.write_bytes(b"old")
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        with pytest.raises(SpecError):
            running.run_sweep(SMALL, output)
    assert output.read_bytes() == b"old"
    running.run_sweep(SMALL, output, resume=True)
    assert output.read_bytes()[:4] == b"PAR1"
