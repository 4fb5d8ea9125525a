"""Attention in three implementations against hand-computed FLOPs, bytes and launches."""

from __future__ import annotations

from typing import Any

import pytest
from sympy import Expr

from costmodel.ops import AttentionImpl, Op, attention, exact
from costmodel.symbols import sym

# One case for all: 2 sequences, 3 queries on 5 keys, 4 query heads, 2 or 4 key heads of width 8.
VALUES = {"b": 2, "s": 3, "p": 5, "H": 4, "G": 2, "D": 8, "ba": 2, "bkv": 1, "bs": 8}
Q_BYTES = 2 * 3 * 4 * 8 * 2  # b q H D, two bytes each
KEYS = 2 * 5 * 4 * 8  # elements of K with all 4 heads
GROUPED_KEYS = 2 * 5 * 2 * 8  # elements of K with 2 heads
SCORES = 2 * 4 * 3 * 5  # b H q k
FLOPS = 4 * SCORES * 8  # two products of 2 b H q k D


def at(expression: Expr) -> int:
    return exact(expression, {sym(name): value for name, value in VALUES.items()})


def build(impl: AttentionImpl, *, kv_heads: str = "H", **options: Any) -> dict[str, Op]:
    ops = attention(
        "a", "llm", kind="attention_prefill", impl=impl, batch=sym("b"), q_len=sym("s"),
        kv_len=sym("p"), heads=sym("H"), kv_heads=sym(kv_heads), head_dim=sym("D"),
        grouped=kv_heads == "G", **options,
    )  # fmt: skip
    return {op.name: op for op in ops}


def launches(ops: dict[str, Op]) -> int:
    return sum(at(op.launches) for op in ops.values())


IMPLS: tuple[AttentionImpl, ...] = ("flash", "sdpa", "eager")


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kv_heads", ["H", "G"])
def test_counted_flops_do_not_depend_on_the_implementation(
    impl: AttentionImpl, causal: bool, cached: bool, kv_heads: str
) -> None:
    ops = build(impl, kv_heads=kv_heads, causal=causal, cached=cached)
    assert sum(at(op.flops) for op in ops.values() if op.matmul) == FLOPS


def test_flash_reads_q_k_v_once_and_writes_o() -> None:
    ops = build("flash", causal=True)
    traffic = ops["a"].traffic
    assert at(traffic.act_in) == Q_BYTES + 2 * KEYS * 2
    assert at(traffic.act_out) == Q_BYTES
    assert (traffic.kv_read, traffic.kv_write, traffic.weights) == (0, 0, 0)
    assert launches(ops) == 1
    assert at(ops["a"].live) == 2 * Q_BYTES + 2 * KEYS * 2


def test_flash_on_the_cache_reads_its_format_and_its_heads() -> None:
    ops = build("flash", kv_heads="G", causal=True, cached=True)
    traffic = ops["a"].traffic
    assert at(traffic.act_in) == Q_BYTES
    assert at(traffic.kv_read) == 2 * GROUPED_KEYS * 1
    assert dict(ops["a"].shape)["kv_heads"] == sym("G")
    assert at(ops["a"].live) == 2 * Q_BYTES


def test_sdpa_reads_the_causal_mask() -> None:
    traffic = build("sdpa", causal=True)["a"].traffic
    mask = 2 * 3 * 5 * 2  # b q k, shared between the heads
    assert at(traffic.act_in) == Q_BYTES + 2 * KEYS * 2 + mask
    assert build("sdpa", causal=False)["a"].traffic == build("flash")["a"].traffic


def test_sdpa_repeats_grouped_keys_and_values_first() -> None:
    ops = build("sdpa", kv_heads="G", causal=False, cached=True)
    repeat = ops["a.repeat_kv"]
    assert at(repeat.traffic.kv_read) == 2 * GROUPED_KEYS * 1
    assert at(repeat.traffic.act_out) == 2 * KEYS * 2
    assert repeat.traffic.act_in == 0
    # What attention then reads is the copy, no longer the cache.
    assert ops["a"].traffic.kv_read == 0
    assert at(ops["a"].traffic.act_in) == Q_BYTES + 2 * KEYS * 2
    assert launches(ops) == 2 + 1


def test_repeated_keys_that_are_no_cache_are_read_as_activations() -> None:
    repeat = build("sdpa", kv_heads="G")["a.repeat_kv"]
    assert at(repeat.traffic.act_in) == 2 * GROUPED_KEYS * 2
    assert repeat.traffic.kv_read == 0


def test_eager_products() -> None:
    ops = build("eager", causal=True, cached=True)
    assert list(ops) == ["a.qk", "a.softmax", "a.pv", "a.transpose"]
    assert at(ops["a.qk"].flops) == at(ops["a.pv"].flops) == 2 * SCORES * 8
    assert at(ops["a.qk"].traffic.act_in) == Q_BYTES
    assert at(ops["a.qk"].traffic.kv_read) == at(ops["a.pv"].traffic.kv_read) == KEYS * 1
    assert at(ops["a.qk"].traffic.act_out) == SCORES * 2
    assert at(ops["a.pv"].traffic.act_in) == SCORES * 2
    assert at(ops["a.pv"].traffic.act_out) == Q_BYTES


@pytest.mark.parametrize("causal", [False, True])
def test_eager_softmax(causal: bool) -> None:
    ops = build("eager", causal=causal)
    softmax = ops["a.softmax"]
    # Scale: read 2, write 2.  Mask: read 2 and the mask, write 2.
    # Softmax in fp32: read 2, write 4.  Cast: read 4, write 2.
    mask = 2 * 3 * 5 * 2 if causal else 0
    reads = SCORES * (2 + 2 * causal + 2 + 4) + mask
    writes = SCORES * (2 + 2 * causal + 4 + 2)
    assert at(softmax.traffic.act_in) == reads
    assert at(softmax.traffic.act_out) == writes
    assert at(softmax.launches) == 3 + causal
    assert launches(ops) == 1 + (3 + causal) + 1 + 1
    assert not softmax.matmul


def test_eager_transpose_copies_the_output() -> None:
    transpose = build("eager")["a.transpose"]
    assert at(transpose.traffic.act_in) == at(transpose.traffic.act_out) == Q_BYTES
    assert transpose.kind == "copy"


def test_eager_holds_the_scores_twice_and_in_fp32() -> None:
    softmax = build("eager", causal=True)["a.softmax"]
    # Scores, fp32 probabilities and their cast: 2 + 4 + 2 bytes, beside queries, keys, values and
    # the mask.
    assert at(softmax.live) == SCORES * 8 + Q_BYTES + 2 * KEYS * 2 + 2 * 3 * 5 * 2


@pytest.mark.parametrize("impl", IMPLS)
def test_repeat_and_held_reach_every_operator(impl: AttentionImpl) -> None:
    plain = build(impl, kv_heads="G", causal=True, cached=True)
    held = build(
        impl, kv_heads="G", causal=True, cached=True, repeat=sym("L"), held=1000 * sym("ba")
    )
    for name, op in plain.items():
        assert held[name].repeat == sym("L")
        assert at(held[name].live) == at(op.live) + 1000 * 2
        assert held[name].traffic == op.traffic
