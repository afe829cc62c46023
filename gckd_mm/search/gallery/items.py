"""What a gallery knows of an image, and what a search finds."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gckd_mm.errors import InputError

Value: TypeAlias = str | int | float | bool
#: what every item has; other fields must be named otherwise
RESERVED = ('path', 'size', 'mtime_ns')
_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]{0,63}')
#: SQLite and Milvus hold integers of 64 bits
_MAX_INTEGER = 2**63 - 1
#: of a text; Milvus takes 64 kB of all fields of an item
MAX_TEXT = 10_000
# not 007, 1_000, nan, or what no engine can hold: these are names
_INTEGER = re.compile(r'-?(0|[1-9][0-9]*)')
_MAX_DIGITS = 19  # and Python reads some 4,000
_REAL = re.compile(r'-?(0|[1-9][0-9]{0,307})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?')
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: seconds since 1970: the years 1 to 9999, which dates can show
_FIRST_SECOND, _LAST_SECOND = -62135596800.0, 253402300799.0


class Stamp(NamedTuple):
    """Size and time of change of a file: it changed if one of them did."""

    size: int
    mtime_ns: int


class Item(NamedTuple):
    """An image of a gallery.

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
    """An image that a search found, and its cosine similarity to the query."""

    item: Item
    score: float


def value_of(text: str) -> Value:
    """Return what a text stands for: a number, true or false, or itself.

    What looks like an integer of more than 64 bits is a name, and stays text.
    """
    if text in ('true', 'false'):
        return text == 'true'
    if _INTEGER.fullmatch(text):
        fits = len(text.lstrip('-')) <= _MAX_DIGITS and abs(int(text)) <= _MAX_INTEGER
        return int(text) if fits else text
    if _REAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def checked_fields(fields: Mapping[str, Any], where: str) -> dict[str, Value]:
    """Return the fields that an item may have, empty ones left out.

    ``time`` may be an ISO date, and becomes seconds since 1970 (UTC where it names no
    zone); ``camera`` becomes a string.
    """
    checked: dict[str, Value] = {}
    for name, value in fields.items():
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or (isinstance(value, str) and not value):
            continue
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f'{where}: {shortened(name)} cannot be the name of a field: at most 64 '
                f'letters, digits and _, but not {", ".join(RESERVED)}'
            )
        if name == 'time':
            value = seconds_of(value, where)
        elif name == 'camera':
            value = _camera(value, where)
        checked[name] = _checked_value(name, value, where)
    return checked


def _checked_value(name: str, value: Any, where: str) -> Value:
    """Return a value that every engine can keep and show."""
    if isinstance(value, str):
        check_encodable(value, f'{where}: {name}')
        if len(value) > MAX_TEXT:
            raise InputError(
                f'{where}: {name} may have {MAX_TEXT} characters at most, got '
                f'{len(value)}'
            )
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f'{where}: {name} must be a finite number, got {value}')
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise InputError(
            f'{where}: {name} has more than 64 bits: write such a number as text, in '
            f'quotes'
        )
    elif not isinstance(value, int | float):
        raise InputError(
            f'{where}: {name} must be text, a number or true or false, got '
            f'{type(value).__name__}'
        )
    return value


def _camera(value: Any, where: str) -> str:
    """Return the name of a camera; pandas writes 3.0 where some are missing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(
            f'{where}: camera must be text or a number, got {type(value).__name__}'
        )
    return (
        value if isinstance(value, str) else str(_checked_value('camera', value, where))
    )


def comparable(number: int | float) -> int | float:
    """Return a number in 64 bits, with which engines can compare."""
    if isinstance(number, int) and abs(number) <= _MAX_INTEGER:
        return number
    most = sys.float_info.max
    return float(min(max(number, -most), most))


def check_encodable(text: str, where: str) -> None:
    """Refuse lone surrogates (bytes that were not UTF-8), and NUL, which ends text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f'{where} is not valid Unicode, at character {error.start + 1}: '
            f'{shortened(text)}: write it in UTF-8'
        ) from error
    if '\0' in text:
        raise InputError(f'{where} holds a NUL character: {shortened(text)}')


def shortened(value: Any) -> str:
    """Return a value for an error message, on one line of a reasonable length."""
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return 'a number of more than 64 bits'  # Python refuses to print the longest
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:76]}…{text[-1]}'


def seconds_of(time: Any, where: str) -> float:
    """Return seconds, or an ISO date (UTC where it names no zone), as seconds.

    They are since 1970, to a microsecond, and within the years 1 to 9999.
    """
    seconds = _number_of(time)
    if seconds is None and isinstance(time, str):
        seconds = _timestamp_of(time.strip())
    if seconds is None:
        raise InputError(
            f'{where}: a time is seconds since 1970 or such as 2026-11-22T08:30:00, '
            f'got {shortened(time)}'
        )
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise InputError(
            f'{where}: a time must lie in the years 1 to 9999, got {shortened(time)}'
        )
    # as dates have it, so that a time which was shown is found again
    return round(seconds, 6)


def iso_time(seconds: float) -> str:
    """Return a time for people, in UTC: ``2026-11-22T08:30:00+00:00``.

    :func:`seconds_of` reads it back. What no date can show (galleries of version 0.1
    may hold it) is returned as a number.
    """
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except (OverflowError, ValueError):
        return str(seconds)


def shown_value(name: str, value: Value) -> Value:
    """Return the value of a field as it is shown: ``time`` as a date."""
    if name != 'time' or isinstance(value, str):
        return value
    return iso_time(value)


def _number_of(time: Any) -> float | None:
    if isinstance(time, bool) or not isinstance(time, str | int | float):
        return None
    # float() also takes 1_000, and digits of other scripts
    if isinstance(time, str) and ('_' in time or not time.isascii()):
        return None
    try:
        seconds = float(time)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _timestamp_of(text: str) -> float | None:
    if text[-1:] in ('Z', 'z'):
        text = f'{text[:-1]}+00:00'
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None
