"""The tables of the accuracy page as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from costmodel.calibration.accuracy import AccuracyRow
from costmodel.calibration.prefill_sum import TOKENS, PrefillSum, mean_error_pct
from costmodel.catalog.calibrations import list_calibrations, load_calibration
from costmodel.catalog.hardware import load_gpu
from costmodel.specs.calibration import BandTable, Calibration, KindFit

__all__ = [
    "BEGIN",
    "END",
    "PREFILL_TARGETS",
    "calibration_tables",
    "missed",
    "prefill_table",
    "summary",
    "target_table",
]

BEGIN = "<!-- calibrations: begin -->"
END = "<!-- calibrations: end -->"

PREFILL_TARGETS = {"each": (7.0, 5.0), "mean": (3.5, 2.0)}
"""Error of a prefill at unseen shapes [%]: at most, and aimed at."""

PEERS_MS: Mapping[str, Sequence[float]] = {
    "LLM-Viewer": (6.8, 7.1, 11.5, 29.6, 48.8, 106.0, 245.5),
    "GenZ": (6.3, 6.5, 11.2, 28.3, 46.0, 95.5, 205.1),
    "llm-analysis (0.7/0.9)": (7.4, 8.0, 15.9, 40.2, 65.2, 135.3, 290.6),
    "AIConfigurator (SGLang data)": (11.4, 13.4, 20.7, 42.9, 63.1, 126.7, 255.9),
    "LLMCompass roofline": (14.2, 16.4, 22.1, 40.1, 59.5, 118.1, 264.6),
}
"""Peers run 2026-11 on the same case, at the lengths of `TOKENS` [ms]."""

_REASONS: Sequence[tuple[str, str, str, str]] = (
    ("decode", "", "trtllm", "the timings do not name which of TensorRT-LLM's decode kernels "
     "ran, and one form has to serve all of them"),
    ("NCCL", "l40s", "", "eight GPUs share a PCIe host: repeated runs of one message differ by "
     "up to a half"),
    ("", "a30", "", "data of a fork of Vidur, of two models only, in which products faster than "
     "the card's peak were found"),
)  # fmt: skip
"""Part of the quantity, device (any if empty), beginning of the software, reason."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    Examples
    --------
    >>> print(table(("a", "b"), [("1", "2")]), end="")
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def calibration_tables() -> str:
    """Return one table per shipped calibration, from the files alone."""
    parts = []
    for name in list_calibrations():
        calibration = load_calibration(name, load_gpu(name.partition(".")[0]))
        parts.append(_calibration(calibration))
    return "\n".join(parts)


def _calibration(calibration: Calibration) -> str:
    header = ("Kind", "Origin", "Source", "Software", "Rows", "MAPE", "p90", "Bias", "Roofline",
              "90 % band")  # fmt: skip
    text = f"### `{calibration.name}`\n\n{calibration.title}. Fits of {calibration.date}."
    if calibration.lab_spread:
        shown = ", ".join(f"{kind} x{ratio:g}" for kind, ratio in calibration.lab_spread.items())
        text += f" Another lab or framework differs by (90th percentile): {shown}."
    return text + "\n\n" + table(header, [_fit(fit) for fit in calibration.kinds])


def _fit(fit: KindFit) -> tuple[str, ...]:
    origin = fit.origin if not fit.rule else f"{fit.origin} from {fit.device}: {fit.rule}"
    errors = ("-",) * 4
    if fit.error is not None:
        error = fit.error
        errors = (
            f"{error.mape_pct:.1f}", f"{error.p90_pct:.1f}", f"{error.bias_pct:+.1f}",
            f"{error.roofline_mape_pct:.0f}",
        )  # fmt: skip
    return (fit.kind, origin, fit.source, fit.software, str(fit.rows), *errors, _band(fit.bands))


def _band(bands: BandTable) -> str:
    pairs = [f"{low:.2f}-{high:.2f}" for low, high in zip(bands.low, bands.high, strict=True)]
    shown = [pairs[0], pairs[-1]] if len(pairs) > 1 else pairs
    return " to ".join(dict.fromkeys(shown))


def target_table(rows: Sequence[AccuracyRow]) -> str:
    """Return the quantities with what was asked and what was reached, MAPE / p90."""
    header = ("Quantity", "Device", "Measured with", "n", "At most", "Aim", "Reached", "Bias",
              "Roofline", "Aim met", "Met")  # fmt: skip
    return table(header, [_judged(row) for row in rows])


def _judged(row: AccuracyRow) -> tuple[str, ...]:
    software = f"{row.source.partition('@')[0]}, {row.software}".replace("|", "/")
    return (
        row.quantity, row.gpu, software, str(row.n),
        _goal(row.target_at_most, row.target_at_most_p90),
        _goal(row.target_aim, row.target_aim_p90),
        _reached(row), f"{row.bias_pct:+.1f}", f"{row.roofline_mape_pct:.0f}",
        {None: "-", True: "yes", False: "no"}[row.aim_met],
        {None: "-", True: "yes", False: "**no**"}[row.met],
    )  # fmt: skip


def _goal(mape_pct: float | None, p90_pct: float | None) -> str:
    if mape_pct is None:
        return "-"
    return f"{mape_pct:g}" if p90_pct is None else f"{mape_pct:g} / {p90_pct:g}"


def _reached(row: AccuracyRow) -> str:
    return f"{row.mape_pct:.1f} / {row.p90_pct:.1f}"


def summary(rows: Sequence[AccuracyRow]) -> str:
    """Return how many goals were met and which were not, as one line.

    Parameters
    ----------
    rows : sequence of AccuracyRow
        Rows without a goal are not counted.

    Returns
    -------
    str
        Without a line end.
    """
    judged = [row for row in rows if row.met is not None]
    failed = [row for row in judged if not row.met]
    aimed = sum(row.aim_met is True for row in judged)
    text = f"Of {len(judged)} goals, {len(judged) - len(failed)} are met ({aimed} of them as well "
    text += f"as aimed for) and {len(failed)} missed"
    named = "; ".join(f"{row.quantity} ({row.gpu}, {_framework(row)})" for row in failed)
    return f"{text}: {named}." if failed else f"{text}."


def _framework(row: AccuracyRow) -> str:
    return f"{row.source.partition('@')[0]} {row.software.partition('/')[0]}"


def missed(rows: Sequence[AccuracyRow]) -> str:
    """Return a line for each quantity that is worse than asked, with the reason."""
    lines = []
    for row in rows:
        if row.met is False:
            both = row.target_at_most_p90 is not None
            reached = _reached(row) if both else f"{row.mape_pct:.1f}"
            asked = _goal(row.target_at_most, row.target_at_most_p90)
            lines.append(
                f"- {row.quantity}, {row.gpu}, {row.software}: {reached} %, "
                f"at most {asked} % asked: {_reason(row)}.\n"
            )
    return "".join(lines) or "None.\n"


def _reason(row: AccuracyRow) -> str:
    for quantity, gpu, software, reason in _REASONS:
        if quantity in row.quantity and gpu in ("", row.gpu) and row.software.startswith(software):
            return reason
    return "reason not known"


def prefill_table(sums: Sequence[PrefillSum]) -> str:
    """Return measured and predicted prefill, ours and the peers'."""
    unseen = [item.unseen_error_pct for item in sums]
    shipped = [item.shipped_error_pct for item in sums]
    known = [error for error in shipped if error is not None]
    header = ("Tokens", "Measured", "Shapes left out", "Shipped", "Roofline", *PEERS_MS)
    rows = [
        (
            str(item.tokens), f"{1e3 * item.measured_s:.1f}",
            _with_error(item.unseen_s, item.unseen_error_pct),
            "-" if item.shipped_s is None
            else _with_error(item.shipped_s, item.shipped_error_pct or 0.0),
            _with_error(item.roofline_s, item.roofline_error_pct),
            *(f"{times[TOKENS.index(item.tokens)]:.1f}" for times in PEERS_MS.values()),
        )
        for item in sums
    ]  # fmt: skip
    peers = [
        mean_error_pct([0.1 * times[TOKENS.index(x.tokens)] / x.measured_s - 100.0 for x in sums])
        for times in PEERS_MS.values()
    ]
    means = [mean_error_pct(unseen), mean_error_pct(known) if known else math.nan,
             mean_error_pct([item.roofline_error_pct for item in sums]), *peers]  # fmt: skip
    rows.append(("Mean abs. error", "", *(f"{mean:.1f} %" for mean in means)))
    return table(header, rows)


def _with_error(seconds: float, error_pct: float) -> str:
    return f"{1e3 * seconds:.1f} ({error_pct:+.1f} %)"
