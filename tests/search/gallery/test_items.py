"""Values of fields: what every engine can keep, and every command show."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.items import (
    MAX_TEXT,
    checked_fields,
    iso_time,
    seconds_of,
    value_of,
)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ('a\udc80', 'not valid Unicode, at character 2'),
        ('a\0b', 'holds a NUL character'),
        ('a' * (MAX_TEXT + 1), '10000 characters at most, got 10001'),
        (2**63, 'more than 64 bits'),
        pytest.param(-(10**5000), 'more than 64 bits', id='huge'),
        (float('nan'), 'a finite number'),
        ([1], 'must be text, a number or true or false, got list'),
        (np.zeros(2), 'got ndarray'),
        (1j, 'got complex'),
    ],
)
def test_values_that_no_engine_keeps(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f'x.csv, line 2: .*{message}'):
        checked_fields({'b': value}, 'x.csv, line 2')


@pytest.mark.parametrize('value', [[1], {'a': 1}, True, float('inf'), 'a\udc80'])
def test_a_camera_is_text_or_a_number(value: Any) -> None:
    with pytest.raises(InputError, match='camera'):
        checked_fields({'camera': value}, 'here')


def test_numbers_of_numpy_and_pandas_are_numbers() -> None:
    fields = {
        'a': np.int64(3),
        'b': np.float32(0.5),
        'c': np.bool_(True),
        'camera': 3.0,
    }
    checked = checked_fields(fields, 'here')
    assert checked == {'a': 3, 'b': 0.5, 'c': True, 'camera': '3'}
    assert [type(value) for value in checked.values()] == [int, float, bool, str]


@pytest.mark.parametrize('name', ['size', 'a b', '', 'a' * 65, 'é', 'a\udc80', 3, None])
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(InputError, match='cannot be the name of a field'):
        checked_fields({name: 1}, 'here')


@pytest.mark.parametrize(
    'text', ['9' * 19, '9' * 5000, '-' + '9' * 30, '1.' + '1' * 999]
)
def test_a_number_that_no_engine_keeps_stays_text(text: str) -> None:
    assert value_of(text) == text
    assert value_of(str(2**63 - 1)) == 2**63 - 1


@pytest.mark.parametrize(
    'time',
    [
        *('yesterday', '', 'nan', '1_000', '٣', '2026-13-45', True, None, [1], b'1'),
        *(1e300, -1e300, '1e300', 10**400, float('inf'), 253402300800, '9' * 5000),
        '0001-01-01T00:00:00+14:00',
        '9999-12-31T23:59:59-14:00',
    ],
)
def test_what_is_no_time_or_none_that_a_date_shows(time: Any) -> None:
    with pytest.raises(InputError, match='here: a time'):
        seconds_of(time, 'here')


def test_a_time_is_shown_as_iso_and_read_back() -> None:
    assert iso_time(seconds_of('2026-11-22T08:30', '')) == '2026-11-22T08:30:00+00:00'
    assert iso_time(0.5) == '1970-01-01T00:00:00.500000+00:00'
    assert seconds_of('2026-11-22T08:30:00z', '') == seconds_of('2026-11-22 08:30', '')
    rng = random.Random(0)
    times = [rng.uniform(-62135596800, 253402300799) for _ in range(2000)]
    times += [rng.uniform(0, 4e9) for _ in range(2000)]
    for time in times:
        seconds = seconds_of(time, '')
        assert seconds_of(iso_time(seconds), '') == seconds


@pytest.mark.parametrize('seconds', [1e300, -1e300, float('nan'), float('inf')])
def test_what_no_date_shows_is_shown_as_a_number(seconds: float) -> None:
    assert iso_time(seconds) == str(seconds)
