"""A number as a function of the adaptation step."""

from __future__ import annotations

import math
from typing import Any

import pytest
from mmengine.config import ConfigDict

from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.schedule_settings import read_schedule
from gckd_mm.models.retrievers.staged import Schedule

STEPS = 30
RAMP = {'start': 0.25, 'end': 2.25, 'length': 8 / STEPS, 'begin': 3 / STEPS}


def build(value: Any, num_steps: int | None = STEPS) -> Schedule:
    schedule = read_schedule(value, 'weight')
    schedule.num_steps = num_steps
    return schedule


@pytest.mark.parametrize('value', [0.5, 1, 0, -2.0])
def test_a_number_stays_as_it_is(value: float) -> None:
    schedule = build(value, None)

    assert {schedule.at(step) for step in (-100, 0, 1, 100)} == {value}
    assert schedule.is_constant


def test_a_linear_ramp_rises_by_the_same_each_step() -> None:
    schedule = build(ConfigDict(RAMP))

    assert [schedule.at(step) for step in range(3, 12)] == [
        0.25 + 0.25 * step for step in range(9)
    ]


def test_a_cosine_ramp_is_half_a_period() -> None:
    schedule = build({**RAMP, 'shape': 'cosine'})

    for step in range(9):
        expected = 1.25 - math.cos(math.pi * step / 8)
        assert schedule.at(3 + step) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('shape', ['linear', 'cosine'])
def test_outside_of_the_ramp_the_value_is_exactly_an_end(shape: str) -> None:
    schedule = build(
        dict(start=0.1, end=0.7, length=7 / STEPS, begin=4 / STEPS, shape=shape)
    )

    assert {schedule.at(step) for step in (-400, 0, 3, 4)} == {0.1}
    assert {schedule.at(step) for step in (11, 12, 4000)} == {0.7}
    assert 0.1 < schedule.at(5) < schedule.at(10) < 0.7


def test_a_ramp_of_no_length_jumps() -> None:
    schedule = build(dict(start=1, end=0, length=0, begin=5 / STEPS))

    assert [schedule.at(step) for step in (4, 5, 6)] == [1, 0, 0]


@pytest.mark.parametrize('steps', [7, 30, 300, 6000])
def test_a_fraction_is_exactly_so_many_steps(steps: int) -> None:
    for first in range(0, steps, max(1, steps // 7)):
        for last in range(first + 1, steps + 1, max(1, steps // 7)):
            length = (last - first) / steps
            ramp = dict(start=0, end=1, begin=first / steps, length=length)
            schedule = build(ramp, steps)
            for step in (first, first + 1, last - 1, last):
                assert schedule.at(step) == (step - first) / (last - first)


def test_a_ramp_needs_to_know_the_adaptation() -> None:
    with pytest.raises(InputError, match=r'weight is a ramp.*TwoStageTrainLoop'):
        build(RAMP, None).at(0)


def test_a_ramp_of_an_adaptation_without_steps_is_at_an_end() -> None:
    schedule = build(RAMP, 0)
    assert [schedule.at(step) for step in (-1, 0)] == [0.25, 2.25]


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
        ({**RAMP, 'length': -0.1}, 'λ: begin and length are fractions .*=-0.1'),
        ({**RAMP, 'length': 75}, 'λ: begin and length are fractions .*length=75'),
        ({**RAMP, 'begin': -0.1}, 'λ: begin and length are fractions .*=-0.1'),
        ({**RAMP, 'begin': 0.8}, 'λ: begin and length are fractions .*begin=0.8'),
        ({**RAMP, 'length': '1'}, 'λ.length must be a number'),
        ({**RAMP, 'shape': 'step'}, "λ: shape must be one of .* got 'step'"),
    ],
)
def test_what_is_no_schedule_is_named(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_schedule(value, 'λ')
