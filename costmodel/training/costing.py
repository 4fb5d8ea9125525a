"""From a recipe and the estimate of a forward pass to hours and energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from costmodel.case import prepare
from costmodel.compression.composition import Compression, parse_compression
from costmodel.errors import InputError, UnsupportedError
from costmodel.specs.hardware import HardwareProfile
from costmodel.specs.model import ModelSpec
from costmodel.specs.workload import check_count, check_dtype
from costmodel.training.assumptions import load_assumptions
from costmodel.training.forward import Forward, forward_pass
from costmodel.training.overheads import energy_kwh, gather_bytes, optimizer_time_s, reduce_bytes
from costmodel.training.padding import expected_longest
from costmodel.training.recipe import Data, Part, Recipe, Stage, load_recipe
from costmodel.training.results import StageCost, TrainingCost
from costmodel.training.rules import Passes, passes

__all__ = ["DTYPES", "train_cost"]

DTYPES = ("fp16", "bf16")
"""Formats of the passes; the master weights and the optimizer's moments are fp32."""

_MAX_GPUS = 100_000


def train_cost(
    model: str | ModelSpec,
    gpu: str | HardwareProfile,
    *,
    recipe: str | Recipe = "llava-1.5",
    gpus: int = 8,
    compress: str | Compression | Sequence[str] | None = None,
    checkpointing: bool = True,
    visual_tokens: int | None = None,
    **deployment: Any,
) -> TrainingCost:
    """Return what a training run costs, stage by stage.

    FLOPs are those of a forward pass of the request at the micro batch, times the passes of
    `costmodel.training.rules.passes`.  Time is that of the same pass by the time model, which is
    the peak rate times the share that kernels of these shapes reach, times the same passes, with
    every sample padded to the longest of its micro batch; then the optimizer and communication,
    which nothing overlaps:

    ``step = accumulation * (sum(passes * forward_s) + gather) + reduce + optimizer``

    Parameters
    ----------
    model, gpu : str or spec
        As in `costmodel.estimate`.
    recipe : str or Recipe
        Name of `costmodel.training.list_recipes`, or a recipe.
    gpus : int
        GPUs that share each step.
    compress : str or sequence of str, optional
        Compression of the visual tokens in training.  Its weights, if it has any, are trained as
        the projector is; without weights it runs forward only.
    checkpointing : bool
        Whether the parts that the recipe checkpoints are computed twice.
    visual_tokens : int, optional
        Visual tokens of a sample instead of those of the model's usual image.
    **deployment
        Options of `costmodel.case.prepare`: runtime (``eager`` unless given), dtype (``bf16``),
        attention, time_model, calibration.

    Returns
    -------
    TrainingCost

    Raises
    ------
    CostModelError
        If a name, option or combination is not valid.

    Examples
    --------
    >>> cost = train_cost("llava-1.5-7b", "a100-80gb-sxm")
    >>> [stage.steps for stage in cost.stages]
    [2181, 5198]
    """
    check_count("gpus", gpus, low=1, high=_MAX_GPUS)
    plan = load_recipe(recipe) if isinstance(recipe, str) else recipe
    check_dtype("dtype", deployment.get("dtype", "bf16"), DTYPES)
    options = {"runtime": "eager", "dtype": "bf16", **deployment, "head_tokens": "all"}
    request = parse_compression(compress)
    found = prepare(model, gpu, text_tokens=1, visual_tokens=visual_tokens, **options)
    if not found.images:
        raise UnsupportedError(
            "model", found.model.name, f"a model with images: recipe {plan.name} trains on them"
        )
    question = {"visual_tokens": visual_tokens, "compress": request, **options}
    stages: list[StageCost] = []
    notes: dict[str, None] = {}
    for stage in plan.stages:
        cost, said = _stage(stage, found.model, found.gpu, gpus, checkpointing, question)
        stages.append(cost)
        notes |= dict.fromkeys(said)
    return TrainingCost(
        model=found.model.name,
        gpu=found.gpu.name,
        recipe=plan.name,
        gpus=gpus,
        compress=request.label if request is not None else "none",
        stages=tuple(stages),
        notes=(*_assumed(plan), *notes),
    )


def _stage(
    stage: Stage,
    model: ModelSpec,
    gpu: HardwareProfile,
    gpus: int,
    checkpointing: bool,
    question: dict[str, Any],
) -> tuple[StageCost, tuple[str, ...]]:
    if stage.global_batch < gpus:
        raise InputError(
            "gpus", gpus, f"at most the global batch of stage {stage.name!r}, {stage.global_batch}"
        )
    micro = min(stage.micro_batch, math.ceil(stage.global_batch / gpus))
    accumulation = math.ceil(stage.global_batch / (gpus * micro))
    over = passes(stage.trained, stage.checkpointed if checkpointing else ())

    def forward(data: Data, text_tokens: int) -> Forward:
        asked = question if data.images else {**question, "visual_tokens": 0, "compress": None}
        return forward_pass(model, gpu, text_tokens=text_tokens, batch=micro, **asked)

    usual = [(data, forward(data, data.text_tokens.value)) for data in stage.data]

    def padded(data: Data, mean: int, samples: int) -> Forward:
        visual = usual_tokens[data.name] - data.text_tokens.value
        return forward(data, round(expected_longest(mean, samples, stage.max_tokens - visual)))

    usual_tokens = {data.name: one.tokens_per_sample for data, one in usual}
    # The run with images has a compression's weights too.
    whole = max((one for _, one in usual), key=lambda one: one.parameters["total"])
    trained = _trained(stage, whole)
    steps = math.ceil(stage.samples / stage.global_batch)
    link = gpu.link_bytes_per_s
    communication = (
        accumulation * gather_bytes(whole.parameters["total"], gpus, stage.zero)
        + reduce_bytes(trained, gpus, stage.zero)
    ) / link
    optimizer = optimizer_time_s(trained, gpus, gpu.bandwidth_bytes_per_s)
    batches = [stage.epochs * data.samples / (micro * gpus) for data in stage.data]
    flops: dict[str, float] = {}
    for count, (_, one) in zip(batches, usual, strict=True):
        for part, value in one.flops.items():
            flops[part] = flops.get(part, 0) + count * gpus * value * _of(part, over, one).total
    backward = load_assumptions().backward.value

    def compute(runs: Sequence[Forward], band: int | None = None) -> float:
        return sum(
            count * seconds * _of(part, over, one).time(backward)
            for count, one in zip(batches, runs, strict=True)
            for part, seconds in one.seconds(band).items()
        )

    fixed = steps * (optimizer + communication)
    longest = [padded(data, data.text_tokens.value, micro) for data in stage.data]
    compute_s = compute(longest)
    low = [forward(data, data.text_tokens.low) for data in stage.data]
    # GPUs wait for each other, so that the longest sample of all of them may count.
    high = [padded(data, data.text_tokens.high, micro * gpus) for data in stage.data]
    banded = all(one.band_s is not None for one in (*low, *high))
    total = sum(flops.values())
    peak = whole.peak_flops_per_s
    time_s = compute_s + fixed
    cost = StageCost(
        name=stage.name,
        trained=stage.trained,
        passes={part: found.total for part, found in over.items()},
        samples=stage.samples,
        steps=steps,
        micro_batch=micro,
        accumulation=accumulation,
        tokens=_tokens(stage, [one for _, one in usual]),
        padded_tokens=_tokens(stage, longest),
        trained_parameters=trained,
        flops=total,
        flops_by_part=flops,
        compute_s=compute_s,
        optimizer_s=steps * optimizer,
        communication_s=steps * communication,
        band_s=(compute(low, 0) + fixed, compute(high, 1) + fixed) if banded else None,
        achieved_share=total / (time_s * gpus * peak),
        gpus=gpus,
        tdp_w=gpu.tdp.si,
        energy_kwh=energy_kwh(gpus * time_s / 3600, gpu.tdp.si),
    )  # fmt: skip
    return cost, tuple(note for _, one in usual for note in one.notes)


def _of(part: str, over: dict[Part, Passes], forward: Forward) -> Passes:
    """Return the passes of a part; a method's own work is trained only where it has weights."""
    if part != "compression":
        return over[part]  # type: ignore[index]
    return over["projector"] if forward.parameters["compression"] else Passes(1, 0)


def _tokens(stage: Stage, runs: Sequence[Forward]) -> float:
    return sum(
        stage.epochs * data.samples * one.tokens_per_sample
        for data, one in zip(stage.data, runs, strict=True)
    )


def _trained(stage: Stage, forward: Forward) -> float:
    own = {**forward.parameters, "projector": forward.parameters["projector"]
           + forward.parameters["compression"]}  # fmt: skip
    return sum(own[part] for part in stage.trained)


def _assumed(recipe: Recipe) -> list[str]:
    assumed = load_assumptions()
    texts = (
        f"{data.name}: {data.text_tokens.value:,} ({data.text_tokens.low:,} to "
        f"{data.text_tokens.high:,})"
        for stage in recipe.stages
        for data in stage.data
    )
    return [
        f"text tokens of a sample, assumed: {'; '.join(texts)}",
        f"a gradient product takes {assumed.backward.value:g} times its forward product, which "
        "was measured in inference",
        "samples are padded to the longest of their micro batch, whose length is assumed to be "
        "exponential; the band reaches from no padding to the longest sample of all GPUs",
        "optimizer at the peak bandwidth of memory, communication at the peak rate of one link; "
        "nothing overlaps; loading of data and saving are not counted",
        f"power: {assumed.power_share.value:g} of the TDP, times a PUE of "
        f"{assumed.power_usage_effectiveness.value:g}",
        "whether it fits in memory is not checked",
    ]
