from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Condition, parse_condition
from gckd_mm.search.gallery.conditions import check_conditions, split_conditions


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


@pytest.mark.parametrize(
    ('text', 'condition'),
    [
        ('floor==2', Condition('floor', '=', 2)),
        ('floor=<2', Condition('floor', '<=', 2)),
        ('floor => 2', Condition('floor', '>=', 2)),
        ('floor<>2', Condition('floor', '!=', 2)),
        ('place="salt and pepper"', Condition('place', '=', 'salt and pepper')),
        ('place="a, or b = c"', Condition('place', '=', 'a, or b = c')),
        ('place=\'say "no"\'', Condition('place', '=', 'say "no"')),
        ('place="the "red" one"', Condition('place', '=', 'the "red" one')),
        ('place="two\nlines"', Condition('place', '=', 'two\nlines')),
        ('place=Orlando, band', Condition('place', '=', 'Orlando, band')),
        ('id=99999999999999999999', Condition('id', '=', '99999999999999999999')),
        ('camera=1,5a', Condition('camera', '=', '1,5a')),
    ],
)
def test_other_ways_to_write_it(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    'text',
    [
        'camera=3 or camera=4',
        'camera=3 OR 4',
        'camera=3 and floor=2',
        'camera=3||4',
        'camera=3 && floor=2',
        'camera=3, floor=2',
        'camera=3;floor=2',
        'camera=3,4',
        'height>=1,5',
        'camera=3 floor=2',
        'x="a" or "b"',
        'x="a" or x="b"',
        '1<floor<3',
        'floor>1<3',
        'camera="3',
        'camera=3 or "4"',
        'camera=“3”',
        'floor=!3',
        'floor~3',
        'floor=~3',
        'floor!3',
        'floor:3',
        'floor===3',
        'floor is 3',
        'floor in (1, 2)',
        'not floor=3',
        'floor=3\nor floor=4',
        'floor=\udcff',
        'floor="a\0b"',
        'floor=' + 'a' * 20_000,
        'time>1e300',
        'time=2026-11-22 or 2026-11-23',
    ],
)
def test_what_would_be_read_as_something_else_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_condition(text)


def test_a_second_condition_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r'repeat --where.*There is no "or"'):
        parse_condition('camera=3 or camera=4')


@pytest.mark.parametrize(
    'text', ['camera=3', 'floor=2', 'x="2"', 'y=true', 'z=a b', 'z=""', 'camera="""3"']
)
def test_a_condition_is_shown_as_it_is_read(text: str) -> None:
    assert str(parse_condition(text)) == text


def test_a_time_is_shown_as_a_date() -> None:
    shown = str(parse_condition('time>=2026-11-22'))
    assert shown == 'time>=2026-11-22T00:00:00+00:00'
    assert parse_condition(shown) == parse_condition('time>=2026-11-22')


@pytest.mark.parametrize(
    'where',
    [
        'camera=3',
        Condition('camera', '=', '3'),
        ['camera=3'],
        [('camera', '=', '3')],
        [Condition('camera', '= 1 OR', '3')],
        [Condition("camera') --", '=', '3')],
        [Condition('camera', '=', [3])],
        [Condition('camera', '=', 'a\udc80')],
        3,
    ],
)
def test_a_list_of_conditions_is_one(where: Any) -> None:
    with pytest.raises(InputError, match='where'):
        check_conditions(where)


def test_numbers_of_numpy_are_numbers() -> None:
    (condition,) = check_conditions([Condition('floor', '=', np.int64(2))])
    assert type(condition.value) is int


def test_commas_within_quotes_separate_no_conditions() -> None:
    line = ' place="salt, pepper", camera=3,, shift=\'a,b\' ,'
    assert split_conditions(line) == ['place="salt, pepper"', 'camera=3', "shift='a,b'"]
    assert split_conditions(' , ') == []


@pytest.mark.parametrize('text', ['camera!=3|1', 'camera!=3 xor 1', 'camera=3&1'])
def test_other_spellings_of_or(text: str) -> None:
    with pytest.raises(InputError):
        parse_condition(text)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("x='it''s'", "it's"),
        ('x="a ""new"" coat"', 'a "new" coat'),
        ('x="""a"""', '"a"'),
        ('x=""""', '"'),
        ("x=''''''", "''"),
        ('x="say ""a"", or floor=3"', 'say "a", or floor=3'),
        ("x='both \" and '''", 'both " and \''),
        ('x="it\'\'s"', "it''s"),
        ('x="the "red" one"', 'the "red" one'),
        ("x=it''s", "it''s"),
    ],
)
def test_a_quote_within_quotes_is_written_twice(text: str, value: str) -> None:
    assert parse_condition(text) == Condition('x', '=', value)
    assert split_conditions(f'camera=1, {text} ,y>2') == ['camera=1', text, 'y>2']


@pytest.mark.parametrize('value', ['"', "'", '"a" b', "'a'", '', '7', '"7', 'a "b"'])
def test_quotes_are_shown_as_they_are_read(value: str) -> None:
    condition = Condition('x', '=', value)
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    'text', ['x="a" or x="b"', 'x="a""" or x="b"', 'x="a"", b" or x=""', 'x="', "x='a"]
)
def test_quotes_that_end_are_no_text(text: str) -> None:
    with pytest.raises(InputError):
        parse_condition(text)


def test_apostrophes_are_no_quotes() -> None:
    assert split_conditions("x=Bob's, y=Al's") == ["x=Bob's", "y=Al's"]
