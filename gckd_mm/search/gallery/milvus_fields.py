"""Fields of items as columns of Milvus, and conditions on them as its filters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gckd_mm.search.gallery.conditions import Condition
from gckd_mm.search.gallery.items import Value, comparable

#: a JSON column for each type: servers differ in how they compare across types
COLUMNS = ('texts', 'numbers', 'flags')
_NOTHING = 'id == ""'  # no item fulfils it
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_OPERATORS = {'=': '==', '<': '<', '<=': '<=', '>': '>', '>=': '>='}
#: what both grammars, of the server and of Milvus Lite, can escape and have to
_ESCAPES = str.maketrans(
    {'\\': r'\\', '"': r'\"', '\n': r'\n', '\r': r'\r', '\t': r'\t'}
)


def columns_of(fields: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """Sort the fields of an item by their types; flags become 0 and 1."""
    columns: dict[str, dict[str, Value]] = {column: {} for column in COLUMNS}
    for name, value in fields.items():
        if isinstance(value, bool):
            columns['flags'][name] = int(value)
        elif isinstance(value, int | float):
            columns['numbers'][name] = value
        elif isinstance(value, str):
            columns['texts'][name] = value
        else:
            raise TypeError(f'a field cannot be of type {type(value).__name__}')
    return columns


def fields_of(row: Mapping[str, Any]) -> dict[str, Value]:
    """Return the fields that :func:`columns_of` sorted."""
    flags = {name: bool(value) for name, value in row['flags'].items()}
    return {**row['texts'], **row['numbers'], **flags}


def filter_of(conditions: Sequence[Condition]) -> str:
    """Write conditions as a filter that only items which fulfil all of them pass.

    Without conditions it is empty. Filter templates would need no escaping, but Milvus
    Lite has none.
    """
    return ' and '.join(_clause(condition) for condition in conditions)


def _clause(condition: Condition) -> str:
    field, operator, value = condition
    if not _NAME.fullmatch(field):
        return _NOTHING
    if isinstance(value, str):
        column, literal = 'texts', f'"{value.translate(_ESCAPES)}"'
    elif isinstance(value, float) and math.isnan(value):
        return _NOTHING
    else:
        column = 'flags' if isinstance(value, bool) else 'numbers'
        literal = _number(value)
    left = f'{column}["{field}"]'
    if operator == '!=':
        # `!=` lets items without the field pass on a server (milvus issue 47164).
        return f'({left} < {literal} or {left} > {literal})'
    return f'{left} {_OPERATORS[operator]} {literal}'


def _number(value: int | float) -> str:
    known = comparable(value)
    return str(int(known)) if isinstance(known, int) else repr(known)
