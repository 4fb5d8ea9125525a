"""Which measured kernel kind times an operator, and the sizes that kind's model reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.evaluation import Evaluation, FloatArray
from costmodel.ops import Op
from costmodel.specs.workload import Deployment
from costmodel.symbols import sym

__all__ = ["KindSizes", "kind_of"]

_ATTENTION_SIZES = ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")
_FUSED_KERNELS = ("rmsnorm", "layernorm", "activation", "gelu", "rotary")
_WEIGHT_ONLY = {"int8": "gemm_w8a16", "fp8": "gemm_w8a16", "int4": "gemm_w4a16"}


@dataclass(frozen=True)
class KindSizes:
    """How to price one operator.

    Attributes
    ----------
    kind : str
        Kind of a calibration.
    sizes : dict of str to ndarray
        What its kernel model reads, for one kernel.
    kernels : ndarray
        Kernels of that size that one execution of the operator starts.
    """

    kind: str
    sizes: dict[str, FloatArray]
    kernels: FloatArray


def kind_of(evaluation: Evaluation, index: int, deployment: Deployment) -> KindSizes | None:
    """Return the kind and sizes of an operator, or None for work on the host.

    Parameters
    ----------
    evaluation : Evaluation
        Evaluated operators.
    index : int
        Which one.
    deployment : Deployment
        Formats of weights and activations.

    Returns
    -------
    KindSizes or None
    """
    op = evaluation.ops[index]
    shape = evaluation.shapes[index]
    one = np.ones(evaluation.points)
    if op.kind == "host":
        return None
    if op.kind == "gemm":
        sizes = {name: shape[name] for name in ("batch", "m", "n", "k")}
        return KindSizes(_gemm_kind(op, deployment), sizes, one)
    if op.kind.startswith("attention"):
        return KindSizes(op.kind, {name: shape[name] for name in _ATTENTION_SIZES}, one)
    if op.kind == "collective":
        return KindSizes(op.note, {"bytes": shape["bytes"], "devices": shape["devices"]}, one)
    # An operator of several kernels moves its bytes in as many equal parts.
    kernels = np.maximum(evaluation.launches[index], 1.0)
    traffic = evaluation.traffic
    read = traffic["act_in"][index] + traffic["weights"][index] + traffic["kv_read"][index]
    write = traffic["act_out"][index] + traffic["kv_write"][index]
    sizes = {
        "read_bytes": read / kernels,
        "write_bytes": write / kernels,
        "rows": shape["rows"],
        "cols": shape["cols"],
    }
    # An unfused operator of several kernels is a chain of plain elementwise ones.
    several = op.primitive in _FUSED_KERNELS and (kernels > 1).any()
    return KindSizes("add" if several else op.primitive, sizes, kernels)


def _gemm_kind(op: Op, deployment: Deployment) -> str:
    linear = sym("bw") in op.traffic.weights.free_symbols
    if linear and deployment.weights_dtype != deployment.dtype:
        return _WEIGHT_ONLY.get(deployment.weights_dtype, "gemm")
    return "gemm"
