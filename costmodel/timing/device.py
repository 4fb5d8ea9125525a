"""The rates a time model needs, resolved from a profile for one deployment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from costmodel.errors import UnsupportedError
from costmodel.specs.hardware import ComputeDtype, HardwareProfile, HostProfile
from costmodel.specs.workload import Deployment

__all__ = ["Device", "resolve_device"]

# scikit-learn deals blocks of 256 rows to threads: 576 tokens keep three of them busy.
_HOST_THREADS = 3


@dataclass(frozen=True)
class Device:
    """SI rates of one GPU and its host.

    Attributes
    ----------
    profile : HardwareProfile
        The GPU.
    linear_flops_per_s : float
        Peak of products with linear-layer weights [FLOP/s].
    matmul_flops_per_s : float
        Peak of all other products: attention, head, patch embedding, clustering [FLOP/s].
    vector_flops_per_s : float
        Peak of elementwise work [FLOP/s].
    bandwidth_bytes_per_s : float
        Device memory [B/s].
    link_bytes_per_s : float
        To another GPU, one direction [B/s].
    host_link_bytes_per_s : float
        To the host, one direction [B/s].
    host_flops_per_s, host_bandwidth_bytes_per_s : float
        The host's processor and memory.
    host_threads_share : float
        Share of the host's cores that a library uses on arrays of some hundred rows.
    host_call_s : float
        A step of a Python loop on the host [s].
    capacity_bytes : float
        Device memory [B].
    linear_dtype, matmul_dtype : str
        Formats the products are computed in.
    """

    profile: HardwareProfile
    linear_flops_per_s: float
    matmul_flops_per_s: float
    vector_flops_per_s: float
    bandwidth_bytes_per_s: float
    link_bytes_per_s: float
    host_link_bytes_per_s: float
    host_flops_per_s: float
    host_bandwidth_bytes_per_s: float
    host_threads_share: float
    host_call_s: float
    capacity_bytes: float
    linear_dtype: str
    matmul_dtype: str


def resolve_device(profile: HardwareProfile, host: HostProfile, deployment: Deployment) -> Device:
    """Pick the rates that a deployment uses.

    Products run in the activations' format.  fp8 and int8 activations use the
    fp8 or int8 rate where the weights have that format too, and 16 bits in
    attention, head and patch embedding.  Weight-only quantisation computes in
    the activations' format.

    Parameters
    ----------
    profile : HardwareProfile
        The GPU.
    host : HostProfile
        Its host.
    deployment : Deployment
        Formats.

    Returns
    -------
    Device

    Raises
    ------
    UnsupportedError
        If the GPU cannot compute in a format.

    Examples
    --------
    >>> from costmodel.catalog.hardware import load_gpu, load_host
    >>> device = resolve_device(load_gpu("a100-80gb-sxm"), load_host(), Deployment.of())
    >>> device.linear_flops_per_s / 1e12
    312.0
    """
    quantised = deployment.dtype in ("fp8", "int8")
    wide = "fp16" if quantised else deployment.dtype
    narrow = (
        deployment.dtype if quantised and deployment.weights_dtype == deployment.dtype else wide
    )
    if quantised:
        _rate(profile, deployment.dtype)
    return Device(
        profile=profile,
        linear_flops_per_s=_rate(profile, narrow),
        matmul_flops_per_s=_rate(profile, wide),
        vector_flops_per_s=_vector_rate(profile, wide),
        bandwidth_bytes_per_s=profile.bandwidth_bytes_per_s,
        link_bytes_per_s=profile.link_bytes_per_s,
        host_link_bytes_per_s=profile.interconnect.pcie_per_direction.si,
        host_flops_per_s=host.peak_fp32.si,
        host_bandwidth_bytes_per_s=host.memory_bandwidth.si,
        host_threads_share=min(1.0, _HOST_THREADS / host.cores),
        host_call_s=host.call.si if host.call is not None else 0.0,
        capacity_bytes=profile.capacity_bytes,
        linear_dtype=narrow,
        matmul_dtype=wide,
    )


def _vector_rate(profile: HardwareProfile, dtype: str) -> float:
    # A processor has the formats that were measured on it, of which fp32 may be none.
    measured = profile.is_processor and profile.peak_flops_per_s("fp32", "vector") is None
    return _rate(profile, dtype if measured else "fp32")


def _rate(profile: HardwareProfile, dtype: str) -> float:
    kinds = {kind: kind for kind in get_args(ComputeDtype)}
    kind = kinds[dtype]
    # PyTorch computes fp32 products on the vector units unless TF32 is allowed.
    engines = ("vector",) if dtype == "fp32" else ("tensor", "vector")
    for engine in engines:
        rate = profile.peak_flops_per_s(kind, "vector" if engine == "vector" else "tensor")
        if rate is not None:
            return rate
    usable = [name for name in ("fp32", "fp16", "bf16", "fp8", "int8") if name in profile.dtypes()]
    raise UnsupportedError(
        "dtype", dtype, f"a format {profile.name} computes in: {', '.join(usable)}"
    )
