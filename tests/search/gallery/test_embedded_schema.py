"""Tables and checksums of ``items.sqlite``."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest

from gckd_mm.search.gallery import embedded_schema as schema
from gckd_mm.search.gallery.embedded_schema import SEGMENT_ROWS, Damage, Segment, State
from tests.search.gallery.engines import feats_of, items_of


@pytest.fixture
def sql(tmp_path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(tmp_path / 'items.sqlite')
    schema.create_tables(connection)
    return connection


@pytest.mark.parametrize('step', [1, 7, 500, SEGMENT_ROWS, 3000])
def test_segments_cover_all_rows_and_stay_few(
    sql: sqlite3.Connection, step: int
) -> None:
    feats = feats_of(3000)
    last, state = None, State()
    for start in range(0, 3000, step):
        some = feats[start : start + step]
        segments = schema.segments_of(some, start, last)
        schema.write_segments(sql, segments)
        last = segments[-1]
        state = state._replace(num_rows=last.stop)
    for segment in schema.read_segments(sql, state, 0):
        rows = feats[segment.start : segment.stop]
        assert segment.crc == zlib.crc32(rows.tobytes())
    assert len(schema.read_segments(sql, state, 0)) == -(-3000 // SEGMENT_ROWS)
    assert schema.read_segments(sql, state, 2999) == [last]


@pytest.mark.parametrize(
    'segments',
    [
        [],
        [Segment(1, 9, 0)],
        [Segment(0, 9, 0)],
        [Segment(0, 11, 0)],
        [Segment(0, 4, 0), Segment(5, 5, 0)],
        [Segment(0, 6, 0), Segment(5, 5, 0)],
    ],
)
def test_rows_without_a_checksum_are_noticed(
    sql: sqlite3.Connection, segments: list[Segment]
) -> None:
    schema.write_segments(sql, segments)
    with pytest.raises(Damage):
        schema.read_segments(sql, State(num_rows=10), 0)


def test_the_state_counts_what_comes_and_goes(sql: sqlite3.Connection) -> None:
    state = schema.insert_items(sql, items_of(20), State())
    schema.check_items(sql, state)
    paths = [item.path for item in items_of(5)]
    state = schema.delete_items(sql, [*paths, 'none.jpg'], state)
    assert (state.num_rows, state.num_items) == (20, 15)
    schema.check_items(sql, state)
    state = schema.renumber_items(sql, state)
    assert (state.num_rows, state.num_items) == (15, 15)
    schema.check_items(sql, state)
    schema.write_state(sql, state)
    assert schema.read_state(sql) == state


@pytest.mark.parametrize(
    'statement',
    [
        "UPDATE items SET path = 'another.jpg' WHERE row = 3",
        'UPDATE items SET size = size + 1 WHERE row = 3',
        'UPDATE items SET mtime_ns = 0.5 WHERE row = 3',
        "UPDATE items SET fields = '{}' WHERE row = 3",
        'UPDATE items SET row = 30 WHERE row = 3',
        'UPDATE items SET crc = crc + 1 WHERE row = 3',
        'DELETE FROM items WHERE row = 3',
        "INSERT INTO items VALUES (25, 'more.jpg', 1, 1, '{}', 0)",
    ],
)
def test_a_change_of_an_item_is_noticed(
    sql: sqlite3.Connection, statement: str
) -> None:
    state = schema.insert_items(sql, items_of(20), State())
    sql.execute(statement)
    with pytest.raises(Damage):
        schema.check_items(sql, state)


def test_a_change_of_the_state_is_noticed(sql: sqlite3.Connection) -> None:
    columns = ('vectors', 'num_rows', 'num_items', 'items_sum', 'index_size', 'crc')
    for column in columns:
        sql.execute(f'UPDATE state SET {column} = {column} + 1')
        with pytest.raises(Damage, match='checksum of its state'):
            schema.read_state(sql)
        sql.execute(f'UPDATE state SET {column} = {column} - 1')
    sql.execute('DELETE FROM state')
    with pytest.raises(Damage, match='has 0 states'):
        schema.read_state(sql)


def test_other_tables_are_noticed(sql: sqlite3.Connection) -> None:
    schema.check_schema(sql)
    sql.execute('DROP TABLE segments')
    with pytest.raises(Damage, match='its table state has other columns'):
        schema.check_schema(sql)
    sql.execute('DROP TABLE state')
    with pytest.raises(Damage, match='its tables are items'):
        schema.check_schema(sql)


def test_a_segment_ends_where_it_is_full() -> None:
    feats = np.zeros((10, 4), np.float32)
    last = Segment(0, SEGMENT_ROWS - 4, 0)
    first, second = schema.segments_of(feats, last.stop, last)
    assert (first.start, first.stop) == (0, SEGMENT_ROWS)
    assert (second.start, second.stop) == (SEGMENT_ROWS, SEGMENT_ROWS + 6)
