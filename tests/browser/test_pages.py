"""Pages as a browser sees them: they draw, report no error, and need no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=15000", "--dump-dom",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

PAGES = {
    "roofline": "roofline llava-1.5-7b --gpu rtx-a6000 -o {page}",
    "reproduce": "reproduce m3 -o {page}",
    "heat map": "figure overhead-heatmap llava-1.5-7b --gpu rtx-a6000 -o {page}",
    "bars": "figure stages llava-1.5-7b --gpu rtx-a6000 -o {page}",
    "study": "study end-to-end -o {page}",
}
DRAWN = {"roofline": 1, "reproduce": 0, "heat map": 1, "bars": 1, "study": 1}
"""Plots of each page; the others are tables."""


class Seen(HTMLParser):
    """What a document holds: plots, and addresses that it loads something from."""

    def __init__(self) -> None:
        super().__init__()
        self.plots = 0
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.plots += "cartesianlayer" in (found.get("class") or "").split()
        source = found.get("href" if tag == "link" else "src") or ""
        if "://" in source or source.startswith("//"):
            self.loaded.append(source)


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[str, list[str]]]:
    """Open a page; return the document after its scripts ran, and what the console said."""
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip("no browser: chromium is not installed")
    profile = tmp_path_factory.mktemp("browser")

    def invoke(page: Path) -> tuple[str, list[str]]:
        done = subprocess.run(
            [found[0], *OPTIONS, f"--user-data-dir={profile}", page.as_uri()],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, "HOME": str(profile)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]

    return invoke


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a page by its command line."""
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="costmodel")
    folder = tmp_path_factory.mktemp("pages")

    def invoke(name: str) -> Path:
        page = folder / f"{name.replace(' ', '-')}.html"
        words = PAGES[name].format(page=page).split()
        result = CliRunner().invoke(script.load(), words, prog_name="costmodel")
        assert result.exit_code == 0, result.output
        return page

    return invoke


@pytest.mark.parametrize("name", PAGES)
def test_page_draws_without_errors_or_network(
    name: str,
    made: Callable[[str], Path],
    opened: Callable[[Path], tuple[str, list[str]]],
) -> None:
    document, console = opened(made(name))
    assert not console
    seen = Seen()
    seen.feed(document)
    # Plotly marks the layer that it draws axes and traces in.
    assert seen.plots >= DRAWN[name]
    assert seen.loaded == []


def test_a_broken_page_is_found(
    tmp_path: Path, opened: Callable[[Path], tuple[str, list[str]]]
) -> None:
    page = tmp_path / "broken.html"
    page.write_text('<script src="https://example.org/a.js"></script><script>missing()</script>')
    document, console = opened(page)
    assert any("missing is not defined" in line for line in console)
    seen = Seen()
    seen.feed(document)
    assert seen.loaded == ["https://example.org/a.js"]
