"""The wrappers that a model has while it is trained on several devices or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from gckd_mm.errors import CheckpointError

_DISTRIBUTED, _COMPILED = 'module.', '_orig_mod.'


def unwrapped(model: nn.Module) -> Any:
    """Return the model itself, whether or not a wrapper such as DDP is around it."""
    return model.module if is_model_wrapper(model) else model


def without_wrapper(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Strip what DistributedDataParallel and torch.compile put before every key."""
    stripped = {bare_name(key): value for key, value in state_dict.items()}
    if len(stripped) != len(state_dict):
        names = [bare_name(key) for key in state_dict]
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(
            f'{twice} is there twice, with and without {_DISTRIBUTED!r} or '
            f'{_COMPILED!r} before it: the checkpoint is mixed of two'
        )
    return stripped


def bare_name(key: str) -> str:
    """Return a key of a state dict as the model itself names it."""
    return key.replace(_COMPILED, '').removeprefix(_DISTRIBUTED)
