"""Passes over a frozen and a trained language model, against PyTorch's counter."""

from __future__ import annotations

import pytest

from costmodel.training import passes
from costmodel.training.recipe import Part

torch = pytest.importorskip("torch", reason="needs the extra 'verify'")
transformers = pytest.importorskip("transformers", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify

SHAPE = {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 512,
}  # fmt: skip
"""Shares of head (2 %) and scores as in a 7B model with 600 tokens."""
TOKENS = 75


def _counted(
    trained: bool, checkpointed: bool, *, backward: bool = True, early_stop: bool = False
) -> int:
    from torch.utils.checkpoint import set_checkpoint_early_stop
    from torch.utils.flop_counter import FlopCounterMode

    config = transformers.LlamaConfig(attn_implementation="eager", use_cache=False, **SHAPE)
    model = transformers.LlamaForCausalLM(config).train().requires_grad_(trained)
    inputs = torch.randn(1, TOKENS, config.hidden_size, requires_grad=True)
    if checkpointed:
        model.activation_checkpointing_enable()
    with set_checkpoint_early_stop(early_stop), FlopCounterMode(display=False) as counter:
        logits = model(inputs_embeds=inputs).logits
        if backward:
            logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("trained", [True, False])
def test_passes_over_the_language_model(trained: bool, checkpointed: bool) -> None:
    """The rule recomputes the head too, and takes scores for products with weights."""
    parts: set[Part] = {"projector", "llm"} if trained else {"projector"}
    rule = passes(parts, {"llm"} if checkpointed else ())["llm"].total
    counted = _counted(trained, checkpointed) / _counted(trained, checkpointed, backward=False)
    assert rule == pytest.approx(counted, rel=0.015)


@pytest.mark.parametrize("trained", [True, False])
def test_early_stop_spares_the_last_product_of_each_layer(trained: bool) -> None:
    """What docs/training.md says of newer checkpointing, which has no need of that output."""
    spared = _counted(trained, True) - _counted(trained, True, early_stop=True)
    last = 2 * TOKENS * SHAPE["intermediate_size"] * SHAPE["hidden_size"]
    assert spared == SHAPE["num_hidden_layers"] * last
