"""From model, workload and compression plan to a program: a list of symbolic operators.

A program keeps formulas and values apart.  `Program.values` holds numbers,
`Program.derived` relations between symbols (``s = T + V``); the pass (prefill or
decode) only changes relations, so both use one set of formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from sympy import Expr, Symbol

from costmodel.assembly import CacheGroup, Piece, language_piece, vision_piece
from costmodel.compression.plan import CompressionPlan, DecoderGroup
from costmodel.ops import Op, Stage, Weights
from costmodel.specs.model import ModelSpec
from costmodel.specs.workload import DTYPE_BYTES, Deployment, Workload
from costmodel.symbols import sym
from costmodel.vision_tokens.layout import VisualLayout

__all__ = ["PHASES", "CacheGroup", "Phase", "Program", "build_program"]

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")


@dataclass(frozen=True)
class Program:
    """Everything that is computed, moved and kept for one model and plan.

    Attributes
    ----------
    ops : tuple of Op
        Operators in execution order.
    weights : tuple of Weights
        Parameters in memory.
    cache : tuple of CacheGroup
        KV cache by layer group.
    values : dict of Symbol to float
        Numbers; sweeps override them.
    derived : dict of Symbol to Expr
        Relations that hold in a prefill pass.
    derived_decode : dict of Symbol to Expr
        Relations that hold in a decode pass.
    before_cache : tuple of Stage
        Stages that are done before there is a KV cache; none where it is reserved before, as
        serving engines do.
    """

    ops: tuple[Op, ...]
    weights: tuple[Weights, ...]
    cache: tuple[CacheGroup, ...]
    values: dict[Symbol, float] = field(repr=False)
    derived: dict[Symbol, Expr] = field(repr=False)
    derived_decode: dict[Symbol, Expr] = field(repr=False)
    before_cache: tuple[Stage, ...] = ()

    def phase_ops(self, phase: Phase) -> tuple[Op, ...]:
        """Return the operators of one pass.

        Decode runs the language model and the head only, and its attention is
        of kind ``attention_decode``.
        """
        if phase == "prefill":
            return self.ops
        chosen = (op for op in self.ops if op.stage in ("llm", "lm_head"))
        return tuple(
            replace(op, kind="attention_decode") if op.kind == "attention_prefill" else op
            for op in chosen
            if op.name != "merge_visual"
        )

    def relations(self, phase: Phase) -> dict[Symbol, Expr]:
        """Return the relations of one pass."""
        return self.derived if phase == "prefill" else self.derived_decode


def build_program(
    model: ModelSpec,
    layout: VisualLayout | None,
    workload: Workload,
    deployment: Deployment,
    plan: CompressionPlan | None = None,
) -> Program:
    """Build the program of one request batch.

    Parameters
    ----------
    model : ModelSpec
        The model.
    layout : VisualLayout, optional
        What all images of one request become; None without images.
    workload : Workload
        Batch, text and output tokens.
    deployment : Deployment
        Runtime, attention, formats, devices.
    plan : CompressionPlan, optional
        Compression; None for none.

    Returns
    -------
    Program

    Raises
    ------
    InputError
        If the devices do not divide the heads, or layer counts are out of range.
    """
    groups: tuple[DecoderGroup, ...]
    if plan is not None:
        groups = plan.decoder_groups
    else:
        visual = layout.tokens if layout is not None else 0
        groups = (DecoderGroup(layers=model.text.layers, visual=visual),)
    vision = vision_piece(model, layout, deployment, plan)
    own = Piece()
    if plan is not None:
        own = Piece(ops=list(plan.ops), weights=list(plan.weights), values=dict(plan.values))
    language, cache = language_piece(model.text, groups, deployment, model.vision is not None)
    if plan is not None and plan.insertion.where == "llm":
        own.ops = [op.holding(language.held) for op in own.ops]
    asked = Piece(values=_asked(workload, deployment))
    pieces = (asked, vision, own, language)
    return Program(
        ops=tuple(op for piece in pieces for op in piece.ops),
        weights=tuple(item for piece in pieces for item in piece.weights),
        cache=cache,
        values={symbol: value for piece in pieces for symbol, value in piece.values.items()},
        derived={symbol: value for piece in pieces for symbol, value in piece.prefill.items()},
        derived_decode={
            symbol: value for piece in pieces for symbol, value in piece.decode.items()
        },
        before_cache=() if deployment.fused else _before_cache(plan),
    )


def _before_cache(plan: CompressionPlan | None) -> tuple[Stage, ...]:
    """Stages before the language model, whose layers fill a cache that grows one by one."""
    if plan is None or plan.insertion.where != "llm":
        return ("vision_encoder", "projector", "compression")
    return ("vision_encoder", "projector")


def _asked(workload: Workload, deployment: Deployment) -> dict[Symbol, float]:
    return {
        sym("b"): workload.batch,
        sym("T"): workload.text_tokens,
        sym("o"): workload.output_tokens,
        sym("bw"): DTYPE_BYTES[deployment.weights_dtype],
        sym("bo"): DTYPE_BYTES[deployment.other_weights_dtype],
        sym("ba"): DTYPE_BYTES[deployment.dtype],
        sym("bkv"): DTYPE_BYTES[deployment.kv_dtype],
        sym("bs"): _score_bytes(deployment.dtype),
    }


def _score_bytes(dtype: str) -> float:
    """Most bytes of one score in ``softmax(scores, dtype=float32).to(dtype)`` of PyTorch.

    The fp32 softmax runs beside the scores and their result; its kernel reads fp16, but other
    short formats are copied to fp32 first, and the copy is the peak.
    """
    own = DTYPE_BYTES[dtype]
    if dtype == "fp32":
        return 2 * own
    return own + 8.0 if dtype == "bf16" else 2 * own + 4.0
