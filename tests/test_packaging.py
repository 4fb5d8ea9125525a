"""What is declared in pyproject.toml is what is on disk and what gets installed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import costmodel

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "tool"
]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]

# Optional parts that need an extra to be imported.
NEEDS_EXTRA = ("costmodel.reference", "costmodel.web")


def _folder(package: str) -> Path:
    """Folder of `package`, by the longest prefix that package-dir maps."""
    prefix = max((p for p in FOLDERS if f"{package}.".startswith(f"{p}.")), key=len)
    return ROOT.joinpath(FOLDERS[prefix], *package.removeprefix(prefix).split(".")[1:])


def _packages_on_disk() -> set[str]:
    found = set()
    for prefix, folder in FOLDERS.items():
        for marker in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([prefix, *marker.parent.relative_to(ROOT / folder).parts]))
    return found


def _python_files() -> Iterator[Path]:
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if not any(p.startswith(".venv") or p in {"build", "dist", ".git"} for p in parts):
            yield path


def _library_modules() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(costmodel.__path__, "costmodel.")]
    skipped = (*NEEDS_EXTRA, "costmodel.cli", "costmodel.hardware_profiles")
    return [
        "costmodel",
        *(n for n in names if not f"{n}.".startswith(tuple(f"{s}." for s in skipped))),
    ]


def test_declared_packages_are_the_folders_on_disk() -> None:
    """A forgotten package works in an editable install and is missing from the wheel."""
    assert set(SETUPTOOLS["packages"]) == _packages_on_disk()


def test_declared_packages_are_sorted_and_unique() -> None:
    assert SETUPTOOLS["packages"] == sorted(set(SETUPTOOLS["packages"]))


def test_every_python_file_lies_in_a_package() -> None:
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def test_every_data_file_is_declared() -> None:
    globs: dict[str, list[str]] = SETUPTOOLS["package-data"]
    declared = {
        f for package, patterns in globs.items() for p in patterns for f in _folder(package).glob(p)
    }
    present = {
        path
        for folder in FOLDERS.values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert {str(p.relative_to(ROOT)) for p in present - declared} == set()


@pytest.mark.parametrize(
    ("package", "pattern"),
    [("costmodel.catalog.models", "*.json"), ("costmodel.hardware_profiles", "*.yaml")],
)
def test_catalog_and_profiles_are_package_data(package: str, pattern: str) -> None:
    assert pattern in SETUPTOOLS["package-data"][package]
    assert list(_folder(package).glob(pattern)), f"{package} holds no {pattern}"


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nobody_imports_the_cli_by_an_absolute_name() -> None:
    """`cli` is importable only from the root of a clone, `costmodel.cli` only once installed."""
    offenders = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in _python_files()
        for name in _imported_names(ast.parse(path.read_text(encoding="utf-8")))
        if f"{name}.".startswith(("cli.", "costmodel.cli."))
    ]
    assert offenders == []


def test_console_script_loads() -> None:
    (script,) = entry_points(group="console_scripts", name="costmodel")
    assert callable(script.load())


@pytest.fixture(scope="module", params=_library_modules())
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_public_names_exist(module: ModuleType) -> None:
    """Their order is checked by ruff (RUF022)."""
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []


def test_public_objects_are_documented(module: ModuleType) -> None:
    undocumented = [
        name
        for name in getattr(module, "__all__", [])
        if (inspect.isclass(thing := getattr(module, name)) or inspect.isroutine(thing))
        and not inspect.getdoc(thing)
    ]
    assert undocumented == []
