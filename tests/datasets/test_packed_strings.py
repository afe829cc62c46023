"""Strings in one array, against a list."""

from __future__ import annotations

import pickle

import pytest

from gckd_mm.datasets.packed_strings import PackedStrings

STRINGS = [
    'a man',
    '',
    'eine Frau in Grün',
    '红色外套',
    '🧥',
    'lone \ud800 half',
    'a man',
]


def test_it_is_the_list() -> None:
    packed = PackedStrings(iter(STRINGS))
    assert list(packed) == STRINGS
    assert packed == STRINGS
    assert packed != STRINGS[:-1]
    assert len(packed) == len(STRINGS)
    assert [packed[i] for i in range(-len(STRINGS), len(STRINGS))] == STRINGS * 2
    assert packed[1:5:2] == STRINGS[1:5:2]
    assert packed.index('🧥') == 4
    assert packed.count('a man') == 2
    assert pickle.loads(pickle.dumps(packed)) == packed


@pytest.mark.parametrize('index', [len(STRINGS), -len(STRINGS) - 1])
def test_it_ends_where_the_list_ends(index: int) -> None:
    with pytest.raises(IndexError):
        PackedStrings(STRINGS)[index]


def test_none_at_all() -> None:
    assert list(PackedStrings()) == []
    assert not PackedStrings([])
