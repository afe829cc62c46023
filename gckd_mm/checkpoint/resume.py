"""Whether a checkpoint can be resumed: what a run's state must look like."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
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
#: in the runtime info: files that mmengine deletes when it writes newer ones
_DELETED = ('best_ckpt', 'last_ckpt')


def check_resumable(checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse to resume what is no interrupted run.

    Args:
        checkpoint: From :func:`gckd_mm.checkpoint.read_checkpoint`.
        where: The file, for messages.

    Raises:
        CheckpointError: If it holds weights alone, or the state of the run is damaged.
    """
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
    for name in ('iter', 'epoch'):
        value = meta[name]
        if type(value) is not int or value < 0:
            raise _damaged(
                where, f'meta[{name!r}] must be a number of at least 0, got {value!r}'
            )
    if (meta.get('seed') or 0) > _MOST_SEED:
        raise _damaged(where, f"meta['seed'] is above {_MOST_SEED}")
    _check_message_hub(checkpoint['message_hub'], where)
    # that of the iteration that was saved, counted from 0
    logged = checkpoint['message_hub']['runtime_info'].get('iter', meta['iter'])
    if meta['iter'] - logged not in (0, 1):
        raise _damaged(
            where,
            f"meta['iter'] is {meta['iter']}, but runtime_info['iter'] is {logged}",
        )
    for name in ('state', 'param_groups'):
        kind = dict if name == 'state' else list
        for path, state in _states_of(checkpoint['optimizer']):
            if not isinstance(state.get(name), kind):
                raise _damaged(
                    where, f'{path}[{name!r}] must be of type {kind.__name__}'
                )


def check_run_state(
    checkpoint: Mapping[str, Any], optim_wrapper: Any, schedulers: Any, where: str
) -> None:
    """Refuse to resume with the state of another optimiser or another schedule.

    Args:
        checkpoint: That :func:`check_resumable` accepts.
        optim_wrapper: Of the run, built; it is left as it is.
        schedulers: Of the run, built: a list, or None.
        where: The file, for messages.

    Raises:
        CheckpointError: Names the value that does not fit.
    """
    if hasattr(optim_wrapper, 'optimizer'):
        _check_optimizer(checkpoint['optimizer'], optim_wrapper.optimizer, where)
    stored = checkpoint.get('param_schedulers')
    if not isinstance(schedulers, list) or not schedulers:
        return
    if not isinstance(stored, list) or len(stored) != len(schedulers):
        raise _damaged(
            where,
            f'param_schedulers must be a list of {len(schedulers)}, as in the config',
        )
    for number, (scheduler, state) in enumerate(zip(schedulers, stored, strict=True)):
        path = f'param_schedulers[{number}]'
        if not isinstance(state, dict):
            raise _damaged(where, f'{path} must be a dict')
        for name in state:
            if callable(getattr(type(scheduler), str(name), None)):
                raise _damaged(where, f'{path}[{name!r}] is no value of a schedule')
        _check_alike(state, scheduler.state_dict(), path, where)


def _check_message_hub(hub: Mapping[str, Any], where: str) -> None:
    for name in ('log_scalars', 'runtime_info', 'resumed_keys'):
        part = hub.get(name)
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise _damaged(
                where, f'message_hub[{name!r}] must be a dict with names as keys'
            )
    for name, history in hub['log_scalars'].items():
        if isinstance(history, HistoryBuffer) and not _is_history(history):
            raise _damaged(where, f'the log history of {name!r} is no list of numbers')
    info = hub['runtime_info']
    for name in ('keep_ckpt_ids', 'outdated_ckpt_ids'):
        steps = info.get(name) or []
        is_list = isinstance(steps, list | tuple)
        if not is_list or any(type(step) is not int for step in steps):
            raise _damaged(where, f'runtime_info[{name!r}] must be a list of numbers')
    for name, value in info.items():
        if name.startswith(_DELETED) and not _is_checkpoint_path(value):
            raise _damaged(
                where, f'runtime_info[{name!r}] must be the path of a checkpoint (.pth)'
            )
    for name in ('iter', 'epoch', 'max_iters', 'max_epochs'):
        if type(info.get(name, 0)) is not int:
            raise _damaged(where, f'runtime_info[{name!r}] must be a number')


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
        and not any(
            callable(getattr(HistoryBuffer, str(name), None)) for name in values
        )
    )


def _is_checkpoint_path(value: Any) -> bool:
    if value is None or value == '':
        return True
    return isinstance(value, str) and os.path.basename(value).endswith('.pth')


def _states_of(optimizer: Mapping[str, Any]) -> Iterator[tuple[str, Mapping]]:
    """Yield the state of every optimiser: mmengine also keeps several by name."""
    if 'state' in optimizer or 'param_groups' in optimizer:
        yield 'optimizer', optimizer
        return
    found = {key: v for key, v in optimizer.items() if isinstance(v, dict)}
    yield from ((f'optimizer[{name!r}]', state) for name, state in found.items())
    if not found:
        yield 'optimizer', optimizer


def _check_optimizer(
    stored: Mapping[str, Any], optimizer: torch.optim.Optimizer, where: str
) -> None:
    own = optimizer.state_dict()
    groups = stored['param_groups']
    if len(groups) != len(own['param_groups']):
        raise _damaged(
            where,
            f'the optimizer has {len(groups)} groups of parameters, the config '
            f'{len(own["param_groups"])}: use the config that it was trained with',
        )
    numbers: list[Any] = []
    for number, (group, expected) in enumerate(
        zip(groups, own['param_groups'], strict=True)
    ):
        path = f'optimizer.param_groups[{number}]'
        if not isinstance(group, dict) or not isinstance(group.get('params'), list):
            raise _damaged(where, f"{path} must be a dict with a list of 'params'")
        if len(group['params']) != len(expected['params']):
            raise _damaged(
                where,
                f'{path} has {len(group["params"])} parameters, the config '
                f'{len(expected["params"])}: use the config that it was trained with',
            )
        if not all(type(one) is int for one in group['params']):
            raise _damaged(where, f"{path}['params'] must be numbers")
        for name in expected.keys() - group.keys():
            raise _damaged(where, f'{path} lacks {name!r}: it is of another optimiser')
        rest = {name: v for name, v in group.items() if name != 'params'}
        _check_alike(rest, expected, path, where)
        numbers += group['params']
    parameters = [each for group in optimizer.param_groups for each in group['params']]
    shapes = {n: p.shape for n, p in zip(numbers, parameters, strict=True)}
    if len(shapes) != len(parameters):
        raise _damaged(where, 'the optimizer names a parameter twice')
    for number, state in stored['state'].items():
        path = f'optimizer.state[{number!r}]'
        if number not in shapes or not isinstance(state, dict):
            raise _damaged(where, f'{path} is no state of a parameter')
        for name, value in state.items():
            here = f'{path}[{name!r}]'
            if name == 'step':
                _check_step(value, here, where)
            else:
                _check_moment(value, name, shapes[number], here, where)
    _check_complete(stored['state'], optimizer, where)


def _check_step(value: Any, path: str, where: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, Tensor) and value.ndim == 0:
        is_number, value = value.dtype is not torch.bool, value.item()
    if not is_number or not 0 <= value < math.inf:
        raise _damaged(where, f'{path} must be a number of at least 0, got {value}')


def _check_moment(
    value: Any, name: str, shape: torch.Size, path: str, where: str
) -> None:
    if not isinstance(value, Tensor):
        if not isinstance(value, int | float | None) or name in _MOMENTS:
            raise _damaged(where, f'{path} must be a tensor')
        return
    if value.shape != shape and (value.ndim or name in _MOMENTS):
        raise _damaged(
            where, f'{path} has shape {tuple(value.shape)}, not {tuple(shape)}'
        )
    if name in _MOMENTS and not value.is_floating_point():
        raise _damaged(where, f'{path} is of type {value.dtype}')
    if value.is_floating_point() and not value.isfinite().all():
        raise _damaged(where, f'{path} is not finite: resume an earlier checkpoint')


def _check_complete(
    states: Mapping[Any, Mapping[str, Any]],
    optimizer: torch.optim.Optimizer,
    where: str,
) -> None:
    """Refuse a state of which something was lost: an optimiser would begin anew."""
    names = {frozenset(state) for state in states.values()}
    if len(names) > 1:
        lost = sorted(frozenset.union(*names) - frozenset.intersection(*names))
        raise _damaged(where, f'some entries of optimizer.state lack {lost}')
    if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        missing = {'step', 'exp_avg', 'exp_avg_sq'} - set().union(*names)
        if missing:
            raise _damaged(where, f'optimizer.state lacks {sorted(missing)}')


def _check_alike(
    found: Mapping[Any, Any], own: Mapping[Any, Any], path: str, where: str
) -> None:
    """Refuse values of other types than those of the same names in the run."""
    for name, value in found.items():
        expected = own.get(name)
        if expected is None or value is None:
            continue
        here = f'{path}[{name!r}]'
        if isinstance(expected, bool | str):
            fits = isinstance(value, type(expected))
        elif isinstance(expected, int | float):
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            if fits and not _can_be(name, value):
                raise _damaged(where, f'{here} cannot be {value}')
        elif isinstance(expected, list | tuple):
            fits = isinstance(value, list | tuple) and _same_kinds(value, expected)
        elif isinstance(expected, dict):
            fits = isinstance(value, dict)
        else:
            fits = isinstance(value, type(expected))
        if not fits:
            raise _damaged(
                where,
                f'{here} is of type {type(value).__name__}, not '
                f'{type(expected).__name__} as in the config',
            )


def _can_be(name: Any, value: float) -> bool:
    rates = ('lr', 'initial_lr', 'weight_decay', 'eps', 'momentum')
    return math.isfinite(value) and (name not in rates or value >= 0)


def _same_kinds(value: Sequence[Any], expected: Sequence[Any]) -> bool:
    if len(value) != len(expected):
        return False
    return all(
        isinstance(one, int | float) == isinstance(two, int | float)
        and (not isinstance(one, int | float) or math.isfinite(one))
        for one, two in zip(value, expected, strict=True)
    )


def _damaged(where: str, reason: str) -> CheckpointError:
    return CheckpointError(f'{where}: cannot be resumed: {reason}')
