"""Build what the config in a checkpoint says, no larger than its weights are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gckd_mm.checkpoint.parts import state_dict_of
from gckd_mm.errors import CheckpointError, InputError

#: numbers and parts beyond those of the checkpoint that a model may have for a while
_SPARE_NUMBERS = 1 << 26
_SPARE_PARTS = 10_000


@contextmanager
def built_from(checkpoint: Mapping[str, Any], where: str) -> Iterator[None]:
    """Build and use what the config in a checkpoint says, as small as its weights."""
    tensors = tensors_of(checkpoint)
    numbers = 4 * sum(value.numel() for value in tensors.values()) + _SPARE_NUMBERS
    parts = 20 * len(tensors) + _SPARE_PARTS

    def spend(module: nn.Module, name: str, value: Any) -> None:
        nonlocal numbers, parts
        parts -= 1
        if isinstance(value, Tensor):
            numbers -= value.numel()
        if numbers < 0 or parts < 0:
            raise CheckpointError(
                f'the config in the checkpoint describes a much larger model than its '
                f'weights are ({type(module).__name__}.{name}): it is damaged; name '
                f'the config file that it was trained with'
            )

    hooks = [
        torch_module.register_module_parameter_registration_hook(spend),
        torch_module.register_module_buffer_registration_hook(spend),
        torch_module.register_module_module_registration_hook(spend),
    ]
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        reason = f'what it describes does not work: {reason}'
        raise unfit(where, reason) from error
    finally:
        for hook in hooks:
            hook.remove()


def tensors_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors among the weights of a checkpoint."""
    return {
        name: value
        for name, value in state_dict_of(checkpoint).items()
        if isinstance(value, Tensor)
    }


def unfit(where: str, reason: str) -> CheckpointError:
    """Return the error of a config in a checkpoint that cannot be used."""
    return CheckpointError(
        f'{where}: its config cannot be used ({reason}): name the config file that it '
        f'was trained with'
    )
