"""Methods and models in fp16 and bf16: random inputs overflow nowhere and are not degenerate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costmodel.reference.harness.case import Options
from costmodel.reference.models.shapes import load_shape
from costmodel.reference.suites._methods import Run, runs_of
from costmodel.reference.suites.compression import method_case, params_text

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

from costmodel.reference.methods import load_method  # noqa: E402
from costmodel.reference.methods.cluster import cluster_means  # noqa: E402
from costmodel.reference.models.attention import attention_weights  # noqa: E402
from costmodel.reference.models.eager import build_eager  # noqa: E402
from costmodel.reference.models.fused import build_fused  # noqa: E402
from costmodel.reference.models.pruned import FastV, PyramidDrop  # noqa: E402

pytestmark = pytest.mark.verify

# The widest model: squared norms of its tokens are about 5120, of which fp16 holds 65504.
WIDEST = load_shape("llava-1.5-13b")
NARROW = ("fp16", "bf16")


def runs() -> list[Any]:
    found = runs_of(WIDEST, 144, Options(device="cpu"))
    return [
        pytest.param(run, id=f"{run.method}-{run.variant}-{run.kept}-{params_text(run.params)}")
        for run in found
        if run.variant != "sklearn" and run.params.get("iterations", 2) in (2, 5)
    ]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("run", runs())
def test_methods_are_finite_at_the_true_width(run: Run, dtype: str) -> None:
    with torch.no_grad():
        made: Any = load_method(run.method).prepare(method_case(run, "cpu", dtype, 1)).run()
    assert torch.isfinite(made).all()
    assert 0.1 < float(made.float().std()) < 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["eager", "fused"])
def test_products_of_tokens_bound_what_fp16_can_cluster(variant: str, dtype: Any) -> None:
    """Tokens of width 5120 up to 3.5 times a normal one's size; fp32 distances take any."""
    tokens = torch.randn(1, 144, 5120, generator=torch.Generator().manual_seed(0))
    for scale, distances in ((1.0, "input"), (3.4, "input"), (30.0, "fp32")):
        given = (scale * tokens).to(dtype)
        made = cluster_means(given, 16, variant=variant, check=False, distances=distances)
        assert torch.isfinite(made).all()
        # Means of clusters with several members are shorter than what they are means of.
        assert 0.1 < float(made.float().std()) / scale < 1.1


@pytest.mark.parametrize("variant", ["embedding", "projected", "attention"])
def test_text_does_not_copy_visual_tokens(variant: str) -> None:
    """Where each word of the text is a visual token, it attends to that one alone."""
    from costmodel.reference.methods import saliency

    run = Run("saliency", variant, 64, 16, 512, {"text_tokens": 32, "text_before": 8, "heads": 4,
                                                 "key_heads": 4})  # fmt: skip
    seen: list[Any] = []
    keep = saliency.keep_salient

    def spy(tokens: Any, scores: Any, kept: int) -> Any:
        seen.append(scores)
        return keep(tokens, scores, kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saliency, "keep_salient", spy)
        load_method("saliency").prepare(method_case(run, "cpu", "fp32", 2)).run()
    (scores,) = seen
    share = scores / scores.sum(dim=1, keepdim=True)
    # Text like this would lift 32 of 64 tokens, to 1/32 each: the rest would have nothing.
    assert float(share.sort(dim=1).values[:, :32].sum(dim=1).min()) > 0.1


DEEP = replace(
    load_shape("llava-tiny"), decoder=replace(load_shape("llava-tiny").decoder, layers=32)
)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("code", ["eager sdpa", "eager eager", "fused flash", "fused eager"])
def test_models_are_finite_as_deep_as_real_ones(code: str, dtype: str) -> None:
    build, kind = code.split()
    maker: Any = build_eager if build == "eager" else build_fused
    model = maker(DEEP, dtype=dtype, attention=kind)
    torch.manual_seed(0)
    pixels = torch.randn(2, 3, 112, 112).to(torch.float16 if dtype == "fp16" else torch.bfloat16)
    ids = torch.randint(0, 1000, (2, 40))
    methods: list[Any] = [None]
    if build == "fused":
        methods += [FastV(2, 16), PyramidDrop.of_paper(32, 64), PyramidDrop((8,), (16,), "lean")]
    for method in methods:
        cache = model.new_cache(2, 110)
        done = model.prefill(pixels, ids, cache, pruning=method)
        step = model.decode_step(ids[:, :1], cache)
        for logits in (done.logits, step, done.pooled):
            assert logits.dtype == pixels.dtype
            assert torch.isfinite(logits).all()
            assert 0.01 < float(logits.float().std()) < 100


def test_attention_of_random_weights_is_spread() -> None:
    """Scores of normal queries and keys spread over about one: weights are not one-hot."""
    torch.manual_seed(0)
    query, keys = torch.randn(2, 1, 4, 64, 128).half()
    weights = attention_weights(query, keys, causal=True)
    assert torch.isfinite(weights).all()
    assert float(weights[:, :, -1].max()) < 0.5
