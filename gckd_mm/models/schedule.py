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
#: 0.1 + 0.7 + 0.2 is a little less than 1, other sums are a little more
_ROUNDING = 1e-9


@dataclass
class Schedule:
    """A number as a pure function of the adaptation step: nothing of it is resumed.

    Made by :meth:`build`.

    Attributes:
        start: Value up to ``begin``.
        end: Value from ``begin + length`` on.
        length: How long the ramp takes, as a fraction of the adaptation; 0 jumps at
            ``begin``.
        begin: Where the ramp begins, as a fraction of the adaptation.
        shape: ``'linear'``, or ``'cosine'``: half a period, level at both ends.
        num_steps: Steps of the adaptation; None as long as nobody has said.
        name: The config key, for messages.
    """

    start: float
    end: float
    length: float
    begin: float = 0.0
    shape: str = 'linear'
    num_steps: int | None = None
    name: str = ''

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
                not a finite number, if the ramp does not lie within the adaptation, or
                if the shape is unknown.
        """
        if not isinstance(value, Mapping):
            number = _finite(value, name)
            return cls(start=number, end=number, length=0.0, name=name)
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
            _finite(value.get(key, 0.0), f'{name}.{key}')
            for key in ('start', 'end', 'length', 'begin')
        )
        if begin < 0 or length < 0 or begin + length > 1 + _ROUNDING:
            raise InputError(
                f'{name}: begin and length are fractions of the adaptation, which '
                f'their sum must not exceed; got begin={begin:g}, length={length:g}'
            )
        return cls(start, end, length, begin, shape, name=name)

    @property
    def is_constant(self) -> bool:
        """Whether the value never changes."""
        return self.start == self.end

    def at(self, step: int) -> float:
        """Return the value at an adaptation step, which may lie before the first.

        Raises:
            InputError: If it is a ramp, and nobody has said how long the adaptation is.
        """
        if self.is_constant:
            return self.end
        if self.num_steps is None:
            raise InputError(
                f'{self.name} is a ramp over the adaptation, and nobody says how many '
                f"steps that has: train with train_cfg=dict(type='TwoStageTrainLoop', "
                f'source_iters=…, adapt_iters=…), or call model.set_stages'
            )
        # In steps, so that 35 / 300 of 300 steps are 35, with no rounding.
        first, last = (
            round(part * self.num_steps, 6)
            for part in (self.begin, self.begin + self.length)
        )
        if step >= last:
            return self.end
        if step <= first:
            return self.start
        covered = (step - first) / (last - first)
        if self.shape == 'cosine':
            covered = (1 - math.cos(math.pi * covered)) / 2
        return self.start + (self.end - self.start) * covered


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f'{name} must be a number or a ramp, got {value!r}')
    if not math.isfinite(value):
        raise InputError(f'{name} must be finite, got {value}')
    return float(value)
