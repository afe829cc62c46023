"""What a gallery knows of a picture, and what a search finds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, TypeAlias

from gckd_mm.errors import InputError

Value: TypeAlias = str | int | float | bool
#: what every item has; other fields must be named otherwise
RESERVED = ('path', 'size', 'mtime_ns')
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,63}')
# not 007, 1_000 or nan: these are names
_INTEGER = re.compile(r'-?(0|[1-9][0-9]*)')
_REAL = re.compile(r'-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?')


class Stamp(NamedTuple):
    """By which a file that was changed is told from one that was not."""

    size: int
    mtime_ns: int


class Item(NamedTuple):
    """A picture of a gallery.

    Attributes:
        path: Below the gallery's root, with ``/``; absolute where it has none.
        stamp: Of the file when it was embedded.
        fields: ``camera``, ``time`` (seconds since 1970, UTC) and whatever else its
            owner wants to search by.
    """

    path: str
    stamp: Stamp
    fields: Mapping[str, Value] = {}


class Match(NamedTuple):
    """What a search finds.

    Attributes:
        item: The picture.
        score: Cosine similarity of query and picture.
    """

    item: Item
    score: float


def value_of(text: str) -> Value:
    """Return what a text stands for: a number, true or false, or itself."""
    if text in ('true', 'false'):
        return text == 'true'
    if _INTEGER.fullmatch(text):
        return int(text)
    if _REAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def checked_fields(fields: Mapping[str, Any], where: str) -> dict[str, Value]:
    """Return the fields that an item may have, empty ones left out.

    ``time`` may be an ISO date, and becomes seconds since 1970 (UTC where it names no
    zone); ``camera`` becomes a string.

    Raises:
        InputError: If a name or a value cannot be one.
    """
    checked: dict[str, Value] = {}
    for name, value in fields.items():
        if value is None or value == '':
            continue
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f'{where}: {name!r} cannot be the name of a field: letters, digits and '
                f'_, but not {", ".join(RESERVED)}'
            )
        if name == 'time':
            value = seconds_of(value, where)
        elif name == 'camera':
            value = str(value)
        if not isinstance(value, str | int | float | bool):
            raise InputError(
                f'{where}: {name} must be text, a number or true or false, got '
                f'{type(value).__name__}'
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f'{where}: {name} must be a finite number, got {value}')
        checked[name] = value
    return checked


def iso_time(seconds: float) -> str:
    """Return a time as an ISO date, such as 2026-11-22T08:30:00+00:00.

    Args:
        seconds: Since 1970. What is beyond the years 1 to 9999 stays a number.
    """
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return repr(float(seconds))


def seconds_of(time: Any, where: str) -> float:
    """Return a time as seconds since 1970.

    Args:
        time: A number of seconds, or an ISO date; UTC where it names no zone.
        where: For the message.

    Raises:
        InputError: If it is neither.
    """
    try:
        seconds = float(time)
    except (TypeError, ValueError, OverflowError):
        pass
    else:
        if math.isfinite(seconds):
            return seconds
    try:
        moment = datetime.fromisoformat(str(time).replace('Z', '+00:00'))
    except ValueError as error:
        raise InputError(
            f'{where}: a time is seconds since 1970 or such as 2026-11-22T08:30:00, '
            f'got {time!r}'
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()
