"""The generated reference pages are what the code and data say now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["nomenclature.md", "methods.md", "devices.md", "models.md", "published-latencies.md"]
)
def test_page_is_fresh(generator: ModuleType, name: str) -> None:
    page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert page == generator.NOTICE + generator.PAGES[name](), "run: python docs/generate.py"


def test_every_page_is_checked(generator: ModuleType) -> None:
    on_disk = {path.name for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert on_disk == set(generator.PAGES)
