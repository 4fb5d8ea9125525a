r"""Kernels of a processor that runs its own work: products, attention, memory-bound loops.

Smooth forms: a few threads have no waves to quantise, and caches of several levels
blur the steps that tiles leave.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, KernelModel, Parameter, Shapes

__all__ = ["MODELS", "ProcessorAttention", "ProcessorGemm", "ProcessorLoop"]

_OVERLAP = 3.0
_ELEMENT_BYTES = 2.0
"""Of a chip for elements: see `Chip.for_elements`."""

_VECTOR = 16.0
"""Numbers of 4 bytes in the widest vectors."""
_KEPT_BYTES = 32.0 * 2**20
"""From this size on the allocator never keeps a block."""
_PAGE_BYTES = 4096.0

_FIXED_COST = Parameter("t0", 0.2e-6, 200e-6, 5e-6, "s", "cost of a call")


def _columns(shapes: Shapes, names: tuple[str, ...]) -> list[FloatArray]:
    return [np.asarray(shapes[name], dtype=np.float64) for name in names]


def _joined(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the longer of two times, rounded off where they are alike."""
    larger = np.maximum(np.maximum(first, second), 1e-12)
    ratio = np.minimum(first, second) / larger
    result: FloatArray = larger * (1.0 + ratio**_OVERLAP) ** (1.0 / _OVERLAP)
    return result


class ProcessorGemm:
    r"""A product whose rate grows with each of its sizes.

    .. math:: t = t_0 + \frac{2\,(m + m_h [m > 1])\,nk}{e P}
              \left(1 + \frac{n_h}{n}\right)\left(1 + \frac{k_h}{k}\right) + \frac{Q}{e_B B}

    with Q bytes of operands and result.  The right operand is read and packed before it is
    computed with [1]_, so that the times add up and packing costs as much as :math:`m_h` rows; a
    product of one row is one of matrix and vector, which packs nothing.

    References
    ----------
    .. [1] K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM
       TOMS 34 (3), 2008, doi:10.1145/1356052.1356053: blocks are packed before they are used.
    """

    name = "processor_gemm"
    kind = "gemm"
    sizes: tuple[str, ...] = ("m", "n", "k")
    parameters: tuple[Parameter, ...] = (
        _FIXED_COST,
        Parameter("e", 0.1, 1.1, 0.8, "1", "share of the peak that large products reach"),
        Parameter("eb", 0.1, 20.0, 1.0, "1", "bandwidth of operands over that of a copy"),
        Parameter("mh", 0.01, 200.0, 4.0, "1", "rows that take as long as packing"),
        Parameter("nh", 0.01, 500.0, 8.0, "1", "columns at which half the rate is reached"),
        Parameter("kh", 0.01, 500.0, 8.0, "1", "depth at which half the rate is reached"),
    )

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one product.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            m, n, k and optionally batch: products of one call.
        chip : Chip
            Peak and bandwidth.

        Returns
        -------
        ndarray
            [s].

        Examples
        --------
        >>> chip = Chip(100e9, 20e9, 32e6, 1, 20e9)
        >>> values = {p.name: p.start for p in ProcessorGemm.parameters}
        >>> shapes = {"m": np.array([1.0, 512.0]), "n": np.array(512.0), "k": np.array(512.0)}
        >>> (1e6 * ProcessorGemm().time_s(values, shapes, chip)).round().tolist()
        [38.0, 3572.0]
        """
        m, n, k = _columns(shapes, self.sizes)
        batch = np.asarray(shapes.get("batch", 1.0), dtype=np.float64)
        rows = m + np.where(m > 1, values["mh"], 0.0)
        slowed = (1 + values["nh"] / n) * (1 + values["kh"] / k)
        compute = batch * 2 * rows * n * k * slowed / (values["e"] * chip.peak_flops_per_s)
        moved = batch * _ELEMENT_BYTES * (m * k + k * n + m * n)
        memory = moved / (values["eb"] * chip.bandwidth_bytes_per_s)
        result: FloatArray = values["t0"] + compute + memory
        return result


class ProcessorAttention:
    r"""PyTorch's attention by blocks of queries: two products and an exponential per score.

    .. math:: t = t_0 + \left\|\frac{b H s (4 D + c_x)}{e P}\left(1 + \frac{q_h}{q_B}\right),\;
              \frac{Q}{e_B B}\right\|_3

    A block has :math:`q_B` = 32 queries, 64 from 192 queries on and 256 from 768 on [1]_, and
    a causal kernel computes the keys up to the end of each block: with l keys of q queries,

    .. math:: s = q\,(l - q) + \tfrac12\, q\,(q + q_B)

    scores per head, else :math:`s = q\,l`.

    References
    ----------
    .. [1] PyTorch, aten/src/ATen/native/cpu/FlashAttentionKernel.cpp,
       ``flash_attention_kernel_impl`` and ``cpu_flash_attention``.
    """

    sizes: tuple[str, ...] = ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")
    parameters: tuple[Parameter, ...] = (
        _FIXED_COST,
        Parameter("e", 0.02, 1.1, 0.6, "1", "share of the peak reached"),
        Parameter("eb", 0.1, 20.0, 1.0, "1", "bandwidth of keys and values over that of a copy"),
        Parameter("cx", 1.0, 2000.0, 60.0, "FLOP", "what a score costs beside its products"),
        Parameter("qh", 0.01, 500.0, 8.0, "1", "queries in a block for half the rate"),
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = f"processor_{kind}"
        if kind == "attention_decode":
            # One query per sequence has no length.
            self.sizes = tuple(size for size in self.sizes if size != "q_len")
            self.parameters = tuple(p for p in self.parameters if p.name != "qh")

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one layer's attention; queries of decode are one each.

        Examples
        --------
        >>> chip = Chip(100e9, 20e9, 32e6, 1, 20e9)
        >>> model = ProcessorAttention("attention_prefill")
        >>> values = {p.name: p.start for p in model.parameters}
        >>> one = np.array(1.0)
        >>> shapes = {"batch": one, "q_len": 64 * one, "kv_len": 64 * one, "heads": 8 * one,
        ...           "kv_heads": 8 * one, "head_dim": 64 * one}
        >>> round(float(model.time_s(values, shapes, chip)) * 1e6)
        167
        """
        batch, kv_len, heads, kv_heads, head_dim = _columns(
            shapes, ("batch", "kv_len", "heads", "kv_heads", "head_dim")
        )
        queries = np.asarray(shapes.get("q_len", 1.0), dtype=np.float64)
        block = np.minimum(queries, _query_block(queries))
        scores = queries * kv_len
        if self.kind == "attention_prefill":
            scores = scores - queries * np.maximum(queries - block, 0.0) / 2
        work = batch * heads * scores * (4 * head_dim + values["cx"])
        slowed = 1 + values.get("qh", 0.0) / block
        compute = work * slowed / (values["e"] * chip.peak_flops_per_s)
        moved = 2 * _ELEMENT_BYTES * batch * head_dim * (heads * queries + kv_heads * kv_len)
        memory = moved / (values["eb"] * chip.bandwidth_bytes_per_s)
        result: FloatArray = values["t0"] + _joined(compute, memory)
        return result


def _query_block(queries: FloatArray) -> FloatArray:
    result: FloatArray = np.where(queries >= 768, 256.0, np.where(queries >= 192, 64.0, 32.0))
    return result


class ProcessorLoop:
    r"""A loop over rows whose data or intermediate results fit into a fast level or do not.

    .. math:: t = t_0 + r\,t_r + \frac{Q}{e_B B}\left(1 - h + \frac{h}{l}\right)(1 + g \log_2 c)
                  + r\,c\,t_s [c < 16] + \frac{Q_w}{4096} t_f [Q_w \ge Q_f],\qquad
              h = \frac{1}{1 + (Q / \phi L)^2}

    with r rows of c columns (g is zero but where a share of each row is sorted), Q bytes read
    and written, :math:`Q_w` of them written, and a last-level cache of L bytes.  Elements of rows
    shorter than a vector of 16 numbers are computed one by one where an operator works along its
    rows, as softmax does.  A result of :math:`Q_f` = 32 MiB or more is a block that glibc's
    allocator takes from the system anew for every call, whatever was freed before [1]_: each of its
    pages faults once.

    References
    ----------
    .. [1] GNU C library, malloc/malloc.c, ``DEFAULT_MMAP_THRESHOLD_MAX`` and mallopt(3),
       ``M_MMAP_THRESHOLD``.
    """

    name = "processor_loop"
    kind = "memory_bound"
    sizes: tuple[str, ...] = ("read_bytes", "write_bytes", "rows", "cols")
    parameters: tuple[Parameter, ...] = (
        _FIXED_COST,
        Parameter("tr", 0.0, 1e-6, 0.02e-6, "s", "time of a row whatever its width"),
        Parameter("eb", 0.01, 5.0, 0.8, "1", "bandwidth of large data over that of a copy"),
        Parameter("ph", 3e-4, 0.1, 0.01, "1", "share of the last-level cache that is fast"),
        Parameter("lx", 1.0, 6.0, 1.5, "1", "how much faster data in it are"),
        Parameter("lg", 0.0, 2.0, 0.1, "1", "more for each doubling of a row"),
        Parameter("ts", 0.0, 50e-9, 1e-9, "s", "more for an element of rows under a vector"),
        Parameter("tf", 0.0, 5e-6, 0.5e-6, "s", "first use of a page of a large new result"),
    )

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one kernel.

        Examples
        --------
        >>> chip = Chip(100e9, 20e9, 32e6, 1, 20e9)
        >>> values = {p.name: p.start for p in ProcessorLoop.parameters}
        >>> shapes = {"read_bytes": 1e8, "write_bytes": 2e7, "rows": 1e4, "cols": 500.0}
        >>> round(float(ProcessorLoop().time_s(values, shapes, chip)) * 1e3, 2)
        14.43
        """
        read, write, rows, cols = _columns(shapes, self.sizes)
        moved = read + write
        hit = 1.0 / (1.0 + (moved / (values["ph"] * chip.l2_bytes)) ** 2)
        memory = moved / (values["eb"] * chip.bandwidth_bytes_per_s)
        memory = (
            memory
            * (1.0 - hit + hit / values["lx"])
            * (1.0 + values.get("lg", 0.0) * np.log2(cols))
        )
        fresh = np.where(write >= _KEPT_BYTES, write / _PAGE_BYTES * values["tf"], 0.0)
        single = np.where(cols < _VECTOR, rows * cols * values["ts"], 0.0)
        result: FloatArray = values["t0"] + rows * values["tr"] + memory + single + fresh
        return result


MODELS: tuple[KernelModel, ...] = (
    ProcessorGemm(),
    ProcessorLoop(),
    *(ProcessorAttention(f"attention_{part}") for part in ("prefill", "encoder", "decode")),
)
