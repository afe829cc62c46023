"""Queries and results, for people and as JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gckd_mm.search.apis.query import Found, Query
from gckd_mm.search.gallery import Item, Match
from gckd_mm.search.gallery.items import Stamp

IMAGE = np.zeros((4, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ('query', 'shown'),
    [
        (Query('a man'), 'a man'),
        (Query('a man', ' a hat '), 'a man, without a hat'),
        (Query(image='crops/7.jpg'), 'like crops/7.jpg'),
        (Query(image=Path('crops') / '7.jpg'), 'like crops/7.jpg'),
        (Query('a man', 'a hat', IMAGE), 'a man, like your picture, without a hat'),
        (Query('a man', '  '), 'a man'),
    ],
)
def test_a_query_is_shown_as_what_it_asks(query: Query, shown: str) -> None:
    assert str(query) == shown


def test_json_shows_times_as_dates_and_rounds_scores() -> None:
    item = Item('a/7.jpg', Stamp(1, 2), {'camera': '3', 'time': 0.0})

    assert Found('a man', [Match(item, 0.123456789)], ['careful']).as_json() == {
        'query': 'a man',
        'matches': [
            {
                'path': 'a/7.jpg',
                'score': 0.123457,
                'fields': {'camera': '3', 'time': '1970-01-01T00:00:00+00:00'},
            }
        ],
        'warnings': ['careful'],
    }
