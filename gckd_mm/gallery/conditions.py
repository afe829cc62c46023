"""What matches must fulfil: ``camera=3``, ``time>=2026-11-22``."""

from __future__ import annotations

import re
from typing import NamedTuple

from gckd_mm.errors import InputError
from gckd_mm.gallery.items import Value, seconds_of, value_of

OPERATORS = ('<=', '>=', '!=', '=', '<', '>')
_CONDITION = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*')


class Condition(NamedTuple):
    """A field of an item compared with a value; an item without it never fulfils it.

    Attributes:
        field: Its name.
        operator: One of ``OPERATORS``.
        value: Text is compared with text and numbers with numbers.
    """

    field: str
    operator: str
    value: Value

    def __str__(self) -> str:
        return f'{self.field}{self.operator}{self.value}'


def parse_condition(text: str) -> Condition:
    """Read a condition.

    A value that looks like a number is one, ``true`` and ``false`` are what they say,
    and quotes make anything text. ``time`` takes ISO dates, and ``camera`` is text.

    Args:
        text: Such as ``camera=3``, ``time>=2026-11-22``, ``shift!='night'``.

    Raises:
        InputError: If it is none.
    """
    found = _CONDITION.fullmatch(text)
    if found is None or not found[3]:
        raise InputError(
            f'{text!r} is no condition: such as camera=3 or "time>=2026-11-22", with '
            f'one of {" ".join(OPERATORS)}'
        )
    field, operator, value = found.groups()
    if field == 'time':
        return Condition(field, operator, seconds_of(value, text))
    return Condition(field, operator, _value(value, as_text=field == 'camera'))


def _value(text: str, as_text: bool) -> Value:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in '\'"':
        return text[1:-1]
    return text if as_text else value_of(text)
