"""Numbers that change over the adaptation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gckd_mm.errors import InputError

_SHAPES = ('linear', 'cosine')
_REQUIRED = ('start', 'end', 'length')
_OPTIONAL = ('begin', 'shape')


@dataclass(frozen=True)
class Schedule:
    """A number as a pure function of the adaptation step: nothing of it is resumed.

    Made by :meth:`build`.

    Attributes:
        start: Value up to ``begin``.
        end: Value from ``begin + length`` on.
        length: Steps that the ramp takes; 0 jumps at ``begin``.
        begin: Adaptation step at which the ramp begins.
        shape: ``'linear'``, or ``'cosine'``: half a period, level at both ends.
    """

    start: float
    end: float
    length: int
    begin: int = 0
    shape: str = 'linear'

    @classmethod
    def build(cls, value: float | Mapping[str, Any], name: str) -> Schedule:
        """Make a schedule from what a config gives.

        Args:
            value: A number that stays as it is, or
                ``dict(start=…, end=…, length=…, begin=0, shape='linear')``: see the
                class.
            name: The config key, for messages.

        Raises:
            InputError: If it is neither, if a key is missing or unknown, if a value is
                not a finite number, if ``length`` or ``begin`` is not a whole number
                of at least 0, or if the shape is unknown.
        """
        if not isinstance(value, Mapping):
            number = _finite(value, name)
            return cls(start=number, end=number, length=0)
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
        return cls(
            start=_finite(value['start'], f'{name}.start'),
            end=_finite(value['end'], f'{name}.end'),
            length=_steps(value['length'], f'{name}.length'),
            begin=_steps(value.get('begin', 0), f'{name}.begin'),
            shape=shape,
        )

    @property
    def last_step(self) -> int:
        """Adaptation step from which on the value stays; 0 for a constant."""
        return self.begin + self.length

    def at(self, step: int) -> float:
        """Return the value at an adaptation step, which may lie before the first."""
        if step >= self.last_step:
            return self.end
        if step <= self.begin:
            return self.start
        share = (step - self.begin) / self.length
        if self.shape == 'cosine':
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f'{name} must be a number or a ramp, got {value!r}')
    if not math.isfinite(value):
        raise InputError(f'{name} must be finite, got {value}')
    return float(value)


def _steps(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(
            f'{name} must be a whole number of adaptation steps, at least 0, got '
            f'{value!r}'
        )
    return value
