"""The wrapper that a model has while it is trained on several devices."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """Return the model itself, whether or not a wrapper such as DDP is around it."""
    return model.module if is_model_wrapper(model) else model
