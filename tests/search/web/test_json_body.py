"""Strict JSON."""

from __future__ import annotations

import json

import pytest

from gckd_mm.errors import InputError

pytest.importorskip('gradio')
from gckd_mm.search.web.json_body import parse_json


@pytest.mark.parametrize(
    'value',
    [
        {'queries': ['a', '🧥', '"\\\n'], 'top_k': 3, 'min_score': -0.5},
        [[[None, True, False]]],
        'text',
        -(2**62),
        1e308,
    ],
)
def test_json_is_read(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'{"a": NaN}', 'NaN is not a number of JSON'),
        (b'-Infinity', '-Infinity is not a number'),
        (b'1e999', '1e999 is too large'),
        (b'9' * 5000, 'more than 19 digits'),
        (b'{"a": 1, "a": 2}', 'names a key twice'),
        (b'{"a": 1, "\\u0061": 2}', 'names a key twice'),
        (b'"\\ud800"', 'half of a surrogate pair'),
        (b'{"\\udfff": 1}', 'half of a surrogate pair'),
        (b'[' * 33 + b']' * 33, 'nested too deeply'),
        (b'[' * 10**6, 'nested too deeply|is not JSON'),
        (b'"\xff"', 'is not UTF-8'),
        (b'\xef\xbb\xbf1', 'is not JSON'),
        (b'', 'is not JSON'),
        (b'1 2', 'is not JSON'),
    ],
)
def test_what_is_ambiguous_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_json(data)
