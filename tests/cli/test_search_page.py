"""docs/search.md shows what the commands print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```\n\$ costmodel (.*)\n((?:(?!```).*\n)*)```$", PAGE, re.MULTILINE)


def test_the_page_shows_every_command() -> None:
    assert {words.split()[0] for words, _ in SHOWN} == {"breakeven", "sensitivity", "search"}


@pytest.mark.parametrize(("words", "output"), SHOWN, ids=[words.split()[0] for words, _ in SHOWN])
def test_shown_output_is_real(
    ok: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(words)
    if arguments[0] == "search":
        (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        exec(code, {})
    assert [line.rstrip() for line in ok(*arguments).splitlines()] == output.rstrip().splitlines()
