"""One file to bring home, and a summary to read at once."""

from __future__ import annotations

import collections
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pack", "summary_lines", "unpack"]

_ENDINGS = {".parquet", ".json", ".jsonl", ".yaml", ".log"}
_MOST_REASONS = 12


def pack(work: Path, archive: Path) -> int:
    """Write all timings, records and logs of a folder into one archive, as a whole or not at all.

    Returns
    -------
    int
        Its size [B].
    """
    temporary = archive.with_name(f".{archive.name}.tmp")
    with tarfile.open(temporary, "w:gz") as tar:
        for path in sorted(work.rglob("*")):
            within = path.relative_to(work)
            if path.suffix in _ENDINGS and within.parts[0] != "reference" and path.is_file():
                tar.add(path, arcname=str(within))
    temporary.replace(archive)
    return archive.stat().st_size


def unpack(archive: Path, folder: Path) -> None:
    """Put the files of an archive of `pack` into a folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def summary_lines(work: Path) -> list[str]:
    """Return what was measured in words: counts, failures with reasons, medians of a few cases.

    Parameters
    ----------
    work : Path
        Folder of a session.
    """
    import pandas as pd

    frames = {
        path.stem: pd.read_parquet(path) for path in sorted((work / "timings").glob("*.parquet"))
    }
    if not frames:
        return ["nothing was measured"]
    first = next(iter(frames.values()))
    lines = [f"device {first['gpu'].iloc[0]}, {first['software'].iloc[0]}"]
    lines += ["", "rows", *_counts(frames)]
    lines += ["", "failures", *_failures(work / "timings"), *_failures(work / "trial", "trial: ")]
    lines += ["", "medians", *_medians(frames)]
    return lines


def _counts(frames: dict[str, pd.DataFrame]) -> Iterator[str]:
    for kind, frame in frames.items():
        spread = 100 * (frame["time_us_std"] / frame["time_us_mean"]).median()
        yield f"  {kind:20s} {len(frame):5d}, median spread {spread:.1f} %"
        if kind == "whole_model":
            names = frame["model"] + " " + frame["runtime"] + " " + frame["stage"]
            yield from (f"    {name}: {n}" for name, n in names.value_counts(sort=False).items())


def _failures(folder: Path, prefix: str = "") -> Iterator[str]:
    path = folder / "failures.jsonl"
    if not path.exists():
        return
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    counted = collections.Counter((entry["suite"], entry["reason"]) for entry in entries)
    for (suite, reason), count in counted.most_common(_MOST_REASONS):
        yield f"  {prefix}{suite}, {count} times: {reason[:300]}"


def _medians(frames: dict[str, pd.DataFrame]) -> Iterator[str]:
    if (rows := frames.get("whole_model")) is not None:
        rows = rows[(rows["stage"] == "ttft") & rows["prompt_tokens"].notna()]
        plain = rows[(rows["batch"] == 1) & rows["compress"].str.match("random|$")]
        for row in plain.sort_values(["model", "runtime", "prompt_tokens"]).to_dict("records"):
            yield (
                f"  {row['model']} {row['runtime']}, {row['prompt_tokens']:.0f} tokens: "
                f"first token {row['time_us'] / 1e3:.2f} ms"
            )
    if (rows := frames.get("gemm")) is not None:
        rate = 2e-6 * (rows["m"] * rows["n"] * rows["k"] / rows["time_us"]).max()
        yield f"  fastest product: {rate:.1f} TFLOP/s"
    if (rows := frames.get("launch")) is not None:
        for row in rows.to_dict("records"):
            yield f"  {row['runtime']} {row['op']} {row['kernels']}: {row['time_us']:.2f} us"
