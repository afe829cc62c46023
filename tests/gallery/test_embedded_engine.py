"""The engine in a folder: its files. What every engine does is in test_engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.gallery import Condition
from gckd_mm.gallery.embedded_engine import EmbeddedEngine
from tests.gallery.engines import SIZE, feats_of, fill, items_of, nearest, paths


def filled(folder: Path, count: int = 300, **options: Any) -> EmbeddedEngine:
    engine = EmbeddedEngine(folder, SIZE, **options)
    fill(engine, count)
    return engine


@pytest.fixture(params=['exact', 'hnsw', 'ivf'])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddedEngine:
    return filled(tmp_path, index=request.param)


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


def test_a_damaged_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / 'items.sqlite').write_bytes(b'no database' * 100)
    with pytest.raises(InputError, match='cannot be opened'):
        EmbeddedEngine(tmp_path, SIZE)


def test_a_deleted_row_costs_later_searches_nothing(tmp_path: Path) -> None:
    engine = filled(tmp_path)
    engine.delete([items_of(1)[0].path])
    asked: list[str] = []
    engine._sql.set_trace_callback(asked.append)
    query = feats_of(1, seed=4)
    engine.search(query, 3)
    assert any('SELECT row FROM items' in statement for statement in asked)
    asked.clear()
    engine.search(query, 3)
    assert not any('SELECT row FROM items' in statement for statement in asked)
    engine.delete([items_of(2)[1].path])
    expected = nearest(items_of(300)[2:], feats_of(300)[2:], query, 3)
    assert paths(engine.search(query, 3)) == expected


def test_fewer_are_left_than_asked_for(tmp_path: Path) -> None:
    engine = filled(tmp_path, 10)
    engine.delete([item.path for item in items_of(5)])
    for queries in (feats_of(1, seed=4), feats_of(3, seed=4)):
        expected = nearest(items_of(10)[5:], feats_of(10)[5:], queries, 5)
        assert paths(engine.search(queries, 8)) == expected


def test_an_index_that_the_disk_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    def full(index: Any, path: str) -> None:
        Path(path).write_bytes(b'half')
        raise RuntimeError('Error in void faiss::write_index: write error')

    engine = EmbeddedEngine(tmp_path, SIZE, 'hnsw')
    engine.upsert(items_of(20), feats_of(20))
    with monkeypatch.context() as patch:
        patch.setattr(faiss, 'write_index', full)
        with pytest.raises(InputError, match='cannot be written: is the disk full'):
            engine.finish()
    assert not list(tmp_path.glob('.*partial'))
    engine.finish()
    assert list(tmp_path.glob('index-*-hnsw.faiss'))


def test_a_copy_of_a_gallery_that_was_broken_off(tmp_path: Path) -> None:
    filled(tmp_path).close()
    file = tmp_path / 'vectors-0.f32'
    file.write_bytes(file.read_bytes()[:1000])
    engine = EmbeddedEngine(tmp_path, SIZE)
    with pytest.raises(InputError, match='damaged: it does not hold the 300 vectors'):
        engine.search(feats_of(1), 3)
    file.unlink()
    with pytest.raises(InputError, match='damaged'):
        engine.search(feats_of(1), 3)
