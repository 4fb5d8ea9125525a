"""Build sdist -> wheel, install the wheel into a fresh environment, use it outside the clone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ESTIMATE = "estimate llava-1.5-7b --gpu a100-80gb-sxm --text-tokens 64 --compress cluster:k=64"
# Isolated (-I) so that neither the working folder nor PYTHONPATH can supply the package.
WHERE = "import costmodel; print(costmodel.__file__)"


def run(*command: str | Path, cwd: Path) -> str:
    """Run `command` and return its standard output; stop with its output if it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"failed with {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def expected_files() -> set[str]:
    """Names that the wheel must hold, derived from the folders of the clone."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = set()
    for package, folder in config["tool"]["setuptools"]["package-dir"].items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                relative = path.relative_to(ROOT / folder).as_posix()
                names.add(f"{package.replace('.', '/')}/{relative}")
    return names


def check_contents(wheel: Path) -> None:
    """Compare the files of the wheel with those of the clone."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = expected_files()
    if names != expected:
        raise SystemExit(
            f"missing from the wheel: {sorted(expected - names)}\n"
            f"unexpected in the wheel: {sorted(names - expected)}"
        )
    print(f"{wheel.name}: {len(names)} files, as in the clone")


def main() -> None:
    """Build, install and use."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        run(sys.executable, "-m", "build", "--outdir", scratch / "dist", ROOT, cwd=scratch)
        (wheel,) = (scratch / "dist").glob("*.whl")
        check_contents(wheel)

        environment = scratch / "venv"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        command = environment / "bin" / "costmodel"
        constraints = ROOT / "constraints.txt"
        run(python, "-m", "pip", "install", "-q", "-c", constraints, wheel, cwd=scratch)

        location = Path(run(python, "-I", "-c", WHERE, cwd=scratch).strip())
        if not location.is_relative_to(environment) or "site-packages" not in location.parts:
            raise SystemExit(f"costmodel was imported from {location}")
        print(f"imported from {location.relative_to(scratch)}")

        run(command, "--help", cwd=scratch)
        print(f"costmodel gpus: {len(run(command, 'gpus', cwd=scratch).splitlines())} lines")
        estimate = json.loads(run(command, *ESTIMATE.split(), "--format", "json", cwd=scratch))
        missing = {"schema_version", "inputs", "flops", "time_s", "baseline"} - set(estimate)
        if missing:
            raise SystemExit(f"the estimate lacks {sorted(missing)}")
        print(f"costmodel {ESTIMATE}: TTFT {estimate['time_s']['ttft'] * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
