"""Load the weights of a checkpoint into a model that they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from gckd_mm.checkpoint.foreign import refuse_foreign
from gckd_mm.checkpoint.structure import check_tensors
from gckd_mm.checkpoint.values import check_finite
from gckd_mm.errors import CheckpointError
from gckd_mm.model_wrapper import unwrapped, without_wrapper


def check_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any], where: str, partial: bool = False
) -> None:
    """Refuse a state dict of another architecture, or one with weights that are NaN.

    With ``partial``, keys may be missing or left over, as when training starts from
    another model's weights. Shapes must fit all the same, and some key must.

    Raises:
        CheckpointError: Lists missing, unexpected and misshapen keys; or names the
            first parameter that is not finite; or says how to convert the weights of
            another project.
    """
    own, given = unwrapped(model).state_dict(), without_wrapper(state_dict)
    shared = own.keys() & given.keys()
    misshapen = [
        f'{key} ({_shape(given[key])} in the file, {_shape(own[key])} in the model)'
        for key in shared
        if not _fits(key, given[key], own[key])
    ]
    missing = own.keys() - given.keys()
    unexpected = given.keys() - own.keys()
    if misshapen or not shared or (not partial and (missing or unexpected)):
        refuse_foreign({'state_dict': state_dict}, where)
        raise CheckpointError(
            f"{where}: of another architecture than the config's model.\n"
            f'  missing: {listed(missing)}\n'
            f'  unexpected: {listed(unexpected)}\n'
            f'  of another shape: {listed(misshapen)}\n'
            f'  use the config that it was trained with'
        )
    check_finite({key: given[key] for key in given if key in shared}, where, model)


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], where: str) -> None:
    """Load a whole state dict into a model, the tokenizer's vocabulary included."""
    refuse_foreign(checkpoint, where)
    state_dict = checkpoint.get('state_dict', checkpoint)
    check_tensors(state_dict, where)
    check_state_dict(model, state_dict, where)
    unwrapped(model).load_state_dict(without_wrapper(state_dict))


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Return the first of some names, sorted, and how many there are."""
    names = sorted(names)
    shown = ', '.join(names[:limit]) or 'none'
    return shown if len(names) <= limit else f'{shown}, … ({len(names)} in all)'


def _fits(key: str, given: Any, own: Any) -> bool:
    if not isinstance(own, Tensor) or not isinstance(given, Tensor):
        return type(given) is type(own)
    if key.endswith('_extra_state'):  # of any length, but of one kind
        return given.dtype == own.dtype and given.ndim == own.ndim
    same_kind = given.is_floating_point() == own.is_floating_point()
    return same_kind and given.shape == own.shape


def _shape(value: Any) -> str:
    is_tensor = isinstance(value, Tensor)
    return str(tuple(value.shape)) if is_tensor else type(value).__name__
