"""Whether a checkpoint can be resumed: what a run's state must look like."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from gckd_mm.checkpoint.foreign import refuse_foreign
from gckd_mm.errors import CheckpointError

_NEEDED = ('state_dict', 'optimizer', 'message_hub')
_MOST_SEED = (1 << 32) - 1
#: states of optimisers that have the shape of their parameter
_MOMENTS = (
    'exp_avg',
    'exp_avg_sq',
    'max_exp_avg_sq',
    'exp_inf',
    'square_avg',
    'grad_avg',
    'acc_delta',
)
_NOT_NEGATIVE = ('lr', 'initial_lr', 'weight_decay', 'eps', 'momentum')
#: in the runtime info: files that mmengine deletes when it writes newer ones
_DELETED = ('best_ckpt', 'last_ckpt')


def check_resumable(checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse to resume what is no interrupted run."""
    missing = [part for part in _NEEDED if part not in checkpoint]
    meta = checkpoint.get('meta', {})
    missing += [f'meta[{name!r}]' for name in ('iter', 'epoch') if name not in meta]
    if missing:
        refuse_foreign(checkpoint, where)
        raise CheckpointError(
            f'{where}: cannot be resumed, it holds no {", ".join(missing)}: it is not '
            f'of an interrupted training. To train from its weights, leave --resume '
            f"out and set --cfg-options load_from='{where}'"
        )
    with _refusing(where):
        for name in ('iter', 'epoch'):
            if type(meta[name]) is not int or meta[name] < 0:
                raise _UnfitError(
                    f'meta[{name!r}] must be a number of at least 0, got {meta[name]!r}'
                )
        if (meta.get('seed') or 0) > _MOST_SEED:
            raise _UnfitError(f"meta['seed'] is above {_MOST_SEED}")
        _check_message_hub(checkpoint['message_hub'])
        # that of the iteration that was saved, counted from 0
        logged = checkpoint['message_hub']['runtime_info'].get('iter', meta['iter'])
        if meta['iter'] - logged not in (0, 1):
            raise _UnfitError(
                f"meta['iter'] is {meta['iter']}, but runtime_info['iter'] is {logged}"
            )
        for path, state in _states_of(checkpoint['optimizer']):
            for name, kind in (('state', dict), ('param_groups', list)):
                if not isinstance(state.get(name), kind):
                    raise _UnfitError(
                        f'{path}[{name!r}] must be of type {kind.__name__}'
                    )


def check_run_state(
    checkpoint: Mapping[str, Any], optim_wrapper: Any, schedulers: Any, where: str
) -> None:
    """Refuse to resume with the state of another optimiser or another schedule."""
    with _refusing(where):
        if hasattr(optim_wrapper, 'optimizer'):
            _check_optimizer(checkpoint['optimizer'], optim_wrapper.optimizer)
        if isinstance(schedulers, list) and schedulers:
            _check_schedulers(checkpoint.get('param_schedulers'), schedulers)


class _UnfitError(Exception):
    """Why a run cannot be resumed."""


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    try:
        yield
    except _UnfitError as error:
        raise CheckpointError(f'{where}: cannot be resumed: {error}') from error


def _check_message_hub(hub: Mapping[str, Any]) -> None:
    for name in ('log_scalars', 'runtime_info', 'resumed_keys'):
        part = hub.get(name)
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise _UnfitError(f'message_hub[{name!r}] must be a dict of names')
    for name, history in hub['log_scalars'].items():
        if isinstance(history, HistoryBuffer) and not _is_history(history):
            raise _UnfitError(f'the log history of {name!r} is no list of numbers')
    info = hub['runtime_info']
    for name in ('keep_ckpt_ids', 'outdated_ckpt_ids'):
        steps = info.get(name) or []
        is_list = isinstance(steps, list | tuple)
        if not is_list or any(type(step) is not int for step in steps):
            raise _UnfitError(f'runtime_info[{name!r}] must be a list of numbers')
    for name, value in info.items():
        is_path = isinstance(value, str) and os.path.basename(value).endswith('.pth')
        if name.startswith(_DELETED) and not is_path and value not in (None, ''):
            raise _UnfitError(
                f'runtime_info[{name!r}] must be the path of a checkpoint (.pth)'
            )
    for name in ('iter', 'epoch', 'max_iters', 'max_epochs'):
        if type(info.get(name, 0)) is not int:
            raise _UnfitError(f'runtime_info[{name!r}] must be a number')


def _is_history(history: HistoryBuffer) -> bool:
    values = vars(history)
    logs, counts = values.get('_log_history'), values.get('_count_history')
    return (
        isinstance(logs, np.ndarray)
        and isinstance(counts, np.ndarray)
        and logs.ndim == 1
        and logs.shape == counts.shape
        and all(np.issubdtype(part.dtype, np.number) for part in (logs, counts))
        and isinstance(values.get('max_length', 1), int)
        and not _overwritten(values, HistoryBuffer)
    )


def _overwritten(names: Mapping[Any, Any], kind: type) -> list[Any]:
    """Return which names are methods of a class, which values must not replace."""
    return [name for name in names if callable(getattr(kind, str(name), None))]


def _states_of(optimizer: Mapping[str, Any]) -> Iterator[tuple[str, Mapping]]:
    """Yield the state of every optimiser: mmengine also keeps several by name."""
    found = {key: v for key, v in optimizer.items() if isinstance(v, dict)}
    if 'state' in optimizer or 'param_groups' in optimizer or not found:
        yield 'optimizer', optimizer
    else:
        yield from ((f'optimizer[{name!r}]', state) for name, state in found.items())


def _check_schedulers(stored: Any, schedulers: Sequence[Any]) -> None:
    if not isinstance(stored, list) or len(stored) != len(schedulers):
        raise _UnfitError(
            f'param_schedulers must be a list of {len(schedulers)}, as in the config'
        )
    for number, (scheduler, state) in enumerate(zip(schedulers, stored, strict=True)):
        path = f'param_schedulers[{number}]'
        if not isinstance(state, dict):
            raise _UnfitError(f'{path} must be a dict')
        for name in _overwritten(state, type(scheduler)):
            raise _UnfitError(f'{path}[{name!r}] is no value of a schedule')
        _check_alike(state, scheduler.state_dict(), path)


def _check_optimizer(
    stored: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> None:
    own = optimizer.state_dict()
    groups = stored['param_groups']
    if len(groups) != len(own['param_groups']):
        raise _UnfitError(
            f'the optimizer has {len(groups)} groups of parameters, the config '
            f'{len(own["param_groups"])}: use the config that it was trained with'
        )
    numbers: list[Any] = []
    for number, (group, expected) in enumerate(
        zip(groups, own['param_groups'], strict=True)
    ):
        path = f'optimizer.param_groups[{number}]'
        if not isinstance(group, dict) or not isinstance(group.get('params'), list):
            raise _UnfitError(f"{path} must be a dict with a list of 'params'")
        if len(group['params']) != len(expected['params']):
            raise _UnfitError(
                f'{path} has {len(group["params"])} parameters, the config '
                f'{len(expected["params"])}: use the config that it was trained with'
            )
        if not all(type(one) is int for one in group['params']):
            raise _UnfitError(f"{path}['params'] must be numbers")
        for name in expected.keys() - group.keys():
            raise _UnfitError(f'{path} lacks {name!r}: it is of another optimiser')
        rest = {name: v for name, v in group.items() if name != 'params'}
        _check_alike(rest, expected, path)
        numbers += group['params']
    parameters = [each for group in optimizer.param_groups for each in group['params']]
    shapes = {n: p.shape for n, p in zip(numbers, parameters, strict=True)}
    if len(shapes) != len(parameters):
        raise _UnfitError('the optimizer names a parameter twice')
    for number, state in stored['state'].items():
        path = f'optimizer.state[{number!r}]'
        if number not in shapes or not isinstance(state, dict):
            raise _UnfitError(f'{path} is no state of a parameter')
        for name, value in state.items():
            if name == 'step':
                _check_step(value, f'{path}[{name!r}]')
            else:
                _check_moment(value, name, shapes[number], f'{path}[{name!r}]')
    _check_complete(stored['state'], optimizer)


def _check_step(value: Any, path: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, Tensor) and value.ndim == 0:
        is_number, value = value.dtype is not torch.bool, value.item()
    if not is_number or not 0 <= value < math.inf:
        raise _UnfitError(f'{path} must be a number of at least 0, got {value}')


def _check_moment(value: Any, name: str, shape: torch.Size, path: str) -> None:
    if not isinstance(value, Tensor):
        if not isinstance(value, int | float | None) or name in _MOMENTS:
            raise _UnfitError(f'{path} must be a tensor')
        return
    if value.shape != shape and (value.ndim or name in _MOMENTS):
        raise _UnfitError(f'{path} has shape {tuple(value.shape)}, not {tuple(shape)}')
    if name in _MOMENTS and not value.is_floating_point():
        raise _UnfitError(f'{path} is of type {value.dtype}')
    if value.is_floating_point() and not value.isfinite().all():
        raise _UnfitError(f'{path} is not finite: resume an earlier checkpoint')


def _check_complete(
    states: Mapping[Any, Mapping[str, Any]], optimizer: torch.optim.Optimizer
) -> None:
    """Refuse a state of which something was lost: an optimiser would begin anew."""
    names = {frozenset(state) for state in states.values()}
    if len(names) > 1:
        lost = sorted(frozenset.union(*names) - frozenset.intersection(*names))
        raise _UnfitError(f'some entries of optimizer.state lack {lost}')
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        missing = {'step', 'exp_avg', 'exp_avg_sq'} - set().union(*names)
        if missing:
            raise _UnfitError(f'optimizer.state lacks {sorted(missing)}')


def _check_alike(found: Mapping[Any, Any], own: Mapping[Any, Any], path: str) -> None:
    """Refuse values of other types than those of the same names in the run."""
    for name, value in found.items():
        expected = own.get(name)
        if expected is None or value is None:
            continue
        if not _is_alike(value, expected):
            raise _UnfitError(
                f'{path}[{name!r}] is of type {type(value).__name__}, not '
                f'{type(expected).__name__} as in the config'
            )
        if isinstance(value, int | float) and (
            not math.isfinite(value) or (name in _NOT_NEGATIVE and value < 0)
        ):
            raise _UnfitError(f'{path}[{name!r}] cannot be {value}')


def _is_alike(value: Any, expected: Any) -> bool:
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(expected, list | tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(expected)
            and all(
                isinstance(one, int | float) == isinstance(two, int | float)
                and (not isinstance(one, int | float) or math.isfinite(one))
                for one, two in zip(value, expected, strict=True)
            )
        )
    return isinstance(value, dict if isinstance(expected, dict) else type(expected))
