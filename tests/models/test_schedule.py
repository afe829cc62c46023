"""A number as a function of the adaptation step."""

from __future__ import annotations

import math
from typing import Any

import pytest
from mmengine.config import ConfigDict

from gckd_mm.errors import InputError
from gckd_mm.models.schedule import Schedule

RAMP = {'start': 0.25, 'end': 2.25, 'length': 8, 'begin': 3}


@pytest.mark.parametrize('value', [0.5, 1, 0, -2.0])
def test_a_number_stays_as_it_is(value: float) -> None:
    schedule = Schedule.build(value, 'weight')

    assert {schedule.at(step) for step in (-100, 0, 1, 100)} == {value}
    assert schedule.last_step == 0


def test_a_linear_ramp_rises_by_the_same_each_step() -> None:
    schedule = Schedule.build(ConfigDict(RAMP), 'weight')

    assert [schedule.at(step) for step in range(3, 12)] == [
        0.25 + 0.25 * step for step in range(9)
    ]


def test_a_cosine_ramp_is_half_a_period() -> None:
    schedule = Schedule.build({**RAMP, 'shape': 'cosine'}, 'weight')

    for step in range(9):
        expected = 1.25 - math.cos(math.pi * step / 8)
        assert schedule.at(3 + step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('shape', ['linear', 'cosine'])
def test_outside_of_the_ramp_the_value_is_exactly_an_end(shape: str) -> None:
    schedule = Schedule.build(
        dict(start=0.1, end=0.7, length=7, begin=4, shape=shape), 'weight'
    )

    assert schedule.last_step == 11
    assert {schedule.at(step) for step in (-400, 0, 3, 4)} == {0.1}
    assert {schedule.at(step) for step in (11, 12, 4000)} == {0.7}
    assert 0.1 < schedule.at(5) < schedule.at(10) < 0.7


def test_a_ramp_of_no_length_jumps() -> None:
    schedule = Schedule.build(dict(start=1, end=0, length=0, begin=5), 'weight')

    assert [schedule.at(step) for step in (4, 5, 6)] == [1, 0, 0]


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ('0.5', r"λ must be a number or a ramp, got '0.5'"),
        (None, 'λ must be a number or a ramp'),
        (True, 'λ must be a number or a ramp'),
        (float('nan'), 'λ must be finite'),
        ({**RAMP, 'stop': 1}, r"λ: .*unknown keys: \['stop'\]"),
        (dict(start=0, length=1), r"λ: .*missing keys: \['end'\]"),
        ({**RAMP, 'start': 'low'}, r"λ.start must be a number or a ramp, got 'low'"),
        ({**RAMP, 'end': float('inf')}, 'λ.end must be finite'),
        ({**RAMP, 'length': -1}, 'λ.length must be a whole number .* got -1'),
        ({**RAMP, 'length': 2.5}, 'λ.length must be a whole number .* got 2.5'),
        ({**RAMP, 'begin': -1}, 'λ.begin must be a whole number .* got -1'),
        ({**RAMP, 'shape': 'step'}, "λ: shape must be one of .* got 'step'"),
    ],
)
def test_what_is_no_schedule_is_named(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule.build(value, 'λ')
