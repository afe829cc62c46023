"""What matches must fulfil: ``camera=3``, ``time>=2026-11-22``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.items import (
    Value,
    check_encodable,
    seconds_of,
    shortened,
    shown_value,
    value_of,
)

OPERATORS = ('<=', '>=', '!=', '=', '<', '>')
#: what other languages write for them
_ALIASES = {'==': '=', '=<': '<=', '=>': '>=', '<>': '!='}
_NAME = r'[A-Za-z_][A-Za-z0-9_]*'
_CONDITION = re.compile(rf'\s*({_NAME})\s*([<>=!~:]+)\s*(.*?)\s*', re.DOTALL)
_QUOTES = '\'"'
_OTHER_QUOTES = '“”„‟‘’‚‛«»`'
#: what joins conditions in other languages
_JOINED = re.compile(r'\b(?:x?or|and)\b|[|&]', re.IGNORECASE)
_NEXT_CONDITION = re.compile(rf'[,;]\s*{_NAME}\s*[<>=!~]')
_LIST_OF_NUMBERS = re.compile(r'-?[0-9.]+(\s*[,;]\s*-?[0-9.]+)+')
#: what comes after a quote that ends, if more follows it
_AFTER_QUOTE = rf'\s*(?:(?:or|and)\b|[,;]|\|\||&&|{_NAME}\s*[<>=!~])'
#: quotes enclose what follows a comparison; elsewhere they are apostrophes
_BETWEEN_COMMAS = re.compile(
    r"""(?:[<>=!~:]\s*(?:"(?:[^"]|"")*"|'(?:[^']|'')*')|[^,])+"""
)
_LONGEST = 12_000
_ADVICE = (
    ': give each condition by itself (in the shell, repeat --where): all of them must '
    'hold. There is no "or": search once for each. A value that is text with such '
    'characters or words goes in quotes: place="salt and pepper" (a quote in it is '
    'written twice)'
)


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
        value = str(shown_value(self.field, self.value))
        if isinstance(self.value, bool):
            value = value.lower()
        elif isinstance(self.value, str):
            # so that text which looks like a number is seen to be text
            is_plain = self.field == 'camera' or value_of(value) == value
            if not is_plain or value[:1] in ('', *_QUOTES):
                value = '"{}"'.format(value.replace('"', '""'))
        return f'{self.field}{self.operator}{value}'


def split_conditions(text: str) -> list[str]:
    """Return the conditions of a line, between commas outside of quotes."""
    return [part.strip() for part in _BETWEEN_COMMAS.findall(text) if part.strip()]


def parse_condition(text: str) -> Condition:
    """Read a condition.

    A value that looks like a number is one, ``true`` and ``false`` are what they say,
    and quotes make anything text; the same quote within is written twice:
    ``"a ""new"" coat"``. ``time`` takes ISO dates, and ``camera`` is text. ``==``,
    ``=<``, ``=>`` and ``<>`` mean ``=``, ``<=``, ``>=`` and ``!=``.

    Args:
        text: Such as ``camera=3``, ``time>=2026-11-22``, ``shift!='night'``.

    Raises:
        InputError: If it is none, or more than one.
    """
    if not isinstance(text, str):
        raise InputError(
            f'a condition must be a string, got {type(text).__name__} {shortened(text)}'
        )
    check_encodable(text, 'the condition')
    if len(text) > _LONGEST:
        raise InputError(
            f'a condition has at most {_LONGEST} characters, got {len(text)}'
        )
    found = _CONDITION.fullmatch(text)
    if found is None or not found[3]:
        raise InputError(
            f'{text!r} is no condition: such as camera=3 or "time>=2026-11-22", with '
            f'one of {" ".join(OPERATORS)}'
        )
    field, operator, value = found.groups()
    operator = _ALIASES.get(operator, operator)
    if operator not in OPERATORS:
        raise InputError(
            f'{text!r}: {operator} is no comparison: there are {" ".join(OPERATORS)}'
        )
    quoted = value[0] in _QUOTES
    value = _unquoted(value, text) if quoted else _checked_plain(value, text)
    if field == 'time':
        return Condition(field, operator, seconds_of(value, text))
    if quoted or field == 'camera':
        return Condition(field, operator, value)
    return Condition(field, operator, value_of(value))


def check_conditions(where: Iterable[Condition]) -> list[Condition]:
    """Return a list of conditions, if that is what it is."""
    if isinstance(where, str | Condition) or not isinstance(where, Iterable):
        raise InputError(
            f'where must be a list of conditions, got a single one: '
            f'[parse_condition({str(where)!r})]'
        )
    conditions = []
    for condition in where:
        if not isinstance(condition, Condition):
            raise InputError(
                f'where must be a list of conditions, such as '
                f"[parse_condition('camera=3')], got {shortened(condition)} in it"
            )
        if isinstance(condition.value, np.generic):
            condition = condition._replace(value=condition.value.item())
        _check_condition(*condition)
        conditions.append(condition)
    return conditions


def _check_condition(field: Any, operator: Any, value: Any) -> None:
    if not isinstance(field, str) or not re.fullmatch(_NAME, field):
        raise InputError(f'where: {shortened(field)} cannot be the name of a field')
    if operator not in OPERATORS:
        raise InputError(
            f'where: {shortened(operator)} is no comparison: there are '
            f'{" ".join(OPERATORS)}'
        )
    if not isinstance(value, str | int | float):
        raise InputError(
            f'where: {field} must be compared with text, a number or true or false, '
            f'got {type(value).__name__}'
        )
    if isinstance(value, str):
        check_encodable(value, f'where: the value of {field}')


def _unquoted(value: str, text: str) -> str:
    """Return what stands in quotes, those that are written twice in it being one.

    A single one in it is one, too, where nothing follows that looks like a condition.
    """
    quote, inner = value[0], value[1:-1]
    if len(value) < 2 or value[-1] != value[0]:
        raise InputError(f'{text!r}: the quotes must enclose all of the value')
    parts = inner.split(2 * quote)
    if any(re.search(quote + _AFTER_QUOTE, part, re.IGNORECASE) for part in parts):
        raise InputError(f'{text!r}: is more than one comparison{_ADVICE}')
    return quote.join(parts)


def _checked_plain(value: str, text: str) -> str:
    """Return a value without quotes, unless it looks like more than a value."""
    if value[0] in _OTHER_QUOTES:
        raise InputError(f'{text!r}: quotes are written \' or "')
    if (
        _JOINED.search(value)
        or _NEXT_CONDITION.search(value)
        or _LIST_OF_NUMBERS.fullmatch(value)
        or re.search('[<>=~]', value)
        or value[0] in '!:'
    ):
        raise InputError(f'{text!r}: is more than one comparison{_ADVICE}')
    return value
