"""What to measure, checked before anything runs."""

from __future__ import annotations

import importlib.util
import math
import re
from dataclasses import dataclass
from pathlib import Path

from .case import Options
from .choosing import condition
from .errors import MeasureError, unknown_name
from .inputs import DTYPES
from .registry import suite_names
from .timing import LEAST_SAMPLES

__all__ = ["Request"]

_QUICK = {"samples": 7, "seconds": 0.2, "cap_bytes": 64 << 20}
_FULL = {"samples": 30, "seconds": 1.0, "cap_bytes": 0}


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes
    ----------
    output : Path
        A folder, or a name that ends in ``.parquet``; see `.store.Layout`.
    device : str
        ``cpu``, ``cuda`` or ``cuda:1``.
    suites : tuple of str
        Names of `suite_names`; empty for all.
    dtypes : tuple of str
        Number formats; empty for fp32 on a CPU and fp16 on a GPU.
    models : tuple of str
        Presets of `..models.shapes`; empty for each suite's own choice.
    tokens : tuple of int
        Token counts; empty for each suite's own.
    where : tuple of str
        Which cases, as of `.choosing.chosen`; empty for all.
    quick : bool
        Small sizes and few samples, which take seconds on a CPU.
    repeat : int, optional
        Samples of each case; by default 30, quick 7.
    threads : int, optional
        Threads of torch on a CPU; torch's own choice by default.
    budget_s : float
        After which no case is started [s].
    source : str
        Who measured: the column of that name.
    seed : int
        Of random inputs.
    """

    output: Path
    device: str = "cpu"
    suites: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    where: tuple[str, ...] = ()
    quick: bool = False
    repeat: int | None = None
    threads: int | None = None
    budget_s: float = math.inf
    source: str = "costmodel measure"
    seed: int = 0

    @property
    def options(self) -> Options:
        """What suites make their cases from."""
        kind = self.device.partition(":")[0]
        dtypes = self.dtypes or (("fp16",) if kind == "cuda" else ("fp32",))
        return Options(kind, dtypes, self.models, self.tokens, self.quick)

    @property
    def samples(self) -> int:
        """Samples of each case."""
        return self.repeat or int((_QUICK if self.quick else _FULL)["samples"])

    @property
    def seconds(self) -> float:
        """What the samples of a case may take together [s]."""
        return (_QUICK if self.quick else _FULL)["seconds"]

    def cap_bytes(self, memory_bytes: int) -> int:
        """Return what the input sets of a case may occupy [B]: an eighth of the memory."""
        return int(_QUICK["cap_bytes"]) if self.quick else max(memory_bytes // 8, 256 << 20)

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises
        ------
        MeasureError
            Names the field, the value and the choices.
        """
        for name in self.suites:
            if name not in suite_names():
                raise unknown_name("suite", name, suite_names())
        for name in self.dtypes:
            if name not in DTYPES:
                raise unknown_name("dtype", name, DTYPES)
        for tokens in self.tokens:
            _at_least("tokens", tokens, 1)
        for text in self.where:
            condition(text)
        if self.repeat is not None:
            _at_least("repeat", self.repeat, LEAST_SAMPLES)
        if self.threads is not None:
            _at_least("threads", self.threads, 1)
        if not self.budget_s > 0:
            raise MeasureError(f"budget: {self.budget_s!r} is not a positive number of seconds")
        self._check_models()
        self._check_device()

    def _check_models(self) -> None:
        from ..models.shapes import load_shape

        for name in self.models:
            try:
                load_shape(name)
            except ValueError as error:
                raise MeasureError(str(error)) from None

    def _check_device(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", self.device):
            raise MeasureError(f"device: {self.device!r} is none of cpu, cuda, cuda:NUMBER")
        for needed in ("torch", "pyarrow"):
            if importlib.util.find_spec(needed) is None:
                raise MeasureError(f"measuring needs {needed}: pip install 'costmodel[measure]'")
        if self.device == "cpu":
            return
        import torch

        index = int(self.device.partition(":")[2] or 0)
        if not torch.cuda.is_available():
            raise MeasureError(
                f"device: {self.device!r} cannot be used: torch {torch.__version__} sees no GPU"
            )
        if index >= torch.cuda.device_count():
            raise MeasureError(
                f"device: {self.device!r} is not there; torch sees {torch.cuda.device_count()}"
            )


def _at_least(field: str, value: int, low: int) -> None:
    if value < low:
        raise MeasureError(f"{field}: {value} is not valid; expected a whole number from {low}")
