"""costmodel/reference stands alone: a copy of it runs wherever torch is installed."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path("costmodel", "reference")
ALLOWED = {"torch", "transformers", "numpy", "pandas", "pyarrow"} | sys.stdlib_module_names
ONLY_INSIDE_FUNCTIONS = {"sklearn"}

RUN = """
import sys
sys.modules["costmodel"] = None
from reference.methods import MethodCase, load_method, method_names
for name in ("random", "spatial", "cluster", "saliency", "avgpool"):
    method = load_method(name)
    assert name in method_names()
    made = method.prepare(MethodCase(2, 16, 4, 64))
    assert made.run().shape == (2, 4, 64), name
assert sys.modules["costmodel"] is None
print("ran")
"""


def imports(tree: ast.AST, nested: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Modules that a file imports: name, level of a relative import, and if inside a function."""
    for node in ast.iter_child_nodes(tree):
        inside = nested or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, inside
        yield from imports(node, inside)


def test_imports_are_seen() -> None:
    text = "import a.b\ndef f():\n    if x:\n        from .c import d\n"
    assert list(imports(ast.parse(text))) == [("a.b", 0, False), ("c", 1, True)]


def test_the_folder_imports_nothing_of_the_library(repo_root: Path) -> None:
    folder, wrong = repo_root / FOLDER, []
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 5
    for path in files:
        depth = len(path.relative_to(folder).parts)
        for name, level, inside in imports(ast.parse(path.read_text(encoding="utf-8"))):
            known = ALLOWED | (ONLY_INSIDE_FUNCTIONS if inside else set())
            if level > depth or (level == 0 and name.partition(".")[0] not in known):
                wrong.append(f"{path.relative_to(repo_root)}: {'.' * level}{name}")
    assert not wrong


def test_python_3_10_can_read_the_folder(repo_root: Path) -> None:
    """Of the versions that torch 2.4 to 2.13 run on, the oldest that GPU boxes still have."""
    for path in sorted((repo_root / FOLDER).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
        newer = {"Self", "StrEnum", "assert_never", "override", "tomllib", "UTC", "TaskGroup"}
        names = {alias.name for node in ast.walk(tree) for alias in getattr(node, "names", ())
                 if isinstance(alias, ast.alias)}  # fmt: skip
        assert not names & newer, path


def test_importing_the_library_leaves_the_folder_alone() -> None:
    code = (
        "import sys, costmodel\n"
        "print([m for m in sys.modules if m.startswith(('torch', 'costmodel.reference'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.verify
def test_a_copy_runs(repo_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra 'measure'")
    shutil.copytree(
        repo_root / FOLDER, tmp_path / "reference", ignore=shutil.ignore_patterns("__pycache__")
    )
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "ran", done.stderr
