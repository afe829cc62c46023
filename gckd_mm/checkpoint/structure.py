"""What a checkpoint may be made of, whoever wrote it: one check, where it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from gckd_mm.errors import CheckpointError

#: of a checkpoint, each read by mmengine or by us under the assumption of its type
_PARTS: dict[str, type | tuple[type, ...]] = {
    'meta': dict,
    'state_dict': dict,
    'optimizer': dict,
    'param_schedulers': (list, dict),
    'message_hub': dict,
}
_META: dict[str, type | tuple[type, ...]] = {
    'cfg': str,
    'iter': int,
    'epoch': int,
    'seed': int,
    'adaptation_steps': int,
    'global_batch_size': int,
    'selection': str,
    'hook_msgs': dict,
    'clip_config': dict,
}
_MOST_LEVELS = 64
#: values, each counted as often as it is reached
_MOST_VALUES = 20_000_000
_MOST_COUNT = 1 << 62
_EXTRA_STATE = '_extra_state'
_PLAIN = (
    bool,
    int,
    float,
    str,
    bytes,
    type(None),
    np.generic,
    torch.dtype,
    torch.device,
)
_CONTAINERS = (dict, list, tuple, set, frozenset, HistoryBuffer)


def check_structure(checkpoint: Any, where: str, most_bytes: int) -> None:
    """Refuse what no tool could use, before any of them meets it."""
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{where}: must hold a dict, got {type(checkpoint).__name__}'
        )
    _Walk(where, most_bytes).check(checkpoint)
    for name, kind in _PARTS.items():
        if name in checkpoint:
            _check_kind(checkpoint[name], kind, f'{where}: {name!r}')
    _check_meta(checkpoint.get('meta', {}), where)
    # Values that are no tensors are refused where they are loaded into a model.
    check_names(checkpoint.get('state_dict', {}), f"{where}: 'state_dict'")


def check_names(state_dict: Mapping[Any, Any], where: str) -> None:
    """Refuse a state dict whose keys are no names."""
    for key in state_dict:
        if not isinstance(key, str):
            raise CheckpointError(
                f'{where}: names must be strings, got {_shown(key)} '
                f'({type(key).__name__})'
            )


def check_tensors(state_dict: Mapping[Any, Any], where: str) -> None:
    """Refuse a state dict that holds anything but named tensors."""
    check_names(state_dict, where)
    for key, value in state_dict.items():
        if not isinstance(value, Tensor) and not key.endswith(_EXTRA_STATE):
            raise CheckpointError(
                f'{where}: {_shown(key)} must be a tensor, got {type(value).__name__}'
            )


def _check_meta(meta: dict[str, Any], where: str) -> None:
    for name, kind in _META.items():
        value = meta.get(name)
        if value is None:
            continue
        _check_kind(value, kind, f'{where}: meta[{name!r}]')
        if kind is int and not 0 <= value < _MOST_COUNT:
            raise CheckpointError(
                f'{where}: meta[{name!r}] must be a number from 0, got {value}'
            )


def _check_kind(value: Any, kind: type | tuple[type, ...], where: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = ' or '.join(each.__name__ for each in kinds)
        raise CheckpointError(f'{where} must be of type {names}, got {_shown(value)}')


class _Walk:
    """Visit every value of a checkpoint once, and add up what they take."""

    def __init__(self, where: str, most_bytes: int) -> None:
        self._where = where
        self._most_bytes = most_bytes
        self._bytes = 0
        self._storages: set[int] = set()
        self._counts: dict[int, int] = {}
        self._open: set[int] = set()

    def check(self, checkpoint: dict[Any, Any]) -> None:
        for key, value in checkpoint.items():
            if not isinstance(key, str):
                self._refuse(f'names must be strings, got {_shown(key)}')
            self._count(value, key, 1)

    def _count(self, value: Any, name: str, level: int) -> int:
        """Return of how many values this one is made, shared ones counted again."""
        if isinstance(value, Tensor):
            self._check_tensor(value, name)
            return 1
        if isinstance(value, np.ndarray):
            self._check_array(value, name)
            return 1
        if isinstance(value, _PLAIN):
            return 1
        if not isinstance(value, _CONTAINERS):
            self._refuse(
                f'{name} is of type {type(value).__name__}, which no checkpoint holds'
            )
        if id(value) in self._open or level > _MOST_LEVELS:
            self._refuse(f'{name} is nested deeper than {_MOST_LEVELS} levels')
        if id(value) not in self._counts:
            self._open.add(id(value))
            self._counts[id(value)] = 1 + sum(
                self._count(part, part_name, level + 1)
                for part_name, part in _parts_of(value, name)
            )
            self._open.discard(id(value))
        if self._counts[id(value)] > _MOST_VALUES:
            self._refuse(f'{name} unfolds to more than {_MOST_VALUES} values')
        return self._counts[id(value)]

    def _check_tensor(self, tensor: Tensor, name: str) -> None:
        reason = _unusual(tensor)
        if reason:
            self._refuse(
                f'{name} is {reason}: only dense tensors of real numbers can be read'
            )
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            self._refuse(
                f'{name} has the shape {tuple(tensor.shape)}, for which it does not '
                f'hold enough numbers'
            )
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self._add(storage.nbytes(), name)

    def _check_array(self, array: np.ndarray, name: str) -> None:
        if array.dtype.hasobject:
            self._refuse(f'{name} is an array of objects, not of numbers')
        self._add(array.nbytes, name)

    def _add(self, count: int, name: str) -> None:
        self._bytes += count
        if self._bytes > self._most_bytes:
            self._refuse(f'{name} is larger than the file that it lies in')

    def _refuse(self, reason: str) -> None:
        raise CheckpointError(f'{self._where}: {reason}')


def _parts_of(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, HistoryBuffer):
        value = vars(value)
        # methods of HistoryBuffer, which the reader has allowed by name
        value = {key: v for key, v in value.items() if key != '_statistics_methods'}
    if isinstance(value, dict):
        for key, part in value.items():
            yield f'{name}[{_shown(key)}]', part
            if isinstance(key, tuple):
                yield f'a key of {name}', key
    else:
        for number, part in enumerate(value):
            yield f'{name}[{number}]', part


def _unusual(tensor: Tensor) -> str:
    """Say what makes a tensor one that no model takes; empty if nothing does."""
    if tensor.is_meta:
        return 'without values (on the meta device)'
    if tensor.is_nested:
        return 'nested'
    if tensor.layout != torch.strided:
        return 'sparse'
    if tensor.is_quantized:
        return 'quantised'
    if tensor.is_complex():
        return 'complex'
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
        return f'of the class {type(tensor).__name__}'
    return ''


def _shown(value: Any, limit: int = 60) -> str:
    """Describe a value of any size in a few letters."""
    if isinstance(value, str | int | float | bool) or value is None:
        try:
            text = repr(value)
        except ValueError:  # an integer of thousands of digits
            text = type(value).__name__
        return text if len(text) <= limit else f'{text[:limit]}…'
    return f'a {type(value).__name__}'
