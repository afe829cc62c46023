"""What every engine does, against comparing with everything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Condition, Item
from gckd_mm.search.gallery.engine import Engine
from gckd_mm.search.gallery.items import Stamp
from tests.search.gallery.engines import (
    FolderPlace,
    MilvusPlace,
    Place,
    feats_of,
    fill,
    items_of,
    nearest,
    paths,
    scores,
)


@pytest.fixture(params=['exact', 'hnsw', 'ivf', 'milvus'])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == 'milvus':
        return MilvusPlace.new(request.getfixturevalue('milvus_uri'))
    return FolderPlace(tmp_path, request.param)


#: for what an index has no part in
without_index = pytest.mark.parametrize('place', ['exact', 'milvus'], indirect=True)


@pytest.fixture
def empty(place: Place) -> Iterator[Engine]:
    engine = place.open(new=True)
    yield engine
    engine.close()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    fill(empty)
    return empty


def test_finds_what_comparing_with_everything_finds(engine: Engine) -> None:
    queries = feats_of(7, seed=1)
    found = engine.search(queries, 5, ())
    assert paths(found) == nearest(items_of(300), feats_of(300), queries, 5)
    best = np.sort(queries @ feats_of(300).T, axis=1)[:, :-6:-1]
    np.testing.assert_allclose(scores(found), best, rtol=1e-5)


def test_gives_back_what_it_was_given(engine: Engine) -> None:
    assert len(engine) == 300
    assert sorted(engine.items()) == items_of(300)
    assert engine.get(['00007.jpg', 'none.jpg']) == [items_of(300)[7], None]
    assert engine.get([]) == []
    wanted = ['00250.jpg', '00003.jpg']
    np.testing.assert_array_equal(engine.feats_of(wanted), feats_of(300)[[250, 3]])


def test_it_is_the_same_after_it_was_closed(place: Place) -> None:
    queries = feats_of(4, seed=2)
    engine = place.open(new=True)
    fill(engine)
    before = engine.search(queries, 9, ())
    engine.close()
    again = place.open()
    assert again.search(queries, 9, ()) == before
    assert len(again) == 300
    again.close()


def test_what_is_added_later_is_found_before_it_is_finished(engine: Engine) -> None:
    engine.upsert(items_of(50, first=300), feats_of(50, seed=3))
    queries = feats_of(6, seed=4)
    feats = np.concatenate([feats_of(300), feats_of(50, seed=3)])
    expected = nearest(items_of(350), feats, queries, 12)
    assert paths(engine.search(queries, 12, ())) == expected
    engine.finish()
    assert paths(engine.search(queries, 12, ())) == expected


def test_removed_and_replaced_items_are_found_no_more(engine: Engine) -> None:
    items, feats = items_of(300), feats_of(300)
    engine.delete([item.path for item in items[:20]] + ['none.jpg'])
    moved = feats_of(30, seed=5)
    described = [item._replace(fields={'floor': 2}) for item in items[20:50]]
    engine.upsert(described, moved)
    expected = np.concatenate([moved, feats[50:]])
    queries = np.concatenate([feats[:50], moved])
    for _ in range(2):
        found = paths(engine.search(queries, 8, ()))
        assert found == nearest(items[20:], expected, queries, 8)
        assert sorted(engine.items()) == described + items[50:]
        assert len(engine) == 280
        engine.finish()


@pytest.mark.parametrize(
    ('condition', 'fulfils'),
    [
        (Condition('camera', '=', '1'), lambda item: item['camera'] == '1'),
        (Condition('camera', '!=', '1'), lambda item: item['camera'] != '1'),
        (Condition('camera', '>', '0'), lambda item: item['camera'] > '0'),
        (Condition('camera', '=', 1), lambda item: False),
        (Condition('camera', '!=', 1), lambda item: False),
        (Condition('pid', '>=', 250), lambda item: item['pid'] >= 250),
        (Condition('pid', '<', 2.5), lambda item: item['pid'] < 2.5),
        (Condition('pid', '!=', 7), lambda item: item['pid'] != 7),
        (Condition('pid', '>', -1), lambda item: True),
        (Condition('pid', '<', float('inf')), lambda item: True),
        (Condition('pid', '=', float('nan')), lambda item: False),
        (Condition('pid', '<', 'x'), lambda item: False),
        (Condition('height', '<=', 3), lambda item: item['height'] <= 3),
        (Condition('height', '=', 3), lambda item: item['height'] == 3),
        (Condition('late', '=', True), lambda item: item['late']),
        (Condition('late', '!=', True), lambda item: not item['late']),
        (Condition('late', '<', True), lambda item: not item['late']),
        (Condition('late', '=', 1), lambda item: False),
        (Condition('pid', '=', True), lambda item: False),
        (Condition('shift', '!=', 'day'), lambda item: item.get('shift') == 'night'),
        (Condition('nothing', '!=', 1), lambda item: False),
        (Condition('nothing', '!=', 'x'), lambda item: False),
        (Condition('nothing', '!=', True), lambda item: False),
    ],
    ids=lambda value: str(value) if isinstance(value, Condition) else '',
)
def test_only_what_fulfils_a_condition_is_found(
    filled_with_fields: Engine, condition: Condition, fulfils: Any
) -> None:
    items = items_with_fields()
    queries = feats_of(3, seed=7)
    rows = [n for n, item in enumerate(items) if fulfils(item.fields)]
    expected = nearest([items[n] for n in rows], feats_of(300)[rows], queries, 400)
    assert paths(filled_with_fields.search(queries, 400, [condition])) == expected


def items_with_fields() -> list[Item]:
    shift = [{'shift': 'day'}, {'shift': 'night'}, {}]
    return [
        item._replace(
            fields={
                **item.fields,
                **shift[n % 3],
                'late': n % 2 == 0,
                'height': n / 2,
            }
        )
        for n, item in enumerate(items_of(300))
    ]


@pytest.fixture(scope='module', params=['embedded', 'milvus'])
def filled_with_fields(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    place: Place
    if request.param == 'milvus':
        place = MilvusPlace.new(request.getfixturevalue('milvus_uri'))
    else:
        place = FolderPlace(tmp_path_factory.mktemp('embedded'))
    engine = place.open(new=True)
    engine.upsert(items_with_fields(), feats_of(300))
    yield engine
    engine.close()


def test_several_conditions_hold_together(filled_with_fields: Engine) -> None:
    where = [Condition('camera', '=', '1'), Condition('pid', '!=', 100)]
    rows = [n for n in range(300) if n % 3 == 1 and n != 100]
    queries = feats_of(3, seed=8)
    expected = nearest(
        [items_of(300)[n] for n in rows], feats_of(300)[rows], queries, 4
    )
    assert paths(filled_with_fields.search(queries, 4, where)) == expected


@without_index
def test_text_is_text_and_nothing_else(empty: Engine) -> None:
    texts = [
        "it's",
        'a "quoted" one',
        'back\\slash',
        'a trailing \\',
        'two\nlines\r\n\tindented',
        '日本 é ✓',
        '{value}',
        '%',
        '" or numbers["pid"] >= 0 or texts["camera"] == "',
        "' OR 1=1 --",
    ]
    count = len(texts)
    items = [items_of(1, first=n, name=text)[0] for n, text in enumerate(texts)]
    empty.upsert(items, feats_of(count))
    assert empty.get([item.path for item in items]) == items

    def found(operator: str, text: str) -> list[str]:
        condition = Condition('name', operator, text)
        return sorted(*paths(empty.search(feats_of(1), count, [condition])))

    names = [item.path for item in items]
    for n, text in enumerate(texts):
        assert found('=', text) == [names[n]]
        assert found('!=', text) == names[:n] + names[n + 1 :]


@without_index
def test_the_name_of_a_field_is_no_filter(engine: Engine) -> None:
    where = [Condition('pid"] >= 0 or numbers["pid', '>=', 0)]
    assert engine.search(feats_of(1), 9, where) == [[]]


@without_index
def test_any_path_is_a_path(empty: Engine) -> None:
    names = ['ü' * 2000, 'a' * 4096, 'a\'b"c\\d', 'two\nlines', ' ', 'a//b']
    items = [item._replace(path=n) for item, n in zip(items_of(6), names, strict=True)]
    for _ in range(2):
        empty.upsert(items, feats_of(6))
    assert sorted(empty.items()) == sorted(items)
    assert empty.get(names) == items
    assert paths(empty.search(feats_of(6), 1, ())) == [[name] for name in names]
    empty.delete(names[:5])
    assert list(empty.items()) == items[5:]


@without_index
def test_equal_scores_come_in_the_order_of_their_paths(empty: Engine) -> None:
    feat = feats_of(1)
    empty.upsert(items_of(9)[::-1], np.repeat(feat, 9, axis=0))
    assert paths(empty.search(feat, 9, ())) == [[item.path for item in items_of(9)]]


def test_an_empty_engine_finds_nothing(empty: Engine) -> None:
    empty.finish()
    assert empty.search(feats_of(2), 5, ()) == [[], []]
    assert empty.search(feats_of(2), 5, [Condition('pid', '=', 1)]) == [[], []]
    assert (len(empty), list(empty.items()), empty.field_values(5)) == (0, [], {})


def test_a_failed_write_changes_nothing(engine: Engine) -> None:
    before = engine.search(feats_of(2, seed=1), 20, ())
    unserialisable = [*items_of(2, first=300), *items_of(1, first=302, bad=object())]
    with pytest.raises(TypeError):
        engine.upsert(unserialisable, feats_of(3))
    assert engine.search(feats_of(2, seed=1), 20, ()) == before
    assert len(engine) == 300


def test_searching_is_right_while_another_connection_writes(place: Place) -> None:
    writer = place.open(new=True)
    fill(writer, 40)
    reader = place.open()
    wrong: list[Any] = []

    def write() -> None:
        for n in range(20):
            writer.upsert(items_of(10, first=40 + 10 * n), feats_of(10, seed=20 + n))
            writer.delete([item.path for item in items_of(10, first=40 + 10 * n)])
            writer.finish()

    thread = threading.Thread(target=write)
    thread.start()
    query = feats_of(40)[:1]
    while thread.is_alive():
        ((best, *_),) = reader.search(query, 3, ())
        if best.item.path != '00000.jpg' or abs(best.score - 1) > 1e-5:
            wrong.append(best)
    thread.join()
    assert not wrong
    writer.close()
    assert len(reader) == 40
    reader.close()


def test_one_engine_serves_many_threads(engine: Engine) -> None:
    expected = [engine.search(feats_of(300)[n : n + 1], 3, ()) for n in range(20)]
    found: list[Any] = [None] * 20

    def search(n: int) -> None:
        found[n] = engine.search(feats_of(300)[n : n + 1], 3, ())

    threads = [threading.Thread(target=search, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@without_index
def test_values_of_fields(empty: Engine) -> None:
    items = items_of(30, late=True)
    items[3] = Item('3.jpg', Stamp(3, 3), {'camera': '3', 'level': 1, 'late': False})
    items[4] = Item('4.jpg', Stamp(4, 4), {'level': 'roof'})
    empty.upsert(items, feats_of(30))
    found = empty.field_values(5)
    assert found == {
        'camera': ['0', '1', '2', '3'],
        'late': [False, True],
        'level': [1, 'roof'],
        'pid': [],
    }
    assert [type(value) for value in found['late']] == [bool, bool]
    # what is asked for often is found out anew when somebody writes
    empty.delete([item.path for item in items[5:]])
    assert empty.field_values(5)['pid'] == [item.fields['pid'] for item in items[:3]]


@without_index
def test_integers_of_more_than_64_bits(empty: Engine) -> None:
    huge = 10**25
    items = [
        Item('a.jpg', Stamp(1, 1), {'x': 3}),
        Item('b.jpg', Stamp(1, 1), {'x': float(huge)}),
    ]
    empty.upsert(items, feats_of(2))
    query = feats_of(1, seed=1)
    for operator, expected in (('<', ['a.jpg']), ('>=', ['b.jpg'])):
        (found,) = empty.search(query, 5, [Condition('x', operator, huge)])
        assert [match.item.path for match in found] == expected


def test_after_deletions_what_comparing_with_everything_finds(engine: Engine) -> None:
    items, feats = items_of(300), feats_of(300)
    engine.delete([item.path for item in items[10:20]])
    left = [n for n in range(300) if not 10 <= n < 20]
    queries = np.concatenate([feats_of(3, seed=2), feats[12:14]])
    expected = nearest([items[n] for n in left], feats[left], queries, 6)
    assert paths(engine.search(queries, 6, ())) == expected
    for query, wanted in zip(queries, expected, strict=True):
        assert paths(engine.search(query[None], 6, ())) == [wanted]


@without_index
def test_a_picture_that_has_just_been_removed(engine: Engine) -> None:
    engine.delete([items_of(1)[0].path])
    with pytest.raises(InputError, match='any more'):
        engine.feats_of([item.path for item in items_of(2)])


@without_index
def test_an_unknown_index_is_refused(place: Place) -> None:
    with pytest.raises(InputError, match='must be one of auto, exact, hnsw, ivf, got'):
        place._replace(index='flat').open(new=True)  # type: ignore[attr-defined]
