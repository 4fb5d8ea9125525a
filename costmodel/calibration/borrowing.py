"""Kinds that a calibration takes over from another kind or another calibration."""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.calibration.recipe import Borrow, load_stand_ins
from costmodel.specs.calibration import BandTable, KindFit

__all__ = ["borrowed", "stand_ins"]


def borrowed(borrow: Borrow, fit: KindFit) -> KindFit:
    """Return a fit as it is taken over: labelled, with wider bands, without its rows.

    Parameters
    ----------
    borrow : Borrow
        The rule.
    fit : KindFit
        What is taken.

    Returns
    -------
    KindFit
    """
    bands = fit.bands.model_dump()
    bands |= {end: tuple(float(v**borrow.widen) for v in bands[end]) for end in ("low", "high")}
    return fit.model_copy(
        update={
            "origin": "transferred",
            "rule": f"{fit.rule}; {borrow.rule}" if fit.rule else borrow.rule,
            "time_scale": fit.time_scale * borrow.time_scale,
            "bands": BandTable.model_validate(bands),
            "residual": None,
            "seen": None,
            "error": None,
        }
    )


def stand_ins(kinds: Mapping[str, KindFit]) -> dict[str, KindFit]:
    """Return kinds that were not measured but have a like one that was.

    Parameters
    ----------
    kinds : mapping of str to KindFit
        What there is.

    Returns
    -------
    dict of str to KindFit
        By the rules of recipes.yaml, later ones building on earlier ones.
    """
    found: dict[str, KindFit] = {}
    for rule in load_stand_ins():
        for kind in rule.names:
            donor = kinds.get(rule.from_) or found.get(rule.from_)
            if donor is not None and kind not in kinds:
                found[kind] = borrowed(rule, donor).model_copy(update={"kind": kind})
    return found
