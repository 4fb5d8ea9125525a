"""What a training run costs: one row per stage, in SI units beside hours and kWh."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StageCost", "TrainingCost"]

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage.

    Attributes
    ----------
    name : str
        Stage of the recipe.
    trained : tuple of str
        Parts whose weights change.
    passes : dict of str to int
        Passes over each part per step, in forward passes.
    samples, steps : int
        Samples, and steps of the optimizer, of all epochs.
    micro_batch, accumulation : int
        Samples that a GPU computes together, and micro batches of a step.
    tokens : float
        Tokens of the prompts at the language model's first layer, all samples.
    padded_tokens : float
        The same with padding to the longest sample of a micro batch, which time is spent on.
    trained_parameters : float
    flops : float
        All GPUs, matrix products and convolutions, without those on padding [FLOP].
    flops_by_part : dict of str to float
        The same by part; ``compression`` is what a method adds.
    compute_s, optimizer_s, communication_s : float
        Parts of `time_s` [s].
    band_s : tuple of float, optional
        90 % band of the time over labs and software and over the range of text tokens [s]; None
        where the time model has no band.
    achieved_share : float
        FLOPs of the passes over what the GPUs' peak rate allows in `time_s`.
    gpus : int
    tdp_w : float
        Of one GPU [W].
    energy_kwh : float
        By the power model of `costmodel.training.overheads.energy_kwh`.
    """

    name: str
    trained: tuple[str, ...]
    passes: dict[str, int]
    samples: int
    steps: int
    micro_batch: int
    accumulation: int
    tokens: float
    padded_tokens: float
    trained_parameters: float
    flops: float
    flops_by_part: dict[str, float]
    compute_s: float
    optimizer_s: float
    communication_s: float
    band_s: tuple[float, float] | None
    achieved_share: float
    gpus: int
    tdp_w: float
    energy_kwh: float

    @property
    def time_s(self) -> float:
        """Time of the stage [s]; nothing overlaps."""
        return self.compute_s + self.optimizer_s + self.communication_s

    @property
    def hours(self) -> float:
        """Time of the stage [h]."""
        return self.time_s / _SECONDS_PER_HOUR

    @property
    def gpu_hours(self) -> float:
        """Time of the stage on all GPUs [h]."""
        return self.hours * self.gpus

    @property
    def band_hours(self) -> tuple[float, float] | None:
        """Band of the time [h]."""
        if self.band_s is None:
            return None
        low, high = self.band_s
        return low / _SECONDS_PER_HOUR, high / _SECONDS_PER_HOUR


@dataclass(frozen=True)
class TrainingCost:
    """Cost of a recipe.

    Attributes
    ----------
    model, gpu, recipe : str
        Names.
    gpus : int
    compress : str
        Label of the compression; ``none`` without.
    stages : tuple of StageCost
    notes : tuple of str
        Assumptions and warnings, for people.
    """

    model: str
    gpu: str
    recipe: str
    gpus: int
    compress: str
    stages: tuple[StageCost, ...]
    notes: tuple[str, ...]

    @property
    def flops(self) -> float:
        """All stages and GPUs [FLOP]."""
        return sum(stage.flops for stage in self.stages)

    @property
    def hours(self) -> float:
        """All stages [h]."""
        return sum(stage.hours for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """All stages and GPUs [h]."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def energy_kwh(self) -> float:
        """All stages and GPUs [kWh]."""
        return sum(stage.energy_kwh for stage in self.stages)

    @property
    def band_hours(self) -> tuple[float, float] | None:
        """Band of the time of all stages [h]: the sum of theirs, as their errors go together."""
        bands = [stage.band_hours for stage in self.stages if stage.band_hours is not None]
        if len(bands) < len(self.stages):
            return None
        return sum(low for low, _ in bands), sum(high for _, high in bands)
