"""The operators of a prefill as LLM-Viewer counts them: operations and bytes by kind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from costmodel.conventions.viewer_hardware import ViewerDevice
from costmodel.specs.model import TextSpec

__all__ = ["Formats", "ViewerOp", "head_op", "layer_ops", "op_time_s"]


@dataclass(frozen=True)
class Formats:
    """Bytes of one weight, activation and cached element; 0.5 for four bits."""

    weights: float = 2.0
    activations: float = 2.0
    kv: float = 2.0


@dataclass(frozen=True)
class ViewerOp:
    """One operator, one execution.

    Attributes
    ----------
    name : str
        LLM-Viewer's name.
    ops : float
        Operations [OP].
    load_weight, load_act, store_act, load_kv_cache, store_kv_cache : float
        Bytes by kind [B].
    """

    name: str
    ops: float
    load_weight: float = 0.0
    load_act: float = 0.0
    store_act: float = 0.0
    load_kv_cache: float = 0.0
    store_kv_cache: float = 0.0

    @property
    def memory_access(self) -> float:
        """Bytes of all kinds [B]."""
        return (
            self.load_weight + self.load_act + self.store_act
            + self.load_kv_cache + self.store_kv_cache
        )  # fmt: skip


def layer_ops(
    text: TextSpec,
    tokens: float,
    *,
    batch: int = 1,
    formats: Formats | None = None,
    flash_onchip_bytes: float | None = None,
    kv_heads: int | None = None,
) -> Iterator[ViewerOp]:
    r"""Operators of one decoder layer in a prefill.

    For n tokens of b requests, H heads of size a = d / H, G key-value heads, in elements:

    - a linear layer i -> o: 2 i o n b operations, i o weights read, i n b read, o n b written;
      what k and v write counts as KV cache;
    - qk and sv: 2 n^2 a H b operations each.  qk reads 2 n a G b of KV cache and writes n^2 H b;
      sv reads n^2 H b and n a G b of KV cache and writes n d b;
    - softmax: 5 n^2 H b operations, n^2 H b read and written;
    - two norms of 7, two additions of 1 and one activation of 2 operations per element of
      n d b (also the activation, whose true width is m), read and written once, the activation
      reads twice; an addition reads one operand.

    With flash attention qk, sv and softmax are one operator that reads the KV cache of all heads
    once per block of queries, and writes 2 n^2 H b elements, where n d b would be right.

    Parameters
    ----------
    text : TextSpec
        Shape of the language model.
    tokens : float
        n, of one request.
    batch : int
        b.
    formats : Formats, optional
        Bytes per element; two by default.
    flash_onchip_bytes : float, optional
        Size of the on-chip buffer, for flash attention; None for the three operators.
    kv_heads : int, optional
        Heads of the keys that attention reads, if not those of `text`.

    Yields
    ------
    ViewerOp

    References
    ----------
    .. [1] Z. Yuan et al., "LLM Inference Unveiled: Survey and Roofline Model Insights",
           arXiv:2402.16363; ``model_analyzer.py`` of
           https://github.com/hahnyuan/LLM-Viewer, commit 01b269d6.

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> ops = list(layer_ops(load_model("llama-2-7b").text, 616))
    >>> len(ops), ops[0].name, int(ops[0].ops)
    (15, 'q_proj', 20669530112)
    """
    byte = formats or Formats()
    d, m, heads = text.hidden_size, text.intermediate_size, text.heads
    rows = batch * tokens
    kv_width = d * text.kv_heads / heads
    for name, ic, oc in (
        ("q_proj", d, d), ("k_proj", d, kv_width), ("v_proj", d, kv_width), ("out_proj", d, d),
        ("gate_proj", d, m), ("up_proj", d, m), ("down_proj", m, d),
    ):  # fmt: skip
        cached = name in ("k_proj", "v_proj")
        yield ViewerOp(
            name,
            ops=2 * ic * oc * rows,
            load_weight=ic * oc * byte.weights,
            load_act=ic * rows * byte.activations,
            store_act=0.0 if cached else oc * rows * byte.activations,
            store_kv_cache=oc * rows * byte.kv if cached else 0.0,
        )
    yield from _attention(text, tokens, batch, byte, flash_onchip_bytes, kv_heads or text.kv_heads)
    hidden = d * rows * byte.activations
    for name, each, reads in (
        ("attn_norm", 7, 1), ("mlp_norm", 7, 1), ("attn_add", 1, 1), ("mlp_add", 1, 1),
        ("mlp_act", 2, 2),
    ):  # fmt: skip
        yield ViewerOp(name, ops=each * d * rows, load_act=reads * hidden, store_act=hidden)


def _attention(
    text: TextSpec, tokens: float, batch: int, byte: Formats, onchip: float | None, kv_heads: int
) -> Iterator[ViewerOp]:
    size = text.hidden_size // text.heads
    scores = batch * text.heads * tokens**2
    product = 2 * scores * size
    written = scores * byte.activations
    hidden = batch * tokens * size * text.heads * byte.activations
    keys = batch * tokens * size * kv_heads * byte.kv
    if onchip is None:
        yield ViewerOp("qk_matmul", ops=product, store_act=written, load_kv_cache=2 * keys)
        yield ViewerOp(
            "sv_matmul", ops=product, load_act=written, store_act=hidden, load_kv_cache=keys
        )
        yield ViewerOp("softmax", ops=5 * scores, load_act=written, store_act=written)
        return
    block = math.ceil(min(onchip / (byte.kv * size), size))
    all_keys = batch * tokens * size * text.heads * byte.kv
    yield ViewerOp(
        "fused_attention",
        ops=2 * product + 5 * scores,
        load_act=hidden,
        store_act=2 * written,
        load_kv_cache=math.ceil(tokens / block) * all_keys,
    )


def head_op(
    text: TextSpec,
    *,
    batch: int = 1,
    formats: Formats | None = None,
    legacy: bool = False,
) -> ViewerOp:
    """Operator of the head: d V operations per request, a MAC counted as one.

    Parameters
    ----------
    text : TextSpec
        d and V.
    batch : int
        Requests; one token of each.
    formats : Formats, optional
        Bytes per element; two by default.
    legacy : bool
        As in the first versions: one byte per weight in any format, and activations of one
        request.

    Returns
    -------
    ViewerOp

    Examples
    --------
    >>> from costmodel.catalog.models_io import load_model
    >>> text = load_model("llama-2-7b").text
    >>> int(head_op(text).load_weight), int(head_op(text, legacy=True).load_weight)
    (262144000, 131072000)
    """
    byte = formats or Formats()
    d, vocabulary = text.hidden_size, text.vocab_size
    requests = 1 if legacy else batch
    return ViewerOp(
        "lm_head",
        ops=batch * d * vocabulary,
        load_weight=d * vocabulary * (1.0 if legacy else byte.weights),
        load_act=requests * d * byte.activations,
        store_act=requests * vocabulary * byte.activations,
    )


def op_time_s(op: ViewerOp, device: ViewerDevice, formats: Formats) -> float:
    """Roofline time of one operator [s].

    The int8 rate counts where weights, activations and cache have eight bits or fewer.
    """
    eight_bits = max(formats.weights, formats.activations, formats.kv) <= 1.0
    rate = device.int8_ops_per_s if eight_bits else device.fp16_ops_per_s
    return max(op.ops / rate, op.memory_access / device.bandwidth_bytes_per_s)
