"""Training runs: FLOPs against textbook rules, and what physics demands of all of them."""

from __future__ import annotations

import pytest

from costmodel.errors import InputError, SpecError, UnknownNameError
from costmodel.training import Recipe, list_recipes, load_recipe, train_cost

GPU = "a100-80gb-sxm"
PARTS = {
    "LLaVA": 157_712, "ShareGPT": 40_688, "VQAv2": 82_783, "GQA": 72_140, "OKVQA": 8_998,
    "OCRVQA": 80_000, "A-OKVQA": 66_160, "TextCaps": 21_953, "RefCOCO": 48_447, "VG": 86_417,
}  # fmt: skip
"""Parts of mix665K, by the counts of its file."""


def _one_stage(recipe: Recipe, **changes: object) -> Recipe:
    data = recipe.model_dump()
    data["stages"] = [{**data["stages"][-1], **changes}]
    return Recipe.parse(data, "test")


def test_mix665k_is_the_sum_of_its_parts() -> None:
    with_images, alone = load_recipe("llava-1.5").stages[1].data
    assert with_images.samples + alone.samples == sum(PARTS.values()) == 665_298
    assert alone.samples == PARTS["ShareGPT"]


def test_steps_are_whole_epochs() -> None:
    """558,128 samples by 256, and 665,298 by 128, the last step of each not full."""
    first, second = train_cost("llava-1.5-7b", GPU).stages
    assert (first.steps, second.steps) == (2181, 5198)
    assert (first.accumulation, second.accumulation) == (1, 1)


def test_stf_scripts_accumulate_two_micro_batches() -> None:
    """LLaVA-STF: 16 x 2 and 8 x 2 on 8 GPUs; MBTF, STF, and Llama 2 of 64 more words."""
    first, second = train_cost("llava-1.5-7b", GPU, recipe="stf", compress="mbtf+stf").stages
    assert [(s.micro_batch, s.accumulation) for s in (first, second)] == [(16, 2), (8, 2)]
    assert first.trained_parameters == 37_753_856 + 134_238_208
    language = 6_738_415_616 + 2 * 64 * 4096
    assert second.trained_parameters == first.trained_parameters + language


def test_llm_flops_are_eight_per_parameter_and_token() -> None:
    """Full training with recomputation is 4 x 2 N per token (Narayanan et al., 2104.04473).

    N without the input embedding, which is looked up; scores add 4 % here.
    """
    stage = train_cost("llava-1.5-7b", GPU).stages[1]
    per_token = stage.flops_by_part["llm"] / stage.tokens
    rule = 8 * (6_738_415_616 - 32_000 * 4096)
    assert 1.0 < per_token / rule < 1.06


def test_frozen_model_takes_six_per_parameter_and_token() -> None:
    stage = train_cost("llava-1.5-7b", GPU).stages[0]
    per_token = stage.flops_by_part["llm"] / stage.tokens
    assert 1.0 < per_token / (6 * (6_738_415_616 - 32_000 * 4096)) < 1.06


@pytest.mark.parametrize("recipe", list_recipes())
def test_physics(recipe: str) -> None:
    cost = train_cost("llava-1.5-7b", GPU, recipe=recipe)
    assert cost.hours == pytest.approx(sum(stage.hours for stage in cost.stages))
    for stage in cost.stages:
        assert 0 < stage.achieved_share < 1
        assert stage.band_hours is not None
        low, high = stage.band_hours
        assert low < stage.hours < high
        assert stage.gpu_hours == pytest.approx(8 * stage.hours)
    plain = train_cost("llava-1.5-7b", GPU, recipe=recipe, checkpointing=False)
    assert plain.flops < cost.flops
    assert plain.hours < cost.hours


def test_without_checkpointing_three_quarters_of_the_language_model() -> None:
    more, less = (
        train_cost("llava-1.5-7b", GPU, checkpointing=on).stages[1].flops_by_part["llm"]
        for on in (True, False)
    )
    assert less / more == pytest.approx(3 / 4)


@pytest.mark.parametrize("method", ["random:k=144", "pyramiddrop", "mbtf+stf", "fastv"])
def test_fewer_tokens_cost_less(method: str) -> None:
    full = train_cost("llava-1.5-7b", GPU)
    fewer = train_cost("llava-1.5-7b", GPU, compress=method)
    for before, after in zip(full.stages, fewer.stages, strict=True):
        assert after.flops < before.flops
        assert after.hours < before.hours
        assert after.energy_kwh < before.energy_kwh


def test_none_is_the_identity() -> None:
    assert train_cost("llava-1.5-7b", GPU, compress="none").stages == (
        train_cost("llava-1.5-7b", GPU).stages
    )


def test_more_gpus_are_faster_and_take_no_fewer_gpu_hours() -> None:
    few, many = (train_cost("llava-1.5-7b", GPU, gpus=n) for n in (1, 8))
    assert many.hours < few.hours
    assert few.stages[0].communication_s == 0 < many.stages[0].communication_s
    assert many.gpu_hours >= few.gpu_hours
    assert many.flops == pytest.approx(few.flops)


def test_twice_the_epochs_take_twice_as_long() -> None:
    recipe = load_recipe("stf-paper")
    once, twice = (
        train_cost("llava-1.5-7b", GPU, recipe=_one_stage(recipe, epochs=n)) for n in (1, 2)
    )
    assert twice.flops == pytest.approx(2 * once.flops)
    assert twice.hours == pytest.approx(2 * once.hours, rel=1e-3)
    assert twice.energy_kwh == pytest.approx(2 * once.energy_kwh, rel=1e-3)


def test_ideal_times_have_no_band() -> None:
    cost = train_cost("llava-1.5-7b", GPU, time_model="ideal")
    assert cost.band_hours is None
    assert cost.hours < train_cost("llava-1.5-7b", GPU).hours


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_name_their_sources(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert all(source.startswith("https://") for source in recipe.sources)
    assert "assumed" in recipe.notes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"zero": 4}, "zero"),
        ({"trained": []}, "trained"),
        ({"trained": ["head"]}, "trained"),
        ({"samples": 3}, "samples"),
        ({"data": [{"name": "a", "samples": 1, "images": True,
                    "text_tokens": {"value": 5, "low": 6, "high": 7}}]}, "low"),
    ],
)  # fmt: skip
def test_bad_recipes(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        _one_stage(load_recipe("llava-1.5"), **changes)


def test_bad_questions() -> None:
    with pytest.raises(UnknownNameError, match=r"llava-1\.5"):
        train_cost("llava-1.5-7b", GPU, recipe="llava")
    with pytest.raises(InputError, match="gpus"):
        train_cost("llava-1.5-7b", GPU, gpus=1000)
