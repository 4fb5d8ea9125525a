"""Operators and the primitives that make them: one function per formula."""

from costmodel.ops.attention import AttentionImpl, attention
from costmodel.ops.collective import collective
from costmodel.ops.elementwise import activation, add, copy, elementwise, norm, rotary
from costmodel.ops.gemm import gemm, matmul
from costmodel.ops.op import ONE, ZERO, Op, OpKind, Part, Primitive, Stage, Traffic, Weights, exact

__all__ = [
    "ONE",
    "ZERO",
    "AttentionImpl",
    "Op",
    "OpKind",
    "Part",
    "Primitive",
    "Stage",
    "Traffic",
    "Weights",
    "activation",
    "add",
    "attention",
    "collective",
    "copy",
    "elementwise",
    "exact",
    "gemm",
    "matmul",
    "norm",
    "rotary",
]
