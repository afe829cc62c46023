"""The engine in a folder: its files. What every engine does is in test_engine."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Condition
from gckd_mm.search.gallery.damage import DamagedGalleryError, DamagedGalleryWarning
from gckd_mm.search.gallery.embedded_engine import EmbeddedEngine
from tests.search.gallery.engines import SIZE, feats_of, fill, items_of, nearest, paths


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
    monkeypatch.setattr('gckd_mm.search.gallery.embedded_engine.MAX_EXACT', 10)
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


@pytest.mark.parametrize('data', [b'no database' * 100, b'', b'SQLite format 3\0'])
def test_a_damaged_file_is_no_traceback(tmp_path: Path, data: bytes) -> None:
    (tmp_path / 'items.sqlite').write_bytes(data)
    with pytest.raises(InputError, match=r'cannot be opened .*a new gallery'):
        EmbeddedEngine(tmp_path, SIZE)
    assert (tmp_path / 'items.sqlite').read_bytes() == data


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


def damage(file: Path, at: int = -9) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


def names_of_damaged(engine: EmbeddedEngine) -> list[str]:
    return [file.name for file in engine.verify() if file.problem]


@pytest.mark.parametrize('at', [0, 5000, -1])
def test_damaged_vectors_answer_nothing(tmp_path: Path, at: int) -> None:
    filled(tmp_path).close()
    damage(tmp_path / 'vectors-0.f32', at)
    engine = EmbeddedEngine(tmp_path, SIZE)
    for read in (
        lambda: engine.search(feats_of(1), 3),
        lambda: engine.feats_of(['00007.jpg']),
        engine.check,
    ):
        with pytest.raises(
            DamagedGalleryError, match='run gckd-search index'
        ) as raised:
            read()
        assert str(tmp_path / 'vectors-0.f32') in str(raised.value)
    assert names_of_damaged(engine) == ['vectors-0.f32']


def test_large_galleries_are_verified_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path).close()
    damage(tmp_path / 'vectors-0.f32')
    monkeypatch.setattr('gckd_mm.search.gallery.stored_vectors.MAX_CHECKED_BYTES', 1000)
    monkeypatch.setattr('gckd_mm.search.gallery.embedded_engine.MAX_CHECKED_ITEMS', 10)
    engine = EmbeddedEngine(tmp_path, SIZE)
    engine.check()
    assert names_of_damaged(engine) == ['vectors-0.f32']
    with pytest.raises(DamagedGalleryError, match='300 of 300 embeddings'):
        engine.check(fully=True)


def test_an_item_is_compared_whenever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('gckd_mm.search.gallery.embedded_engine.MAX_CHECKED_ITEMS', 10)
    engine = filled(tmp_path)
    (before,) = engine.search(feats_of(1), 3)
    with engine._sql:
        engine._sql.execute('UPDATE items SET size = 1 WHERE row = 0')
    for read in (
        lambda: engine.search(feats_of(1), 3),
        lambda: engine.get(['00000.jpg']),
        lambda: list(engine.items()),
        lambda: engine.check(fully=True),
        engine.damaged,
    ):
        with pytest.raises(DamagedGalleryError, match='checksum of item 0'):
            read()
    assert names_of_damaged(engine) == ['items.sqlite']
    assert before[0].item.path == '00000.jpg'


def test_rows_that_are_gone_are_noticed(tmp_path: Path) -> None:
    engine = filled(tmp_path)
    with engine._sql:
        engine._sql.execute('DELETE FROM items WHERE row = 7')
    with pytest.raises(DamagedGalleryError, match=r'items\.sqlite: damaged'):
        engine.check()


@pytest.mark.parametrize('kind', ['hnsw', 'ivf'])
@pytest.mark.parametrize('how', ['flipped', 'cut', 'empty', 'gone', 'of another'])
def test_a_damaged_index_is_named_done_without_and_built_again(
    tmp_path: Path, kind: str, how: str
) -> None:
    for name in ('one', 'another'):
        (tmp_path / name).mkdir()
        engine = EmbeddedEngine(tmp_path / name, SIZE, kind)
        engine.upsert(items_of(300), feats_of(300, seed=len(name)))
        engine.finish()
        engine.close()
    (file,) = (tmp_path / 'one').glob('*.faiss')
    data = file.read_bytes()
    if how == 'flipped':
        damage(file, len(data) // 2)
    elif how == 'gone':
        file.unlink()
    elif how == 'of another':
        file.write_bytes((tmp_path / 'another' / file.name).read_bytes())
    else:
        file.write_bytes(data[:1000] if how == 'cut' else b'')
    engine = EmbeddedEngine(tmp_path / 'one', SIZE, kind)
    queries, feats = feats_of(5, seed=6), feats_of(300, seed=3)
    expected = nearest(items_of(300), feats, queries, 10)
    with pytest.warns(DamagedGalleryWarning, match=f'{file.name}: damaged') as reported:
        assert paths(engine.search(queries, 10)) == expected
    assert 'run gckd-search index' in str(reported[0].message)
    assert names_of_damaged(engine) == [file.name]
    with pytest.warns(DamagedGalleryWarning, match='is built again'):
        EmbeddedEngine(tmp_path / 'one', SIZE, kind).finish()
    again = EmbeddedEngine(tmp_path / 'one', SIZE, kind)
    assert not names_of_damaged(again)
    assert paths(again.search(queries, 10)) == expected


def test_faiss_is_never_given_other_bytes_than_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    filled(tmp_path, index='hnsw').close()
    (file,) = tmp_path.glob('*.faiss')
    damage(file, 40)
    monkeypatch.setattr(faiss, 'read_index', lambda path: pytest.fail('was read'))
    engine = EmbeddedEngine(tmp_path, SIZE, 'hnsw')
    with pytest.warns(DamagedGalleryWarning):
        engine.search(feats_of(1), 3)
    assert names_of_damaged(engine) == [file.name]


def test_an_index_that_nothing_is_added_to_is_left_alone(tmp_path: Path) -> None:
    engine = filled(tmp_path, index='hnsw')
    (file,) = tmp_path.glob('*.faiss')
    before = file.stat().st_mtime_ns
    engine.finish()
    assert list(tmp_path.glob('*.faiss')) == [file]
    assert file.stat().st_mtime_ns == before
    engine.upsert(items_of(5, first=300), feats_of(5, seed=9))
    engine.finish()
    (larger,) = tmp_path.glob('*.faiss')
    assert larger != file


def test_damaged_vectors_are_not_given_new_checksums(tmp_path: Path) -> None:
    engine = filled(tmp_path)
    engine.delete([item.path for item in items_of(300)[::2]])
    damage(tmp_path / 'vectors-0.f32')
    with pytest.raises(DamagedGalleryError):
        EmbeddedEngine(tmp_path, SIZE).finish()


@pytest.mark.parametrize('how', ['flipped', 'cut', 'gone'])
def test_damaged_vectors_are_replaced(tmp_path: Path, how: str) -> None:
    filled(tmp_path, 3000).close()
    file = tmp_path / 'vectors-0.f32'
    if how == 'flipped':
        damage(file)
    elif how == 'cut':
        file.write_bytes(file.read_bytes()[:-SIZE])
    else:
        file.unlink()
    items, feats = items_of(3000), feats_of(3000)
    engine = EmbeddedEngine(tmp_path, SIZE)
    engine.prepare()
    lost = engine.damaged()
    # a part of a file costs that part
    first = 0 if how == 'gone' else 2048
    assert lost == [item.path for item in items[first:]]
    if how != 'gone':  # the others can be read meanwhile
        np.testing.assert_array_equal(engine.feats_of(['00007.jpg'])[0], feats[7])
    engine.upsert(items[first:], feats[first:])
    engine.finish()
    again = EmbeddedEngine(tmp_path, SIZE)
    again.check()
    assert not names_of_damaged(again)
    assert again.describe()['rows'] == 3000
    wanted = [item.path for item in items]
    np.testing.assert_array_equal(again.feats_of(wanted), feats)


def test_a_file_that_is_cut_off_while_it_is_mapped(tmp_path: Path) -> None:
    engine = filled(tmp_path)
    engine.search(feats_of(1), 3)
    with open(tmp_path / 'vectors-0.f32', 'r+b') as file:
        file.truncate(100)
    with pytest.raises(InputError, match='does not hold the 300 vectors'):
        engine.search(feats_of(1), 3)


def test_verifying_tells_how_far_it_is(tmp_path: Path) -> None:
    engine = filled(tmp_path, 3000, index='ivf')
    reported: list[tuple[int, int]] = []
    checked = engine.verify(lambda done, total: reported.append((done, total)))
    assert [file.found for file in checked] == [
        '3000 images',
        '3000 embeddings',
        'index',
    ]
    assert reported == sorted(reported)
    assert reported[-1] == (3000, 3000)
    assert engine.describe()['checksums'] == 'yes'


def test_another_process_that_writes_is_named(tmp_path: Path) -> None:
    engine = filled(tmp_path, 10)
    other = sqlite3.connect(tmp_path / 'items.sqlite')
    other.execute('BEGIN EXCLUSIVE')
    engine._sql.execute('PRAGMA busy_timeout = 10')
    with pytest.raises(InputError, match=r'another process .* try again'):
        engine.search(feats_of(1), 3)
    other.rollback()
    assert len(engine.search(feats_of(1), 3)[0]) == 3


def test_a_limit_of_the_size_of_files_is_told(tmp_path: Path) -> None:
    import resource

    engine = filled(tmp_path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises((InputError, OSError)):
            engine.upsert(items_of(2000, first=10), feats_of(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(engine) == 10
    assert not names_of_damaged(engine)
    engine.upsert(items_of(2000, first=10), feats_of(2000))
    assert not names_of_damaged(engine)
