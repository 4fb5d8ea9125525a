"""SmolVLM2 (``smolvlm``): the architecture of Idefics3 under a type of its own.

Defaults: transformers 5.23.0, ``configuration_smolvlm.py`` and
``image_processing_pil_smolvlm.py``, equal to Idefics3's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.catalog.families.idefics3 import read_as
from costmodel.specs.model import ModelSpec

__all__ = ["MODEL_TYPES", "read"]

MODEL_TYPES = ("smolvlm",)


def read(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: str
) -> ModelSpec:
    """Read a ``smolvlm`` configuration.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    preprocessor : mapping, optional
        Content of ``preprocessor_config.json``; gives the tile size.
    where : str
        File name for error messages.

    Returns
    -------
    ModelSpec
        Shapes of the model.

    Raises
    ------
    ConfigError
        If a key is missing, malformed or contradicts another.

    Examples
    --------
    >>> config = {"model_type": "smolvlm", "scale_factor": 3,
    ...           "vision_config": {"image_size": 384, "patch_size": 14}}
    >>> processor = {"max_image_size": {"longest_edge": 384}, "size": {"longest_edge": 1536}}
    >>> read(config, processor, "config.json").image_rule.merge
    3
    """
    return read_as("smolvlm", config, preprocessor, where)
