"""What a sweep covers, read from YAML: every field checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict

from costmodel.errors import InputError, SpecError
from costmodel.specs.base import Spec
from costmodel.specs.workload import MAX_BATCH, MAX_TOKENS
from costmodel.sweep.axes import Between, Numbers, parse_numbers
from costmodel.sweep.columns import resolve_outputs
from costmodel.sweep.names import known_names, options_of

__all__ = ["Sample", "SweepSpec", "load_spec"]

_ALIASES = {
    "models": "model", "gpus": "gpu", "methods": "method", "compress": "method",
    "images": "image", "batches": "batch", "text_token": "text_tokens", "text": "text_tokens",
    "output_token": "output_tokens", "retentions": "retention", "dtypes": "dtype",
    "weights_dtypes": "weights_dtype", "kv_dtypes": "kv_dtype", "runtimes": "runtime",
    "attentions": "attention", "tps": "tp", "time_models": "time_model",
    "calibrations": "calibration", "outputs": "outputs", "output": "outputs",
    "columns": "outputs", "kept": "visual_tokens_kept", "band": "bands", "gpu_count": "tp",
}  # fmt: skip
_NUMBERS: dict[str, tuple[float, float, bool]] = {
    "batch": (1, MAX_BATCH, True),
    "text_tokens": (1, MAX_TOKENS, True),
    "visual_tokens_kept": (1, MAX_TOKENS, True),
    "retention": (1e-9, 1.0, False),
}
_SAMPLED = ("batch", "text_tokens", "visual_tokens_kept", "retention")
_MOST_SAMPLED = 100_000_000


class Sample(Spec):
    """A sampled design over the axes given as bounds.

    Attributes
    ----------
    latin_hypercube : int
        Points of the design, the same for every combination of the other axes.
    seed : int
        Of its random numbers.
    """

    latin_hypercube: int
    seed: int = 0


class SweepSpec(Spec):
    """A sweep; every axis in the order given, each value once.

    Attributes
    ----------
    model, gpu : tuple of str
        Names or paths.
    method : tuple of str
        ``METHOD:key=value,...``, chains with ``then``; ``none`` for none.
    image : tuple of (str, ...)
        Sizes of the images of a request; empty for the model's default.
    visual_tokens, output_tokens, tp : tuple of int
        As the options of `costmodel.estimate`.
    batch, text_tokens : Numbers
        Values or bounds.
    visual_tokens_kept : Numbers, optional
        Visual tokens that each image keeps.
    retention : Numbers, optional
        The same as shares of what the images give.
    dtype, weights_dtype, kv_dtype, runtime, attention, time_model, calibration : tuple of str
        As the options of `costmodel.estimate`.
    sample : Sample, optional
        Design over the axes with bounds.
    outputs : tuple of str
        Columns that are computed.
    precision : {"float64", "float32"}
        Of times.
    given : tuple of str
        Axes that the file names; they become columns.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: tuple[str, ...]
    gpu: tuple[str, ...]
    method: tuple[str, ...] = ("none",)
    image: tuple[tuple[str, ...], ...] = ((),)
    visual_tokens: tuple[int | None, ...] = (None,)
    output_tokens: tuple[int, ...] = (0,)
    batch: Any = (1,)
    text_tokens: Any
    visual_tokens_kept: Any = None
    retention: Any = None
    dtype: tuple[str, ...] = ("fp16",)
    weights_dtype: tuple[str | None, ...] = (None,)
    kv_dtype: tuple[str | None, ...] = (None,)
    runtime: tuple[str, ...] = ("cuda-graph",)
    attention: tuple[str, ...] = ("flash",)
    tp: tuple[int, ...] = (1,)
    time_model: tuple[str | None, ...] = (None,)
    calibration: tuple[str | None, ...] = (None,)
    sample: Sample | None = None
    outputs: tuple[str, ...] = ()
    precision: Literal["float64", "float32"] = "float64"
    given: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, Numbers]:
        """Axes of numbers that vary within a block."""
        found = {name: getattr(self, name) for name in _SAMPLED}
        return {name: values for name, values in found.items() if values is not None}

    @property
    def resolved(self) -> dict[str, Any]:
        """The spec as plain data: what the metadata of a result hold."""
        plain: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Between):
                value = {"log_between" if value.log else "between": [value.low, value.high]}
            plain[name] = value.model_dump() if isinstance(value, Sample) else value
        return {name: value for name, value in plain.items() if value is not None}

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved spec."""
        return hashlib.sha256(json.dumps(self.resolved, sort_keys=True).encode()).hexdigest()


def load_spec(source: str | os.PathLike[str] | Mapping[str, Any]) -> SweepSpec:
    """Read and check a sweep's spec.

    Parameters
    ----------
    source : path or mapping
        A YAML file, or what it would hold.

    Returns
    -------
    SweepSpec

    Raises
    ------
    CostModelError
        With one line that names the field, the value and the choices.

    Examples
    --------
    >>> spec = load_spec({"model": "llava-1.5-7b", "gpus": ["a40"], "text_tokens": [16, 32]})
    >>> spec.gpu, spec.text_tokens, spec.method
    (('a40',), (16, 32), ('none',))
    """
    if isinstance(source, Mapping):
        where, data = "spec", dict(source)
    else:
        where = os.fspath(source)
        data = _read(where)
    return _checked(data, where)


def _read(path: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("spec", path, f"a YAML file that can be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{path}: no valid YAML: {reason}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected a mapping of keys, got {type(data).__name__}")
    return data


def _checked(data: dict[str, Any], where: str) -> SweepSpec:
    fields: dict[str, Any] = {}
    for key, value in data.items():
        name = _ALIASES.get(str(key), str(key))
        if name in fields:
            raise SpecError(f"{where}: {name!r} is given twice, as {key!r} too")
        fields[name] = value
    bands = fields.pop("bands", False)
    if not isinstance(bands, bool):
        raise InputError("bands", bands, "true or false")
    known = set(SweepSpec.model_fields) - {"given"} | {"bands"}
    if unknown := [name for name in fields if name not in known]:
        from costmodel.errors import did_you_mean

        close = did_you_mean(unknown[0], [*known, *_ALIASES])
        guess = f", did you mean {close!r}?" if close else ""
        raise SpecError(
            f"{where}: unknown key {unknown[0]!r}{guess} (known: {', '.join(sorted(known))})"
        )
    for name in ("model", "gpu", "text_tokens"):
        if fields.get(name) is None:
            raise SpecError(f"{where}: missing key {name!r}")
    fields = {name: value for name, value in fields.items() if value is not None}
    if "retention" in fields and "visual_tokens_kept" in fields:
        raise SpecError(f"{where}: give retention or visual_tokens_kept, not both")
    if "image" in fields and "visual_tokens" in fields:
        raise SpecError(f"{where}: give images or visual_tokens, not both")
    given = tuple(name for name in SweepSpec.model_fields if name in fields)
    for name, (low, high, whole) in _NUMBERS.items():
        if name in fields:
            fields[name] = parse_numbers(name, fields[name], low=low, high=high, whole=whole)
    fields |= options_of(fields)
    known_names(fields)
    outputs = fields.get("outputs", [])
    fields["outputs"] = resolve_outputs(
        [outputs] if isinstance(outputs, str) else list(outputs),
        bands=bands, decodes=any(fields.get("output_tokens", (0,))),
    )  # fmt: skip
    spec = SweepSpec.parse(fields | {"given": given}, where)
    _check_sample(spec, where)
    return spec


def _check_sample(spec: SweepSpec, where: str) -> None:
    bounds = [name for name, values in spec.numbers.items() if isinstance(values, Between)]
    if spec.sample is None and bounds:
        raise SpecError(f"{where}: {bounds[0]} has bounds; add sample: {{latin_hypercube: N}}")
    if spec.sample is not None:
        if not bounds:
            raise SpecError(f"{where}: sample needs an axis given as {{between: [low, high]}}")
        count = spec.sample.latin_hypercube
        if not 1 <= count <= _MOST_SAMPLED:
            raise InputError(
                "sample latin_hypercube", count, f"a whole number from 1 to {_MOST_SAMPLED:,}"
            )
        if spec.sample.seed < 0:
            raise InputError("sample seed", spec.sample.seed, "a whole number of at least 0")
