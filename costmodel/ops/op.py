"""The operator: one kernel-sized piece of work as symbolic expressions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import sympy
from sympy import Expr, Integer

__all__ = [
    "ONE",
    "ZERO",
    "Op",
    "OpKind",
    "Part",
    "Primitive",
    "Stage",
    "Traffic",
    "Weights",
    "exact",
]

Stage = Literal["vision_encoder", "projector", "compression", "llm", "lm_head"]
"""Part of the model an operator belongs to."""

OpKind = Literal[
    "gemm",
    "attention_prefill",
    "attention_decode",
    "attention_encoder",
    "elementwise",
    "copy",
    "collective",
    "host",
]
"""What limits and times the operator; `attention_prefill` is causal.

``host`` work runs on the CPU; its activations cross the host link.
"""

Primitive = Literal[
    "rmsnorm",
    "layernorm",
    "activation",
    "gelu",
    "rotary",
    "add",
    "copy",
    "gather",
    "softmax",
    "reduction",
    "argmin",
    "topk",
    "scatter",
    "cache_write",
    "other",
]
"""Kernel family of memory-bound work."""

Part = Literal["linear", "attention", "other"]
"""Which sub-total of the language model an operator counts in."""

ZERO = Integer(0)
ONE = Integer(1)


@dataclass(frozen=True)
class Traffic:
    """Bytes one execution moves to or from device memory, by kind.

    ``weights``, ``act_in`` and ``kv_read`` are read; ``act_out`` and
    ``kv_write`` are written.
    """

    weights: Expr = ZERO
    act_in: Expr = ZERO
    act_out: Expr = ZERO
    kv_read: Expr = ZERO
    kv_write: Expr = ZERO

    @property
    def total(self) -> Expr:
        """Sum of all kinds [B]."""
        return self.weights + self.act_in + self.act_out + self.kv_read + self.kv_write


@dataclass(frozen=True)
class Op:
    """One operator.

    Every expression is for one execution on one device; `repeat` executions
    make up a forward pass.

    Attributes
    ----------
    name : str
        Unique within a program, for example ``"decoder.q_proj"``.
    stage, kind, part
        Where it belongs and what it is.
    shape : tuple of (str, Expr)
        Sizes a time model needs: m, n, k for a GEMM; batch, q_len, kv_len,
        heads, kv_heads, head_dim for attention; rows, cols for the rest.
    flops : Expr
        Arithmetic [FLOP], one multiply-add = 2.
    traffic : Traffic
        Bytes moved [B].
    repeat : Expr
        Executions per forward pass.
    launches, host_syncs : Expr
        Kernels started, and times the host waits for a result, per execution.
    live : Expr
        Activation bytes that exist while it runs, weights and KV cache excluded [B].
    matmul : bool
        Whether FlopCounterMode counts it (matrix products and convolutions).
    primitive : Primitive
        For memory-bound work: the kernel family whose measured timings apply.
    graph_safe : bool
        Whether a CUDA graph can hold it; work that is not is dispatched eagerly.
    note : str
        A remark for people, for example what an eager implementation does.
    """

    name: str
    stage: Stage
    kind: OpKind
    shape: tuple[tuple[str, Expr], ...]
    flops: Expr
    traffic: Traffic
    repeat: Expr = ONE
    launches: Expr = ONE
    host_syncs: Expr = ZERO
    live: Expr = ZERO
    part: Part = "other"
    matmul: bool = False
    primitive: Primitive = "other"
    graph_safe: bool = True
    note: str = field(default="", compare=False)

    @property
    def free_symbols(self) -> set[sympy.Symbol]:
        """All symbols of all expressions."""
        expressions = [
            self.flops, self.traffic.total, self.repeat, self.launches, self.host_syncs, self.live,
            *(size for _, size in self.shape),
        ]  # fmt: skip
        return set().union(*(expression.free_symbols for expression in expressions))

    def times(self, repeat: Expr) -> Op:
        """Return the operator with its repeat count multiplied."""
        return replace(self, repeat=self.repeat * repeat)

    def holding(self, held: Expr) -> Op:
        """Return the operator with `held` further bytes live while it runs."""
        return replace(self, live=self.live + held)


@dataclass(frozen=True)
class Weights:
    """Parameters that stay in device memory.

    Attributes
    ----------
    name : str
        What they are.
    stage : Stage
        Stage they are counted in.
    count : Expr
        Parameters of the whole model, all devices together.
    linear : bool
        Whether they are linear-layer weights, which a quantised format applies to.
    shards : Expr
        Devices they are divided over.
    """

    name: str
    stage: Stage
    count: Expr
    linear: bool = True
    shards: Expr = ONE


def exact(expression: Expr, values: dict[sympy.Symbol, int]) -> int:
    """Evaluate with Python integers, without rounding.

    Examples
    --------
    >>> from costmodel.symbols import sym
    >>> exact(2 * sym("b") * sym("d"), {sym("b"): 3, sym("d"): 10**18})
    6000000000000000000
    """
    result = expression.subs(values)
    if not result.is_integer:
        raise ValueError(f"{expression} is not an integer at {values}")
    return int(result)
