from __future__ import annotations

import pytest

from gckd_mm.errors import InputError
from gckd_mm.gallery import Condition, parse_condition


@pytest.mark.parametrize(
    ('text', 'condition'),
    [
        ('camera=3', Condition('camera', '=', '3')),
        ('pid = 3', Condition('pid', '=', 3)),
        ('height>=1.5', Condition('height', '>=', 1.5)),
        ("shift!='3'", Condition('shift', '!=', '3')),
        ('indoor=true', Condition('indoor', '=', True)),
        ('place=mall, north', Condition('place', '=', 'mall, north')),
        ('time<1970-01-02', Condition('time', '<', 86400.0)),
        ('time<1970-01-02T01:00:00+01:00', Condition('time', '<', 86400.0)),
        ('time>12.5', Condition('time', '>', 12.5)),
    ],
)
def test_a_condition_is_read(text: str, condition: Condition) -> None:
    parsed = parse_condition(text)
    assert parsed == condition
    assert type(parsed.value) is type(condition.value)


@pytest.mark.parametrize('text', ['', 'camera', '=3', 'camera=', 'a b=3', "x'=3"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InputError, match='is no condition'):
        parse_condition(text)


def test_a_time_must_be_one() -> None:
    with pytest.raises(InputError, match='a time is seconds since 1970 or such as'):
        parse_condition('time>yesterday')
