"""Conditions that no item can fulfil, in both engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Gallery, Item, parse_condition
from gckd_mm.search.gallery.items import Stamp
from tests.search.gallery.fakes import FAKE, SIZE, embedding


@pytest.fixture(scope='module', params=['folder', 'milvus'])
def gallery(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gallery]:
    uri = None
    if request.param == 'milvus':
        uri = request.getfixturevalue('milvus_uri')
    folder = tmp_path_factory.mktemp('galleries') / 'g'
    with Gallery.create(folder, FAKE, 'f', SIZE, uri=uri) as gallery:
        fields: list[dict[str, Any]] = [
            {'camera': '1', 'floor': 1, 'indoor': True, 'time': 86400.0, 'mixed': 'a'},
            {'camera': '2', 'floor': 2.5, 'mixed': 3},
            {},
        ]
        items = [Item(f'{n}.png', Stamp(n, n), x) for n, x in enumerate(fields)]
        gallery.engine.upsert(
            items, np.stack([embedding(bytes([n])) for n in range(3)])
        )
        gallery.engine.finish()
        yield gallery


def search(gallery: Gallery, *where: str) -> list[str]:
    conditions = [parse_condition(text) for text in where]
    (matches,) = gallery.search(embedding(b'\0')[None], 5, conditions)
    assert gallery.similar_to('0.png', 5, conditions) == [
        match for match in matches if match.item.path != '0.png'
    ]
    return sorted(match.item.path for match in matches)


@pytest.mark.parametrize(
    ('where', 'message'),
    [
        (['camra=3'], r'no item has a field camra \(did you mean camera\?\)'),
        (['Camera=3'], r'did you mean camera\?'),
        (['zzz=3'], 'has a field zzz: there are camera, floor, indoor, mixed, time'),
        (['zzz!=3'], 'no item has a field zzz'),
        (['camera=1', 'zzz<3'], 'no item has a field zzz'),
        (['path=0.png'], 'path is no field to search by'),
        (
            ['floor="2"'],
            r'floor="2": compares with text, but floor holds numbers, such',
        ),
        (['floor!=high'], 'write the value as it is, without quotes'),
        (['indoor=1'], 'indoor holds true or false, such as true'),
        (['floor=true'], 'compares with true or false, but floor holds numbers'),
    ],
)
def test_what_no_item_can_fulfil_is_an_error(
    gallery: Gallery, where: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(gallery, *where)


@pytest.mark.parametrize(
    ('where', 'found'),
    [
        (['camera=9'], []),
        (['camera=1', 'floor=2.5'], []),
        (['floor>9'], []),
        (['indoor=false'], []),
        (['mixed=3'], ['1.png']),
        (['mixed=b'], []),
        (['mixed=true'], None),
        (['time=1970-01-02'], ['0.png']),
    ],
)
def test_what_none_happens_to_fulfil_is_found_by_nothing(
    gallery: Gallery, where: list[str], found: list[str] | None
) -> None:
    if found is None:
        with pytest.raises(InputError, match='mixed holds text and numbers'):
            search(gallery, *where)
    else:
        assert search(gallery, *where) == found


def test_values_are_named(gallery: Gallery) -> None:
    where = [parse_condition(x) for x in ('camera=9', 'time=1971-01-01', 'floor=1')]
    camera, time = gallery.hints(where)
    assert camera == 'camera=9: no item has this value, but camera is one of 1, 2'
    assert time.endswith('time is one of 1970-01-02T00:00:00+00:00')
    assert gallery.hints([]) == []


def test_an_empty_gallery_and_one_without_fields(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / 'g', FAKE, 'f', SIZE) as gallery:
        where = [parse_condition('camera=3')]
        query = embedding(b'a')[None]
        assert gallery.search(query, 3, where) == [[]]
        gallery.engine.upsert([Item('a', Stamp(0, 0))], query)
        assert gallery.search(query[:0], 3, where) == []
        with pytest.raises(InputError, match='items of this gallery have no fields'):
            gallery.search(query, 3, where)


def test_what_found_something_costs_nothing_more(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    engine_search = gallery.engine.search

    def counted(*args: Any) -> Any:
        searches.append(args)
        return engine_search(*args)

    monkeypatch.setattr(gallery.engine, 'search', counted)
    monkeypatch.setattr(type(gallery.engine), 'field_values', None)
    gallery.search(embedding(b'\0')[None], 5, [parse_condition('camera=1')])
    gallery.search(embedding(b'\0')[None], 5)
    assert len(searches) == 2
