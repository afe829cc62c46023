"""Schedules as a config gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.staged import Schedule

_REQUIRED, _OPTIONAL = ('start', 'end', 'length'), ('begin', 'shape')
_SHAPES = ('linear', 'cosine')
#: 0.1 + 0.7 + 0.2 is a little less than 1, other sums are a little more
_ROUNDING = 1e-9


def read_schedule(
    value: float | Mapping[str, Any],
    name: str,
    least: float = -math.inf,
    most: float = math.inf,
) -> Schedule:
    """Make a schedule from what a config gives.

    Args:
        value: A number that stays as it is, or ``dict(start=…, end=…, length=…,
            begin=0, shape='linear')``: see :class:`Schedule`.
        name: The config key, for messages.
        least: Of start and end. Defaults to no limit.
        most: Of start and end. Defaults to no limit.

    Raises:
        InputError: If it is neither, or if a key or a value is none of these.
    """
    if isinstance(value, Mapping):
        schedule = _read_ramp(value, name)
    else:
        number = _finite(value, name)
        schedule = Schedule(number, number, 0.0, name=name)
    for number in (schedule.start, schedule.end):
        if not least <= number <= most:
            raise InputError(
                f'{name} must be within [{least:g}, {most:g}], got {number:g}'
            )
    return schedule


def read_schedules(
    values: Mapping[str, Any], names: Sequence[str], key: str
) -> dict[str, Schedule]:
    """Make a schedule for each name; 1 where a config gives none.

    Raises:
        InputError: If the config gives one of another name.
    """
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise InputError(f'{key}: unknown {unknown}, expected {list(names)}')
    return {
        name: read_schedule(values.get(name, 1.0), f'{key}.{name}') for name in names
    }


def _read_ramp(value: Mapping[str, Any], name: str) -> Schedule:
    unknown = sorted(value.keys() - {*_REQUIRED, *_OPTIONAL})
    missing = [key for key in _REQUIRED if key not in value]
    if unknown or missing:
        raise InputError(
            f'{name}: a ramp is dict(start=…, end=…, length=…, begin=0, '
            f"shape='linear'); unknown keys: {unknown}, missing keys: {missing}"
        )
    shape = value.get('shape', 'linear')
    if shape not in _SHAPES:
        raise InputError(f'{name}: shape must be one of {_SHAPES}, got {shape!r}')
    start, end, length, begin = (
        _finite(value.get(key, 0.0), f'{name}.{key}') for key in (*_REQUIRED, 'begin')
    )
    if begin < 0 or length < 0 or begin + length > 1 + _ROUNDING:
        raise InputError(
            f'{name}: begin and length are fractions of the adaptation, which their '
            f'sum must not exceed; got begin={begin:g}, length={length:g}'
        )
    return Schedule(start, end, length, begin, shape, name=name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f'{name} must be a number or a ramp, got {value!r}')
    if not math.isfinite(value):
        raise InputError(f'{name} must be finite, got {value}')
    return float(value)
