"""What a step costs beside the passes over the model: optimizer, communication; and energy."""

from __future__ import annotations

from costmodel.training.assumptions import load_assumptions

__all__ = ["energy_kwh", "gather_bytes", "optimizer_time_s", "reduce_bytes"]

_BYTES_16_BIT = 2.0
_J_PER_KWH = 3.6e6


def reduce_bytes(trained: float, gpus: int, zero: int) -> float:
    """Return bytes that a GPU sends per optimizer step for gradients and updated weights [B].

    A ring's reduce-scatter of the gradients sends ``2 P (N - 1) / N`` bytes for P trained
    parameters of 16 bits on N GPUs.  Below ZeRO 3 the updated weights are gathered, as many bytes
    again; ZeRO 3 gathers them in the passes instead (`gather_bytes`).

    Parameters
    ----------
    trained : float
        Trained parameters.
    gpus : int
        GPUs that share the step.
    zero : int
        Stage of ZeRO.

    References
    ----------
    .. [1] S. Rajbhandari et al., ZeRO, section 7, https://arxiv.org/abs/1910.02054.

    Examples
    --------
    >>> reduce_bytes(7e9, 1, 2), reduce_bytes(1e9, 8, 2) / reduce_bytes(1e9, 8, 3)
    (0.0, 2.0)
    """
    return (1 if zero == 3 else 2) * _BYTES_16_BIT * trained * (gpus - 1) / gpus


def gather_bytes(parameters: float, gpus: int, zero: int) -> float:
    """Return bytes that a GPU receives per micro batch to gather weights [B].

    ZeRO 3 gathers all weights before the forward and again before the backward pass, which also
    holds the recomputation.  Below it every GPU has all weights.

    Parameters
    ----------
    parameters : float
        Parameters of the whole model, frozen ones included.
    gpus, zero : int
        As in `reduce_bytes`.

    Examples
    --------
    Over a micro batch that is a whole step, ZeRO 3 moves 1.5 times the bytes of ZeRO 2:

    >>> both = gather_bytes(1e9, 8, 3) + reduce_bytes(1e9, 8, 3)
    >>> both / reduce_bytes(1e9, 8, 2)
    1.5
    """
    return 2 * _BYTES_16_BIT * parameters * (gpus - 1) / gpus if zero == 3 else 0.0


def optimizer_time_s(trained: float, gpus: int, bandwidth_bytes_per_s: float) -> float:
    """Return the time of AdamW on a GPU's share of the trained parameters [s]."""
    moved = load_assumptions().optimizer_bytes_per_parameter.value * trained / gpus
    return moved / bandwidth_bytes_per_s


def energy_kwh(gpu_hours: float, tdp_w: float) -> float:
    """Return the energy of GPU-hours [kWh].

    The power model is ``TDP x share x PUE``: the mean power of a GPU is a constant share of its
    TDP, and the computer centre takes PUE times that.

    References
    ----------
    .. [1] H. Touvron et al., LLaMA, section 6, https://arxiv.org/abs/2302.13971.

    Examples
    --------
    LLaMA-7B, which the report puts at 36 MWh:

    >>> round(energy_kwh(82432, 400) / 1e3, 1)
    36.3
    """
    assumed = load_assumptions()
    watts = tdp_w * assumed.power_share.value * assumed.power_usage_effectiveness.value
    return gpu_hours * 3600 * watts / _J_PER_KWH
