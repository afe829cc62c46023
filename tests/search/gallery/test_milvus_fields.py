from __future__ import annotations

import pytest

from gckd_mm.search.gallery import Condition
from gckd_mm.search.gallery.milvus_fields import columns_of, fields_of, filter_of


def test_fields_come_back_as_they_were() -> None:
    fields = {'camera': '3', 'time': 1.5, 'pid': 7, 'late': True, 'empty': ''}
    columns = columns_of(fields)
    assert columns == {
        'texts': {'camera': '3', 'empty': ''},
        'numbers': {'time': 1.5, 'pid': 7},
        'flags': {'late': 1},
    }
    again = fields_of(columns)
    assert again == fields
    assert again['late'] is True


def test_what_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match='cannot be of type list'):
        columns_of({'tags': ['a']})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ('value', 'literal'),
    [
        (-(2**63) + 1, '-9223372036854775807'),
        (2**63, '9.223372036854775808e+18'),
        (-1.5e-7, '-1.5e-07'),
        (float('-inf'), '-1.7976931348623157e+308'),
        (10**400, '1.7976931348623157e+308'),
    ],
)
def test_numbers_that_a_filter_can_hold(value: float, literal: str) -> None:
    left, _, right = filter_of([Condition('pid', '>', value)]).partition(' > ')
    assert left == 'numbers["pid"]'
    assert right == repr(float(literal)) if '.' in literal else right == literal


def test_a_string_ends_where_it_should() -> None:
    text = 'a" or true \\" \n\r\t\\'
    written = filter_of([Condition('camera', '=', text)])
    assert written == 'texts["camera"] == "a\\" or true \\\\\\" \\n\\r\\t\\\\"'


def test_conditions_are_joined() -> None:
    where = [Condition('late', '!=', True), Condition('pid', '<=', 3)]
    assert filter_of(where) == (
        '(flags["late"] < 1 or flags["late"] > 1) and numbers["pid"] <= 3'
    )
    assert filter_of([]) == ''
