"""The engine in a folder, against comparing with everything."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.gallery import Condition, Item
from gckd_mm.gallery.embedded_engine import EmbeddedEngine
from gckd_mm.gallery.items import Stamp

SIZE = 16


def feats_of(count: int, seed: int = 0) -> np.ndarray:
    feats = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return feats / np.linalg.norm(feats, axis=1, keepdims=True)


def items_of(count: int, first: int = 0, **fields: Any) -> list[Item]:
    return [
        Item(f'{n:05d}.jpg', Stamp(n, n), {'camera': str(n % 3), 'pid': n, **fields})
        for n in range(first, first + count)
    ]


def paths(found: Any) -> list[list[str]]:
    return [[match.item.path for match in matches] for matches in found]


def nearest(
    items: list[Item], feats: np.ndarray, queries: np.ndarray, k: int
) -> list[list[str]]:
    order = np.argsort(-(queries @ feats.T), axis=1)[:, :k]
    return [[items[n].path for n in row] for row in order]


def filled(folder: Path, count: int = 300, **options: Any) -> EmbeddedEngine:
    engine = EmbeddedEngine(folder, SIZE, **options)
    engine.upsert(items_of(count), feats_of(count))
    engine.finish()
    return engine


@pytest.fixture(params=['exact', 'hnsw', 'ivf'])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddedEngine:
    return filled(tmp_path, index=request.param)


def test_finds_what_comparing_with_everything_finds(engine: EmbeddedEngine) -> None:
    queries = feats_of(7, seed=1)
    found = engine.search(queries, 5)
    assert paths(found) == nearest(items_of(300), feats_of(300), queries, 5)
    best = np.sort(queries @ feats_of(300).T, axis=1)[:, :-6:-1]
    scores = [[match.score for match in matches] for matches in found]
    np.testing.assert_allclose(scores, best, rtol=1e-5)


def test_gives_back_what_it_was_given(engine: EmbeddedEngine) -> None:
    assert len(engine) == 300
    assert list(engine.items()) == items_of(300)
    assert engine.get(['00007.jpg', 'none.jpg']) == [items_of(300)[7], None]
    wanted = ['00250.jpg', '00003.jpg']
    np.testing.assert_array_equal(engine.feats_of(wanted), feats_of(300)[[250, 3]])


def test_it_is_the_same_after_it_was_closed(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    queries = feats_of(4, seed=2)
    before = engine.search(queries, 9)
    kind = engine.kind
    engine.close()
    again = EmbeddedEngine(tmp_path, SIZE, kind)
    assert again.search(queries, 9) == before


def test_what_is_added_later_is_found_before_the_index_knows_it(
    engine: EmbeddedEngine,
) -> None:
    engine.upsert(items_of(50, first=300), feats_of(50, seed=3))
    queries = feats_of(6, seed=4)
    feats = np.concatenate([feats_of(300), feats_of(50, seed=3)])
    expected = nearest(items_of(350), feats, queries, 12)
    assert paths(engine.search(queries, 12)) == expected
    engine.finish()
    assert paths(engine.search(queries, 12)) == expected


def test_removed_and_replaced_items_are_found_no_more(engine: EmbeddedEngine) -> None:
    items, feats = items_of(300), feats_of(300)
    engine.delete([item.path for item in items[:20]] + ['none.jpg'])
    moved = feats_of(30, seed=5)
    engine.upsert(items[20:50], moved)
    expected = np.concatenate([moved, feats[50:]])
    queries = np.concatenate([feats[:50], moved])
    for _ in range(2):
        found = paths(engine.search(queries, 8))
        assert found == nearest(items[20:], expected, queries, 8)
        assert len(engine) == 280
        engine.finish()


def test_the_file_of_vectors_is_written_anew_when_much_of_it_is_dead(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    items, feats = items_of(300), feats_of(300)
    engine.delete([item.path for item in items[::2]])
    engine.finish()
    assert engine.describe()['rows'] == 150
    (file,) = tmp_path.glob('vectors-*.f32')
    assert file.stat().st_size == 150 * SIZE * 4
    queries = feats_of(5, seed=6)
    expected = nearest(items[1::2], feats[1::2], queries, 10)
    assert paths(engine.search(queries, 10)) == expected
    engine.upsert(items[:2], feats[:2])
    assert paths(engine.search(feats[:1], 1)) == [[items[0].path]]


@pytest.mark.parametrize(
    ('condition', 'fulfils'),
    [
        (Condition('camera', '=', '1'), lambda item: item['camera'] == '1'),
        (Condition('camera', '!=', '1'), lambda item: item['camera'] != '1'),
        (Condition('camera', '>', '0'), lambda item: item['camera'] > '0'),
        (Condition('camera', '=', 1), lambda item: False),
        (Condition('pid', '>=', 250), lambda item: item['pid'] >= 250),
        (Condition('pid', '<', 2.5), lambda item: item['pid'] < 2.5),
        (Condition('pid', '<', 'x'), lambda item: False),
        (Condition('late', '=', True), lambda item: item['late']),
        (Condition('late', '!=', True), lambda item: not item['late']),
        (Condition('pid', '=', True), lambda item: False),
        (Condition('nothing', '!=', 1), lambda item: False),
    ],
)
def test_only_what_fulfils_a_condition_is_found(
    tmp_path: Path, condition: Condition, fulfils: Any
) -> None:
    items = [
        item._replace(fields={**item.fields, 'late': n % 2 == 0})
        for n, item in enumerate(items_of(300))
    ]
    engine = EmbeddedEngine(tmp_path, SIZE)
    engine.upsert(items, feats_of(300))
    queries = feats_of(3, seed=7)
    rows = [n for n, item in enumerate(items) if fulfils(item.fields)]
    expected = nearest([items[n] for n in rows], feats_of(300)[rows], queries, 400)
    assert paths(engine.search(queries, 400, [condition])) == expected


def test_several_conditions_hold_together_in_an_index(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # so that the index itself has to leave out what does not fulfil them
    monkeypatch.setattr('gckd_mm.gallery.embedded_engine.MAX_EXACT', 10)
    where = [Condition('camera', '=', '1'), Condition('pid', '>', 100)]
    rows = [n for n in range(101, 300) if n % 3 == 1]
    queries = feats_of(3, seed=8)
    items, feats = items_of(300), feats_of(300)
    expected = nearest([items[n] for n in rows], feats[rows], queries, 4)
    for kind in ('hnsw', 'ivf'):
        folder = tmp_path / kind
        folder.mkdir()
        engine = filled(folder, index=kind)
        assert paths(engine.search(queries, 4, where)) == expected


def test_equal_scores_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, SIZE)
    feat = feats_of(1)
    engine.upsert(items_of(9)[::-1], np.repeat(feat, 9, axis=0))
    assert paths(engine.search(feat, 9)) == [[item.path for item in items_of(9)]]


def test_an_empty_engine_finds_nothing(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path, SIZE)
    engine.finish()
    assert engine.search(feats_of(2), 5) == [[], []]
    assert engine.search(feats_of(2), 5, [Condition('pid', '=', 1)]) == [[], []]


def test_what_a_kill_left_behind_the_rows_that_count_is_overwritten(
    tmp_path: Path,
) -> None:
    engine = filled(tmp_path, 10)
    with open(tmp_path / 'vectors-0.f32', 'ab') as file:
        file.write(b'half a row')
    engine.upsert(items_of(5, first=10), feats_of(5, seed=9))
    expected = np.concatenate([feats_of(10), feats_of(5, seed=9)])
    wanted = [item.path for item in items_of(15)]
    np.testing.assert_array_equal(engine.feats_of(wanted), expected)


def test_a_failed_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = filled(tmp_path, 10)
    before = engine.search(feats_of(2, seed=1), 20)
    unserialisable = items_of(2, first=10, bad=object())
    with pytest.raises(TypeError):
        engine.upsert(unserialisable, feats_of(2))
    assert engine.search(feats_of(2, seed=1), 20) == before
    assert len(engine) == 10


def test_searching_is_right_while_another_connection_writes(tmp_path: Path) -> None:
    writer, reader = filled(tmp_path, 40), EmbeddedEngine(tmp_path, SIZE)
    wrong: list[Any] = []

    def write() -> None:
        for n in range(30):
            writer.upsert(items_of(10, first=40 + 10 * n), feats_of(10, seed=20 + n))
            writer.delete([item.path for item in items_of(10, first=40 + 10 * n)])
            writer.finish()

    thread = threading.Thread(target=write)
    thread.start()
    query = feats_of(40)[:1]
    while thread.is_alive():
        ((best, *_),) = reader.search(query, 3)
        if best.item.path != '00000.jpg' or abs(best.score - 1) > 1e-5:
            wrong.append(best)
    thread.join()
    assert not wrong


def test_one_engine_serves_many_threads(engine: EmbeddedEngine) -> None:
    expected = [engine.search(feats_of(300)[n : n + 1], 3) for n in range(20)]
    found: list[Any] = [None] * 20

    def search(n: int) -> None:
        found[n] = engine.search(feats_of(300)[n : n + 1], 3)

    threads = [threading.Thread(target=search, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_values_of_fields(tmp_path: Path) -> None:
    engine = filled(tmp_path, 30)
    assert engine.field_values(5) == {'camera': ['0', '1', '2'], 'pid': []}


def test_an_unknown_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='must be one of auto, exact, hnsw, ivf, got'):
        EmbeddedEngine(tmp_path, SIZE, 'flat')


def test_a_damaged_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / 'items.sqlite').write_bytes(b'no database' * 100)
    with pytest.raises(InputError, match='cannot be opened'):
        EmbeddedEngine(tmp_path, SIZE)
