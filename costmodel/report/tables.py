"""An estimate as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from costmodel.report.conventions import convention_tables
from costmodel.report.stages import StageCost, stage_costs
from costmodel.report.text import bullets, facts, quantity, ratio, table
from costmodel.results import Estimate, OpRow

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["estimate_tables", "headline", "op_tables"]

_LABELS = {
    "llm_linear": "  all but attention",
    "llm_attention": "  attention",
    "total": "total = TTFT",
}


def headline(result: Estimate) -> str:
    """Return one line that says what was estimated.

    Examples
    --------
    >>> from costmodel.estimation import estimate
    >>> headline(estimate("llava-1.5-7b", "a40", text_tokens=64)).split(",")[0]
    'llava-1.5-7b on a40: 1 x (576 visual + 64 text tokens)'
    """
    inputs, tokens = result.inputs, result.tokens
    visual = f"{tokens['visual_in']:,} visual + " if tokens["visual_in"] else ""
    formats = inputs["dtype"]
    for name, label in (("weights_dtype", "weights"), ("kv_dtype", "KV")):
        if inputs[name] != inputs["dtype"]:
            formats += f" ({label} {inputs[name]})"
    devices = f", {inputs['tp']} devices" if inputs["tp"] > 1 else ""
    return (
        f"{inputs['model']} on {inputs['gpu']}{devices}: {inputs['batch']:,} x "
        f"({visual}{tokens['text']:,} text tokens), {formats}, {inputs['runtime']}, "
        f"{inputs['attention']} attention, {inputs['time_model']} times"
    )


def _verdict(result: Estimate) -> str:
    before = result.baseline
    ttft = quantity(result.time_s["ttft"], "s")
    if before is None or before is result or not _compressed(result):
        flops = quantity(result.flops["total"], "FLOP")
        return f"TTFT {ttft}, {flops}, {quantity(result.memory_bytes['total'], 'B')} of memory."
    tokens, savings = result.tokens, result.savings
    return (
        f"{result.inputs['compress']} keeps {_count(tokens['visual_kept'])} of "
        f"{tokens['visual_in']:,} visual tokens: TTFT {ttft} instead of "
        f"{quantity(before.time_s['ttft'], 's')} "
        f"({ratio(savings['ttft_s_ratio'], 'faster', 'slower')}), "
        f"FLOPs {ratio(savings['flops_ratio'], 'fewer')}."
    )


def _compressed(result: Estimate) -> bool:
    return bool(result.inputs["compress"] != "none")


def _count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def estimate_tables(result: Estimate, *, explain: bool = False) -> list[RenderableType]:
    """Return headline, stages, tokens, memory, savings and notes of an estimate.

    Parameters
    ----------
    result : Estimate
        The estimate.
    explain : bool
        Whether to add every operator with its formulas.

    Returns
    -------
    list of rich renderables
    """
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(headline(result), style="bold"), Text(_verdict(result)), "",
        _stage_table(result), "", facts(_facts(result)), *convention_tables(result.convention),
    ]  # fmt: skip
    if explain:
        parts += op_tables("Operators of prefill", result.ops)
        parts += op_tables("Operators of one decode step", result.ops_decode)
    return parts + bullets("Notes", result.notes)


def _stage_table(result: Estimate) -> RenderableType:
    now = stage_costs(result)
    before = stage_costs(result.baseline or result)
    if not _compressed(result):
        return table(
            ("stage", "FLOP", "bytes", "time", "share", "bound by"),
            _with_rule(
                (
                    _label(row), quantity(row.flops), quantity(row.bytes_moved, "B"),
                    quantity(row.time_s, "s"), _share(row), row.bound_by or "-",
                )
                for row in now
            ),
        )  # fmt: skip
    return table(
        (
            "stage", "FLOP\nbefore", "FLOP\nafter", "bytes\nafter", "time\nbefore",
            "time\nafter", "share", "bound by",
        ),
        _with_rule(
            (
                _label(row), quantity(old.flops), quantity(row.flops),
                quantity(row.bytes_moved, "B"), quantity(old.time_s, "s"),
                quantity(row.time_s, "s"), _share(row), row.bound_by or "-",
            )
            for row, old in zip(now, before, strict=True)
        ),
    )  # fmt: skip


def _with_rule(rows: Iterable[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    for row in rows:
        if row[0] == _LABELS["total"]:
            yield ("---",)
        yield row


def _label(row: StageCost) -> str:
    return _LABELS.get(row.stage, row.stage.replace("_", " "))


def _share(row: StageCost) -> str:
    return f"{row.share:.1%}" if row.share else "-"


def _facts(result: Estimate) -> Iterable[tuple[str, str]]:
    tokens, memory, time_s = result.tokens, result.memory_bytes, result.time_s
    before = result.baseline if _compressed(result) else None

    def was(text: str) -> str:
        return f" (before: {text})" if before is not None else ""

    prompt = f"{tokens['text']:,} text"
    if tokens["visual_in"]:
        prompt = f"{tokens['visual_in']:,} visual" + (
            f" -> {_count(tokens['visual_kept'])} kept" if before is not None else ""
        ) + f", {prompt}"  # fmt: skip
    yield "Tokens", f"{prompt}; {_count(tokens['prefill'])} in the prompt of one request"
    band = _bands(result.interval_s, "ttft")
    if band:
        yield "TTFT band", band
    yield (
        "TPOT",
        quantity(time_s["tpot"], "s")
        + (was(quantity(before.time_s["tpot"], "s")) if before is not None else ""),
    )
    band = _bands(result.interval_s, "tpot")
    if band:
        yield "TPOT band", band
    yield (
        "KV cache",
        quantity(memory["kv_cache"], "B")
        + (was(quantity(before.memory_bytes["kv_cache"], "B")) if before is not None else ""),
    )
    yield (
        "Memory",
        (
            f"{quantity(memory['total'], 'B')} of {quantity(memory['device'], 'B')}: weights "
            f"{quantity(memory['weights'], 'B')}, KV cache {quantity(memory['kv_cache'], 'B')}, "
            f"activations {quantity(memory['activations_peak'], 'B')} "
            f"(peak: {memory['activations_peak_op']}{_before_cache(memory)})"
        ),
    )
    yield "Fits", _fits(memory)
    if before is not None:
        yield "Savings", ", ".join(_savings(result))


def _before_cache(memory: dict[str, Any]) -> str:
    """Why the parts are more than the whole, where they are."""
    parts = memory["weights"] + memory["kv_cache"] + memory["activations_peak"]
    return ", before there is a cache" if parts > memory["total"] * (1 + 1e-9) else ""


def _savings(result: Estimate) -> Iterable[str]:
    savings = result.savings
    yield f"FLOPs {ratio(savings['flops_ratio'], 'fewer')}"
    for name in ("ttft", "tpot"):
        text = f"{name.upper()} {ratio(savings[f'{name}_s_ratio'], 'faster', 'slower')}"
        yield text + _savings_band(result, f"{name}_s_ratio")
    yield f"bytes moved {ratio(savings['bytes_moved_ratio'], 'fewer')}"
    yield f"KV cache {ratio(savings['kv_cache_bytes_ratio'], 'smaller', 'larger')}"


def _savings_band(result: Estimate, name: str) -> str:
    """Band of how many times faster, for any lab and software: the wider of the two."""
    if name not in result.savings_interval:
        return ""
    low, high = result.savings_interval[name]["any_stack"]
    upper = "more" if high is None else f"{high:.2f}x"
    return f" ({result.interval_s['level']:.0%}: {low:.2f}x to {upper})"


def _fits(memory: dict[str, Any]) -> str:
    if not memory["fits"]:
        return f"no, {quantity(memory['missing'], 'B')} are missing"
    free = quantity(memory["device"] - memory["total"], "B")
    return f"yes, {free} are free; largest batch {memory['largest_batch']:,}"


def _bands(interval_s: dict[str, Any], which: str) -> str:
    labels = {"any_stack": "any lab and software", "same_stack": "same software"}
    found = [
        f"{quantity(band[0], 's')} to {quantity(band[1], 's')} ({labels.get(kind, kind)})"
        for kind, band in interval_s[which].items()
        if band is not None
    ]
    level = f"{interval_s['level']:.0%}: " if interval_s["level"] else ""
    return level + ", ".join(found) if found else ""


def op_tables(title: str, ops: Iterable[OpRow]) -> list[RenderableType]:
    """Return two tables: what each operator costs, and the formulas of one execution."""
    from rich.text import Text

    found = list(ops)
    costs = table(
        ("operator", "shape", "x", "FLOP", "bytes", "time", "bound by", "launches"),
        (
            (
                op.name, _shape(op),
                f"{op.repeat:.0f}", quantity(op.flops),
                quantity(sum(op.bytes.values()), "B"), quantity(op.time_s, "s"), op.bound_by,
                f"{op.launches:.0f}",
            )
            for op in found
        ),
        left=2,
        least=22,
    )  # fmt: skip
    formulas = table(
        ("operator", "FLOP of one execution", "bytes of one execution"),
        ((op.name, op.formula["flops"], op.formula["bytes"]) for op in found),
        left=3,
    )
    heading = Text(f"{title} (FLOP, bytes, time and launches of all repeats)", style="bold")
    return ["", heading, costs, "", formulas]


def _shape(op: OpRow) -> str:
    return " ".join(
        f"{name}={size:.0f}" for name, size in op.shape.items() if (name, size) != ("batch", 1.0)
    )
