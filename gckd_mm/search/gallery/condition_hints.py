"""Why conditions may have found nothing: no such field, no such value."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.conditions import Condition
from gckd_mm.search.gallery.engine import Engine
from gckd_mm.search.gallery.items import RESERVED, Value, shown_value

#: values of a field that are looked at; the page asks for as many
MAX_VALUES = 50
_SHOWN = 8
#: type of a value -> its name, and a comparison that any such value fulfils
_TYPES: dict[str, tuple[str, Value]] = {
    'text': ('>=', ''),
    'numbers': ('<=', sys.float_info.max),
    'true or false': ('>=', False),
}


def check_fields(engine: Engine, query: np.ndarray, where: Sequence[Condition]) -> None:
    """Refuse conditions that no item can fulfil, because no item has such a field.

    It costs up to three searches a condition with any query, shape (1, D), and more if
    it refuses: call it if nothing was found.
    """
    for condition in where:
        wanted = _type_name(condition.value)
        others = [name for name in _TYPES if name != wanted]
        if _occurs(engine, query, condition.field, wanted):
            continue
        found = [n for n in others if _occurs(engine, query, condition.field, n)]
        if not found:
            raise _no_such_field(engine, condition)
        raise InputError(
            f'{condition}: compares with {wanted}, but {condition.field} holds '
            f'{" and ".join(found)}{_examples(engine, condition.field)}'
            f'{_quote_advice(wanted, found)}'
        )


def values_hints(engine: Engine, where: Sequence[Condition]) -> list[str]:
    """Return which values the fields have that must be equal to something.

    Fields of many values are left out.
    """
    values = engine.field_values(MAX_VALUES) if where else {}
    return [
        f'{condition}: no item has this value, but {condition.field} is one of '
        f'{_listed(condition.field, known)}'
        for condition in where
        if condition.operator == '='
        and (known := values.get(condition.field))
        and condition.value not in known
    ]


def _no_such_field(engine: Engine, condition: Condition) -> InputError:
    fields = list(engine.field_values(MAX_VALUES))
    if condition.field in RESERVED:
        return InputError(
            f'{condition}: {condition.field} is no field to search by{_there(fields)}'
        )
    lower = {field.lower(): field for field in fields}
    near = difflib.get_close_matches(condition.field.lower(), lower, 1)
    meant = f' (did you mean {lower[near[0]]}?)' if near else ''
    return InputError(
        f'{condition}: no item has a field {condition.field}{meant}{_there(fields)}'
    )


def _there(fields: Sequence[str]) -> str:
    if not fields:
        return ': the items of this gallery have no fields (index with --fields)'
    return f': there are {", ".join(fields)}'


def _occurs(engine: Engine, query: np.ndarray, field: str, type_name: str) -> bool:
    """Return whether an item has a field with a value of that type."""
    operator, value = _TYPES[type_name]
    (matches,) = engine.search(query, 1, [Condition(field, operator, value)])
    return bool(matches)


def _type_name(value: Value) -> str:
    if isinstance(value, str):
        return 'text'
    return 'true or false' if isinstance(value, bool) else 'numbers'


def _quote_advice(wanted: str, found: Sequence[str]) -> str:
    if wanted == 'text' and 'text' not in found:
        return ': write the value as it is, without quotes'
    return ': quotes make a value text' if found == ['text'] else ''


def _examples(engine: Engine, field: str) -> str:
    known = engine.field_values(MAX_VALUES).get(field)
    return f', such as {_listed(field, known)}' if known else ''


def _listed(field: str, values: Sequence[Value]) -> str:
    shown = ', '.join(_written(shown_value(field, value)) for value in values[:_SHOWN])
    more = len(values) - _SHOWN
    return f'{shown} and {more} more' if more > 0 else shown


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value[:40] if isinstance(value, str) else str(value)
