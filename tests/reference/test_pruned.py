"""FastV and PyramidDrop inside the runnable decoder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from costmodel.reference.models.shapes import ModelShape, load_shape

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from costmodel.reference.models.base import visual_start  # noqa: E402
from costmodel.reference.models.eager import build_eager  # noqa: E402
from costmodel.reference.models.fused import build_fused  # noqa: E402
from costmodel.reference.models.pruned import FastV, PyramidDrop  # noqa: E402
from costmodel.reference.models.weights import copy_weights  # noqa: E402

pytestmark = pytest.mark.verify

BASE = load_shape("llava-tiny")
TINY = replace(BASE, decoder=replace(BASE.decoder, kv_heads=2))
LAYERS, VISUAL, TEXT, BATCH = 4, 64, 50, 2
TOKENS, START = TEXT + VISUAL, visual_start(TEXT)
FASTV = ("paper", "released", "last-row")
PDROP = ("released", "lean")


def made(shape: ModelShape = TINY, seed: int = 3) -> tuple[Any, Any]:
    """transformers' model and ours with weights whose attention is far from uniform."""
    theirs, ours = build_eager(shape, attention="eager"), build_fused(shape)
    torch.manual_seed(seed)
    for parameter in theirs.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    copy_weights(theirs, ours)
    return theirs, ours


def embeddings(batch: int = BATCH) -> Any:
    torch.manual_seed(5)
    return torch.randn(batch, TOKENS, TINY.decoder.width)


def ranking_of_transformers(theirs: Any, hidden: Any, layer: int) -> Any:
    """Attention of the last token to the visual ones in a layer, mean over the heads."""
    done = theirs.decoder(inputs_embeds=hidden, output_attentions=True)
    weights = done.attentions[layer].mean(dim=1)[:, -1]
    return weights[:, START : START + VISUAL]


def staying(ranked: Any, kept: int) -> Any:
    """Columns of the prompt that stay, sample by sample, worked out with sorted lists."""
    rows = []
    for scores in ranked.tolist():
        order = sorted(range(VISUAL), key=lambda column: -scores[column])
        best = sorted(START + column for column in order[:kept])
        rows.append([*range(START), *best, *range(START + VISUAL, TOKENS)])
    return torch.tensor(rows)


def layers_of_transformers(theirs: Any, hidden: Any, positions: Any, used: slice) -> Any:
    """Run some of transformers' layers on hidden states at these positions."""
    decoder = theirs.decoder
    tokens = hidden.shape[1]
    bias = torch.full((tokens, tokens), torch.finfo(hidden.dtype).min).triu(1)[None, None]
    rotary = decoder.rotary_emb(hidden, position_ids=positions)
    for layer in decoder.layers[used]:
        hidden = layer(hidden, attention_mask=bias, position_embeddings=rotary)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return hidden


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("variant", FASTV)
def test_fastv_step_by_step_with_transformers_layers(variant: Any, layer: int) -> None:
    theirs, ours = made()
    hidden, kept = embeddings(), 20
    columns = staying(ranking_of_transformers(theirs, hidden, layer - 1), kept)
    every = torch.arange(TOKENS)[None]
    before = layers_of_transformers(theirs, hidden, every, slice(0, layer))
    left = torch.stack([row[index] for row, index in zip(before, columns, strict=True)])
    expected = layers_of_transformers(theirs, left, columns, slice(layer, LAYERS))
    cache = ours.new_cache(BATCH, TOKENS + 1)
    found = FastV(layer, kept, variant).run(ours.decoder, hidden, cache, START, VISUAL)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert cache.lengths == tuple(TOKENS if i < layer else TEXT + kept for i in range(LAYERS))
    assert cache.lengths == FastV(layer, kept).tokens_by_layer(LAYERS, TEXT, VISUAL)
    assert cache.positions == (TOKENS,) * LAYERS


@pytest.mark.parametrize("variant", PDROP)
def test_pyramid_drop_step_by_step_with_transformers_layers(variant: Any) -> None:
    theirs, ours = made()
    hidden, schedule = embeddings(), {1: 40, 3: 10}
    state, left = hidden, VISUAL
    for index in range(LAYERS):
        positions = torch.arange(state.shape[1])[None]
        if index in schedule:
            # Attention of this layer on the state that enters it, asked by the last token.
            chosen = _drop(theirs, state, index, left, schedule[index])
            state, left = chosen, schedule[index]
            positions = positions[:, : state.shape[1]]
        state = layers_of_transformers(theirs, state, positions, slice(index, index + 1))
    method = PyramidDrop(tuple(schedule), tuple(schedule.values()), variant)
    cache = ours.new_cache(BATCH, TOKENS + 1)
    found = method.run(ours.decoder, hidden, cache, START, VISUAL)
    torch.testing.assert_close(found, state, rtol=1e-3, atol=1e-3)
    expected = (TOKENS, TEXT + 40, TEXT + 40, TEXT + 10)
    assert cache.lengths == cache.positions == expected
    assert method.tokens_by_layer(LAYERS, TEXT, VISUAL) == expected


def _drop(theirs: Any, state: Any, index: int, visual: int, kept: int) -> Any:
    seen: list[Any] = []
    attention = theirs.decoder.layers[index].self_attn
    hook = attention.register_forward_hook(lambda *call: seen.append(call[2][1]))
    layers_of_transformers(
        theirs, state, torch.arange(state.shape[1])[None], slice(index, index + 1)
    )
    hook.remove()
    ranked = seen[0].mean(dim=1)[:, -1, START : START + visual]
    rows = []
    for row, scores in zip(state, ranked, strict=True):
        best = sorted(scores.argsort(descending=True)[:kept].tolist())
        rows.append(torch.cat((row[:START], row[START:][best], row[START + visual :])))
    return torch.stack(rows)


KEEPING_ALL = [
    *(FastV(2, VISUAL, variant) for variant in FASTV),  # type: ignore[arg-type]
    *(PyramidDrop((1, 2), (VISUAL, VISUAL), variant) for variant in PDROP),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("method", KEEPING_ALL, ids=str)
def test_keeping_all_is_the_identity(method: Any) -> None:
    _, ours = made()
    pixels, text = torch.randn(BATCH, 3, 112, 112), torch.randint(0, 1000, (BATCH, TEXT))
    whole, cut = ours.new_cache(BATCH, TOKENS + 1), ours.new_cache(BATCH, TOKENS + 1)
    expected = ours.prefill(pixels, text, whole)
    found = ours.prefill(pixels, text, cut, pruning=method)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert cut.lengths == whole.lengths == (TOKENS,) * LAYERS
    for keys, others in zip(whole.keys, cut.keys, strict=True):
        torch.testing.assert_close(keys, others, rtol=1e-4, atol=1e-4)
    step = [ours.decode_step(text[:, :1], cache) for cache in (whole, cut)]
    torch.testing.assert_close(step[1], step[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "method", [FastV(2, 16), PyramidDrop((1, 2), (32, 8), "lean")], ids=["fastv", "pdrop"]
)
def test_a_decode_step_sees_the_pruned_cache(method: Any) -> None:
    """Attention of the new token over what each layer holds, written out layer by layer."""
    _, ours = made()
    hidden, ids = embeddings(), torch.randint(0, 1000, (BATCH, 1))
    cache = ours.new_cache(BATCH, TOKENS + 1)
    method.run(ours.decoder, hidden, cache, START, VISUAL)
    held = [keys[:, :, :length].clone() for keys, length in _filled(cache)]
    stepped = ours.decode_step(ids, cache)
    assert cache.lengths == tuple(keys.shape[2] + 1 for keys in held)
    for keys, before in zip(cache.keys, held, strict=True):
        assert torch.equal(keys[:, :, : before.shape[2]], before)

    state = ours.embed(ids)
    for index, layer in enumerate(ours.decoder.layers):
        rotary = ours.decoder.rotary(torch.tensor([cache.positions[index] - 1]))
        query, keys, values = layer.project(state, rotary)
        length = held[index].shape[2]
        keys = torch.cat((held[index], keys), dim=2)
        values = torch.cat((cache.values[index][:, :, :length], values), dim=2)
        groups = TINY.decoder.heads // TINY.decoder.kv_heads
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
        weights = (query @ keys.transpose(2, 3) / TINY.decoder.head_dim**0.5).softmax(dim=-1)
        state = layer.finish(state, weights @ values)
    torch.testing.assert_close(stepped, ours.decoder.logits(state), rtol=1e-4, atol=1e-4)


def _filled(cache: Any) -> Any:
    return zip(cache.keys, cache.lengths, strict=True)


def test_kv_bytes_fall_with_the_tokens() -> None:
    _, ours = made()
    cache = ours.new_cache(BATCH, TOKENS)
    method = PyramidDrop.of_paper(LAYERS, VISUAL)
    method.run(ours.decoder, embeddings(), cache, START, VISUAL)
    tokens = sum(method.tokens_by_layer(LAYERS, TEXT, VISUAL))
    assert tokens == LAYERS * TEXT + 64 + 32 + 16 + 8
    assert cache.held_bytes == tokens * BATCH * 2 * TINY.decoder.kv_width * 4


def test_schedules_of_the_papers() -> None:
    """576 visual tokens beside 36 others in LLaVA-1.5-7B."""
    drop = PyramidDrop.of_paper(32, 576)
    counts = [count - 36 for count in drop.tokens_by_layer(32, 36, 576)]
    assert counts == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    assert sum(FastV(2, 144).tokens_by_layer(32, 0, 576)) // 32 == 171


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(FastV, 0, 8), "layer 0"),
        (partial(FastV, 2, 0), "kept 0"),
        (lambda: FastV(2, 8, "fast"), "'fast' is none of paper, released, last-row"),  # type: ignore[arg-type]
        (partial(PyramidDrop, (1, 2), (8,)), "do not pair"),
        (partial(PyramidDrop, (2, 1), (8, 4)), "must ascend"),
        (partial(PyramidDrop, (1, 2), (4, 8)), "must descend"),
        (lambda: PyramidDrop((1, 2), (8, 4), "quick"), "'quick' is none of"),  # type: ignore[arg-type]
        (lambda: FastV(4, 8).tokens_by_layer(4, 1, 64), "4 is not below the number of layers, 4"),
        (lambda: FastV(2, 65).tokens_by_layer(4, 1, 64), "65 is more than the 64 visual"),
        (lambda: PyramidDrop((1, 4), (8, 4)).tokens_by_layer(4, 1, 64), "4 is not below"),
    ],
)
def test_impossible_schedules_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_transformers_decoder_refuses_pruning() -> None:
    theirs, _ = made()
    with pytest.raises(ValueError, match="build the fused model"):
        theirs.prefill(
            torch.randn(1, 64, 128), torch.zeros(1, 9, dtype=torch.long), theirs.new_cache(1, 99),
            pruning=FastV(2, 8),
        )  # fmt: skip
