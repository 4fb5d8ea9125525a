"""Studies run by name, one failing without the others."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.catalog.hardware import list_gpus, load_gpu
from costmodel.errors import InputError, UnsupportedError
from costmodel.studies.study import Finding, Progress, Study, load_study

__all__ = ["Outcome", "run_studies", "run_study"]

_PLURALS = {"model": "models", "gpus": "gpus", "runtime": "runtimes"}


@dataclass(frozen=True)
class Outcome:
    """What became of one study.

    Attributes
    ----------
    name : str
    study : Study
    finding : Finding or None
        None if it failed.
    problem : str
        Why it failed; empty if it did not.
    wall_s : float
        How long it ran [s].
    """

    name: str
    study: Study
    finding: Finding | None
    problem: str
    wall_s: float


def run_study(name: str, options: Mapping[str, Any] | None = None) -> Outcome:
    """Run one study.

    Parameters
    ----------
    name : str
        Name of a study.
    options : mapping, optional
        ``model`` (str), ``gpus`` (sequence of str) and ``runtime`` (str) instead of the study's
        own; empty values are left out.

    Returns
    -------
    Outcome

    Raises
    ------
    UnknownNameError
        If there is no such study.
    UnsupportedError
        If the study has no such option.
    CostModelError
        If a value is not valid.
    """
    study = load_study(name)
    given = _arguments(name, study, options or {})
    start = time.perf_counter()
    finding = study.run(**given)
    return Outcome(name, study, finding, "", time.perf_counter() - start)


def run_studies(
    names: Sequence[str],
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Run several studies; one that fails is reported and the others go on.

    Parameters
    ----------
    names : sequence of str
        Names of studies.
    options : mapping, optional
        As in `run_study`; a study keeps its own values of options that it does not take.
    progress : callable, optional
        Told the name of each study before it runs, its number and how many there are.

    Returns
    -------
    list of Outcome
        In the order of the names.
    """
    found = []
    for index, name in enumerate(names):
        if progress is not None:
            progress(name, index, len(names))
        study = load_study(name)
        start = time.perf_counter()
        try:
            taken = {key: value for key, value in (options or {}).items() if _parameter(study, key)}
            found.append(run_study(name, taken))
        # Whatever is wrong with one study is its outcome, so that the others are not lost.
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            found.append(Outcome(name, study, None, text, time.perf_counter() - start))
    return found


def _parameter(study: Study, option: str) -> str | None:
    """Return the study's own name of an option, singular or plural."""
    known = inspect.signature(study.run).parameters
    return next((name for name in (option, _PLURALS[option]) if name in known), None)


def _arguments(name: str, study: Study, options: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for option, value in options.items():
        if not value:
            continue
        parameter = _parameter(study, option)
        if parameter is None:
            taken = [f"--{key.rstrip('s')}" for key in _PLURALS if _parameter(study, key)]
            raise UnsupportedError(
                option.rstrip("s"), value,
                f"no value: the study {name} takes {' and '.join(taken) or 'no options'}",
            )  # fmt: skip
        named = _gpus(value) if option == "gpus" else value
        arguments[parameter] = (named,) if parameter != option else named
    return arguments


def _gpus(names: Sequence[str]) -> tuple[str, ...]:
    """Return GPUs by the names of their profiles, so that tables have no aliases."""
    known = list_gpus()
    profiles = [load_gpu(name).name for name in names]
    found = tuple(
        profile if profile in known else name for name, profile in zip(names, profiles, strict=True)
    )
    if len(set(found)) != len(found):
        raise InputError("gpu", ",".join(names), "each GPU once")
    return found
