"""The tables of ``items.sqlite``, and the checksums in them.

Each item has a checksum of its own, and ``state`` those of all together, so that an
item that is gone is noticed. ``segments`` has one for each run of rows of the file of
vectors. Version 0.1 had none of these.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gckd_mm.search.gallery.items import Item, Stamp

_TABLES = {
    'state': 'CREATE TABLE state (vectors INTEGER NOT NULL, num_rows INTEGER NOT NULL, '
    'num_items INTEGER NOT NULL, items_sum INTEGER NOT NULL, '
    'index_file TEXT NOT NULL, index_size INTEGER NOT NULL, '
    'index_crc INTEGER NOT NULL, crc INTEGER NOT NULL)',
    'segments': 'CREATE TABLE segments (start INTEGER PRIMARY KEY, '
    'num_rows INTEGER NOT NULL, crc INTEGER NOT NULL)',
    'items': 'CREATE TABLE items (row INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, '
    'size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, fields TEXT NOT NULL, '
    'crc INTEGER NOT NULL)',
}
_COLUMNS_OF_0_1 = {
    'state': ['vectors', 'num_rows'],
    'items': ['row', 'path', 'size', 'mtime_ns', 'fields'],
}
#: rows of a segment: what is embedded again where one byte is damaged
SEGMENT_ROWS = 1024
_VARIABLES = 500  # of one SQL statement
#: what of an item is selected, in a gallery with checksums and of 0.1
ITEM, ITEM_OF_0_1 = (
    'path, size, mtime_ns, fields, row, crc',
    ('path, size, mtime_ns, fields, row'),
)


class State(NamedTuple):
    """What counts of the files of a gallery.

    Attributes:
        vectors: Number of the file of vectors.
        num_rows: Rows of it that count.
        num_items: How many items there are.
        items_sum: Sum of their checksums.
        index_file: Name of the file of the index, empty for none.
        index_size: Its bytes.
        index_crc: Its CRC-32.
        has_checksums: Whether there are any; version 0.1 had none.
    """

    vectors: int = 0
    num_rows: int = 0
    num_items: int = 0
    items_sum: int = 0
    index_file: str = ''
    index_size: int = 0
    index_crc: int = 0
    has_checksums: bool = True


class Segment(NamedTuple):
    """Consecutive rows of the file of vectors, and their CRC-32."""

    start: int
    num_rows: int
    crc: int

    @property
    def stop(self) -> int:
        """The first row behind it."""
        return self.start + self.num_rows


class Damage(ValueError):
    """What SQLite gives cannot be what was stored; the message says why."""


def create_tables(sql: sqlite3.Connection) -> None:
    """Make the tables of an empty gallery, within a transaction of the caller's."""
    for statement in _TABLES.values():
        sql.execute(statement)
    sql.execute(f'INSERT INTO state VALUES ({", ".join("?" * 8)})', _stored(State()))


def check_schema(sql: sqlite3.Connection) -> None:
    """Refuse a database whose tables are neither those made here nor those of 0.1."""
    found = sql.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    tables = dict(found.fetchall())
    if tables == _TABLES:
        return
    if tables.keys() != _COLUMNS_OF_0_1.keys():
        raise Damage(f'its tables are {", ".join(map(str, tables)) or "missing"}')
    for table, columns in _COLUMNS_OF_0_1.items():
        described = sql.execute(f'PRAGMA table_info({table})').fetchall()
        if [row[1] for row in described] != columns:
            raise Damage(f'its table {table} has other columns')


def write_model(sql: sqlite3.Connection, fingerprint: str) -> None:
    """Remember the model that embeds, in the header of the database."""
    sql.execute(f'PRAGMA application_id = {_number_of(fingerprint)}')


def check_model(sql: sqlite3.Connection, fingerprint: str) -> None:
    """Refuse a database of another model than ``gallery.json`` names."""
    ((number,),) = sql.execute('PRAGMA application_id').fetchall()
    if fingerprint and number not in (0, _number_of(fingerprint)):
        raise Damage(
            'it belongs to another gallery: its embeddings are of another model'
        )


def _number_of(fingerprint: str) -> int:
    """Return a positive number of 31 bits, or 0 for an unknown model."""
    return zlib.crc32(fingerprint.encode()) % (2**31 - 1) + 1 if fingerprint else 0


def read_state(sql: sqlite3.Connection) -> State:
    """Return the state, if its checksum matches."""
    rows = sql.execute('SELECT * FROM state LIMIT 2').fetchall()
    if len(rows) != 1:
        raise Damage(f'it has {len(rows)} states')
    (row,) = rows
    if len(row) == 2:
        if not all(type(x) is int and 0 <= x < 2**40 for x in row):
            raise Damage(f'its state is {row}')
        vectors, num_rows = row
        return State(vectors, num_rows, has_checksums=False)
    if row[-1] != _state_crc(row[:-1]):
        raise Damage('the checksum of its state does not match')
    return State(*row[:-1])


def write_state(sql: sqlite3.Connection, state: State) -> None:
    """Replace the state."""
    sql.execute(
        'UPDATE state SET vectors = ?, num_rows = ?, num_items = ?, items_sum = ?, '
        'index_file = ?, index_size = ?, index_crc = ?, crc = ?',
        _stored(state),
    )


def _stored(state: State) -> tuple[Any, ...]:
    return (*state[:-1], _state_crc(state[:-1]))


@lru_cache(maxsize=4)  # every search asks for that of the same state
def _state_crc(values: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(values).encode('utf-8', 'surrogatepass'))


def item_of(row: Sequence[Any]) -> Item:
    """Return the item of a row of ``ITEM``, or of ``ITEM_OF_0_1``, if it is sound."""
    _check_item(row)
    path, size, mtime_ns, fields = row[:4]
    # most have none
    known = {} if fields == '{}' else json.loads(fields)
    return Item(path, Stamp(size, mtime_ns), known)


def _check_item(row: Sequence[Any]) -> None:
    path, size, mtime_ns, fields, number = row[:5]
    if len(row) == 6:
        if row[5] != _item_crc(number, path, size, mtime_ns, fields):
            raise Damage(f'the checksum of item {number} does not match')
    elif not _can_be_item(path, size, mtime_ns, fields):
        raise Damage(f'item {number} is none')


def _can_be_item(path: Any, size: Any, mtime_ns: Any, fields: Any) -> bool:
    types = (type(path), type(size), type(mtime_ns), type(fields))
    if types != (str, int, int, str):
        return False
    try:
        return isinstance(json.loads(fields), dict)
    except (ValueError, RecursionError):
        return False


def _item_crc(row: Any, path: Any, size: Any, mtime_ns: Any, fields: Any) -> int:
    text = f'{row} {size} {mtime_ns} {path}\0{fields}'
    return zlib.crc32(text.encode('utf-8', 'surrogatepass'))


def insert_items(sql: sqlite3.Connection, items: Sequence[Item], state: State) -> State:
    """Store items, of new paths, for the next rows; return the state to be written."""
    rows = [
        (state.num_rows + n, x.path, *x.stamp, json.dumps(dict(x.fields)))
        for n, x in enumerate(items)
    ]
    return _insert(sql, rows, state)._replace(num_rows=state.num_rows + len(rows))


def _insert(
    sql: sqlite3.Connection, rows: Iterable[tuple[Any, ...]], state: State
) -> State:
    stored = [(*row, _item_crc(*row)) for row in rows]
    sql.executemany('INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)', stored)
    return state._replace(
        num_items=state.num_items + len(stored),
        items_sum=state.items_sum + sum(row[-1] for row in stored),
    )


def delete_items(sql: sqlite3.Connection, paths: Sequence[str], state: State) -> State:
    """Remove items, if they are there; return the state to be written."""
    for start in range(0, len(paths), _VARIABLES):
        some = paths[start : start + _VARIABLES]
        of_these = f'FROM items WHERE path IN ({", ".join("?" * len(some))})'
        count, total = sql.execute(
            f'SELECT COUNT(*), COALESCE(SUM(crc), 0) {of_these}', some
        ).fetchone()
        sql.execute(f'DELETE {of_these}', some)
        state = state._replace(
            num_items=state.num_items - count, items_sum=state.items_sum - total
        )
    return state


def renumber_items(sql: sqlite3.Connection, state: State) -> State:
    """Give the items, in order, the rows from 0 on; return the state to be written."""
    columns = 'row, path, size, mtime_ns, fields'
    known = sql.execute(f'SELECT {columns} FROM items ORDER BY row').fetchall()
    sql.execute('DELETE FROM items')
    rows = ((new, *row[1:]) for new, row in enumerate(known))
    state = _insert(sql, rows, state._replace(num_items=0, items_sum=0))
    return state._replace(num_rows=len(known))


def check_items(
    sql: sqlite3.Connection, state: State, progress: Any = lambda done: None
) -> None:
    """Verify the database and all items.

    ``progress`` is called with the number of items done, now and then.
    """
    ((problem, *_), *_) = sql.execute('PRAGMA integrity_check(1)').fetchall()
    if problem != 'ok':
        raise Damage(str(problem))
    columns = ITEM if state.has_checksums else ITEM_OF_0_1
    count = total = 0
    for row in sql.execute(f'SELECT {columns} FROM items ORDER BY row'):
        _check_item(row)
        if not 0 <= row[4] < state.num_rows:
            raise Damage(f'item {row[4]} is behind the {state.num_rows} vectors')
        count, total = count + 1, total + row[-1]
        if not count % 10_000:
            progress(count)
    if state.has_checksums and (count, total) != (state.num_items, state.items_sum):
        raise Damage(f'it has {count} items, or others, and should have {state[2]}')


def read_segments(sql: sqlite3.Connection, state: State, first: int) -> list[Segment]:
    """Return the segments from the one with row ``first`` on, if none is missing."""
    found = sql.execute(
        'SELECT start, num_rows, crc FROM segments WHERE start + num_rows > ? '
        'ORDER BY start',
        (first,),
    )
    segments = [Segment(*row) for row in found]
    if first >= state.num_rows and not segments:
        return []
    stop = segments[0].start if segments else 0
    if stop > first or not segments:
        raise Damage(f'rows {first} and more have no checksums')
    for segment in segments:
        if segment.start != stop or segment.num_rows < 1:
            raise Damage(f'the checksums of rows {stop} and more are missing')
        stop = segment.stop
    if stop != state.num_rows:
        raise Damage(f'there are checksums of {stop} rows, and {state.num_rows} rows')
    return segments


def write_segments(sql: sqlite3.Connection, segments: Iterable[Segment]) -> None:
    """Add segments, or replace those of the same start."""
    sql.executemany('INSERT OR REPLACE INTO segments VALUES (?, ?, ?)', segments)


def add_checksums(
    sql: sqlite3.Connection, state: State, segments: Iterable[Segment]
) -> State:
    """Turn the tables of 0.1 into those with checksums; the index is built anew."""
    check_items(sql, state)
    for table in _COLUMNS_OF_0_1:
        sql.execute(f'ALTER TABLE {table} RENAME TO old_{table}')
    create_tables(sql)
    rows = sql.execute('SELECT row, path, size, mtime_ns, fields FROM old_items')
    state = _insert(sql, rows, State(state.vectors, state.num_rows))
    write_segments(sql, segments)
    write_state(sql, state)
    for table in _COLUMNS_OF_0_1:
        sql.execute(f'DROP TABLE old_{table}')
    return state


def segments_of(
    feats: np.ndarray, start: int, last: Segment | None = None
) -> list[Segment]:
    """Return the segments of rows; small ones grow, so that they do not become many.

    ``last`` is the segment before ``start``, which grows if there is room in it.
    """
    segments, done = [], 0
    if last is not None and last.num_rows < SEGMENT_ROWS:
        done = min(len(feats), SEGMENT_ROWS - last.num_rows)
        crc = zlib.crc32(feats[:done].data, last.crc)
        segments.append(Segment(last.start, last.num_rows + done, crc))
    while done < len(feats):
        some = feats[done : done + SEGMENT_ROWS]
        segments.append(Segment(start + done, len(some), zlib.crc32(some.data)))
        done += len(some)
    return segments
