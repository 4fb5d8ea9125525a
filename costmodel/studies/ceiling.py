"""What no compression after the vision tower can beat: a prompt without visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from costmodel.case import prepare
from costmodel.results import STAGES
from costmodel.studies.plan_runs import PlanRun, run_plan, total

__all__ = ["Ceiling", "ceilings"]

_VISION = ("vision_encoder", "projector")
_LANGUAGE = ("llm_prefill", "lm_head")


@dataclass(frozen=True)
class Ceiling:
    """What no method after the vision tower can beat on a GPU and runtime.

    Attributes
    ----------
    gpu, runtime : str
        Where.
    baseline_s : dict of str to float
        GPU time by stage and ``host`` without compression [s].
    empty_s : dict of str to float
        The same with no visual token in the language model, vision tower included [s].
    """

    gpu: str
    runtime: str
    baseline_s: dict[str, float]
    empty_s: dict[str, float]

    @property
    def speedup(self) -> float:
        """Time to the first token without over with no visual token."""
        return sum(self.baseline_s.values()) / sum(self.empty_s.values())


def ceilings(
    model: str = "llava-1.5-7b",
    gpus: Sequence[str] = ("a100-80gb-sxm", "rtx-a6000"),
    runtimes: Sequence[str] = ("eager", "cuda-graph"),
    text_tokens: int = 64,
) -> list[Ceiling]:
    """Predict the request with and without visual tokens in the language model.

    Parameters
    ----------
    model, gpus, runtimes
        Names; attention is flash.
    text_tokens : int
        Prompt tokens that are not visual.

    Returns
    -------
    list of Ceiling

    Raises
    ------
    CostModelError
        If a name is not known or a GPU has no calibration.

    Examples
    --------
    >>> (found,) = ceilings(gpus=["a100-80gb-sxm"], runtimes=["cuda-graph"])
    >>> found.empty_s["vision_encoder"] == found.baseline_s["vision_encoder"]
    True
    """
    found = []
    for runtime in runtimes:
        for gpu in gpus:
            (plain,), (text,) = (
                run_plan([
                    prepare(
                        model, gpu, text_tokens=text_tokens, runtime=runtime,
                        attention="flash", time_model="calibrated",
                        visual_tokens=visual_tokens,
                    )
                ], None)
                for visual_tokens in (None, 0)
            )  # fmt: skip
            kept, changed = _parts(plain, _VISION), _parts(text, _LANGUAGE)
            found.append(
                Ceiling(
                    gpu, runtime, _parts(plain, STAGES),
                    {**kept, **changed, "host": kept["host"] + changed["host"]},
                )
            )  # fmt: skip
    return found


def _parts(run: PlanRun, stages: Sequence[str]) -> dict[str, float]:
    return {
        **{stage: run.gpu_s[stage] for stage in stages if stage != "compression"},
        "host": total(run.host_s, stages),
    }
