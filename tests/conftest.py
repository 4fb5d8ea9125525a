"""Settings and fixtures of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
ON_CI = os.environ.get("CI", "").lower() in {"1", "true"}

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if ON_CI else "local")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Root of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of reference data beside the clone; skip where there is none."""
    if not SHARED.is_dir():
        pytest.skip("no reference data: the folder ../shared is not beside the clone")
    return SHARED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped test that has its reference data, on CI: a skip would hide the comparison."""
    report = yield
    has_data = "shared_dir" in getattr(item, "fixturenames", ()) and SHARED.is_dir()
    if ON_CI and has_data and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI although ../shared is there: {report.longrepr}"
    return report
