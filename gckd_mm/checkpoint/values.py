"""Values of a checkpoint that no training leaves on purpose: NaN and infinity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gckd_mm.checkpoint.parts import ENCODERS, TEACHER
from gckd_mm.errors import CheckpointError
from gckd_mm.model_wrapper import unwrapped

#: buffers of ours that are infinite or NaN where there is nothing: the similarity of a
#: neighbour, the bound of a list, the threshold of a clustering
EMPTY_VALUES = ('similarity', 'bound', 'threshold')
_STATISTICS = ('running_mean', 'running_var')


def first_non_finite(
    state_dict: Mapping[str, Any], model: nn.Module | None = None
) -> str | None:
    """Return the name of the first tensor that is NaN or infinite and must not be.

    Parameters must be finite. Buffers may be infinite: the similarity of a neighbour
    that there is none of. Those of an encoder must not be NaN, and the statistics of a
    normalisation must be finite.
    """
    buffers = None
    if model is not None:
        buffers = {name for name, _ in unwrapped(model).named_buffers()}
    for name, value in state_dict.items():
        if not isinstance(value, Tensor) or is_finite(value):
            continue
        last = name.rpartition('.')[2]
        if last in _STATISTICS:
            return name
        is_buffer = last in EMPTY_VALUES if buffers is None else name in buffers
        of_encoder = name.removeprefix(TEACHER).startswith(ENCODERS)
        if not is_buffer or (of_encoder and bool(value.isnan().any())):
            return name
    return None


def check_finite(
    state_dict: Mapping[str, Any], where: str, model: nn.Module | None = None
) -> None:
    """Refuse weights that are NaN or infinite: see :func:`first_non_finite`."""
    name = first_non_finite(state_dict, model)
    if name is not None:
        raise CheckpointError(
            f'{where}: {name} holds NaN or infinite numbers: the training had '
            f'diverged, or the file is damaged; use an earlier checkpoint'
        )


def is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers of a tensor are finite."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    if tensor.element_size() == 1:  # float8, which has no arithmetic
        tensor = tensor.float()
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    # One pass without memory of its own: NaN and infinity reach every sum.
    if bool(tensor.sum(dtype=wide).isfinite()):
        return True
    return bool(tensor.isfinite().all())
