"""Parameters of every preset, module by module, against transformers' modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from costmodel import list_models, load_model

if TYPE_CHECKING:
    from tests.verify.conftest import Truth

pytest.importorskip("torch", reason="needs the extra 'verify'")
pytest.importorskip("transformers", reason="needs the extra 'verify'")

pytestmark = pytest.mark.verify


@pytest.mark.parametrize("part", ["vision_encoder", "projector", "llm", "lm_head"])
@pytest.mark.parametrize("name", list_models())
def test_part(truth: Truth, name: str, part: str) -> None:
    expected = truth.reference(name).parameters[part]
    made = truth.program(load_model(name))
    assert truth.our_parameters(made)[part] == expected
    assert expected > 0 or load_model(name).vision is None


@pytest.mark.parametrize("name", list_models())
def test_total(truth: Truth, name: str) -> None:
    parts = truth.reference(name)
    # transformers has only the parts of VILA, not the whole.
    modules = (parts.vision, parts.projector, parts.language, parts.head)
    whole = modules if parts.whole is None else (parts.whole,)
    expected = sum(tensor.numel() for module in whole for tensor in module.parameters())
    assert sum(truth.our_parameters(truth.program(load_model(name))).values()) == expected
