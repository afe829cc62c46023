"""A gallery in one folder: SQLite for what is known, a flat file for the vectors."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.gallery.conditions import Condition
from gckd_mm.gallery.items import Item, Match, Stamp
from gckd_mm.gallery.vector_file import VectorFile
from gckd_mm.gallery.vector_index import (
    MAX_EXACT,
    VectorIndex,
    chosen_kind,
    exact_search,
)

ITEMS = 'items.sqlite'
#: of a folder to which nothing has been added
EMPTY_FILES = (ITEMS, f'{ITEMS}-journal')
_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (
    vectors INTEGER NOT NULL,     -- number of the file of vectors
    num_rows INTEGER NOT NULL     -- rows of it that count
);
CREATE TABLE IF NOT EXISTS items (
    row INTEGER PRIMARY KEY,      -- of the file of vectors
    path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    fields TEXT NOT NULL          -- JSON
);
"""
#: above this share of rows without an item the file of vectors is written anew
_MAX_DEAD = 0.25
#: where more than this share of rows may be found, none are copied to be compared
_MANY = 0.3
_COLUMNS = 'path, size, mtime_ns, fields'
_SQL_TYPES = {str: "('text')", bool: "('true', 'false')"}
_SQL_NUMBERS = "('integer', 'real')"
_VARIABLES = 500  # of one SQL statement


class EmbeddedEngine:
    """Items and vectors in one folder: see :class:`Engine`.

    A change is one transaction: vectors go to the disk first, behind the rows that
    count, and then SQLite takes items and number of rows together. A kill leaves the
    one state or the other. Searching while another process writes is safe.

    Args:
        folder: Where ``items.sqlite``, ``vectors-<n>.f32`` and the index lie.
        embedding_size: D.
        index: ``'exact'``, ``'hnsw'``, ``'ivf'``, or ``'auto'``, which chooses by the
            number of vectors.

    Raises:
        InputError: If the folder cannot be written to or read.
    """

    def __init__(self, folder: Path, embedding_size: int, index: str = 'auto') -> None:
        chosen_kind(index, 0)  # refuses what is none
        self.folder = folder
        self.embedding_size = embedding_size
        self.kind = index
        self._lock = threading.RLock()
        try:
            self._sql = sqlite3.connect(
                folder / ITEMS, timeout=60, check_same_thread=False
            )
            with self._sql:
                self._sql.executescript(_SCHEMA)
                if self._state() is None:
                    self._sql.execute('INSERT INTO state VALUES (0, 0)')
        except sqlite3.Error as error:
            raise InputError(f'{folder}: cannot be opened ({error})') from error
        self._index: VectorIndex | None = None
        self._index_of = (-1, -1)
        self._known: dict[str, Any] = {}
        self._known_of = (-1, -1)
        self._mapped, self._mapped_of = np.empty((0, embedding_size), np.float32), -1

    def __len__(self) -> int:
        return self._once('count', lambda: self._one('SELECT COUNT(*) FROM items'))

    def items(self) -> Iterator[Item]:
        """Yield every item, in the order in which they came."""
        with self._lock:
            rows = self._sql.execute(f'SELECT {_COLUMNS} FROM items ORDER BY row')
            yield from map(_item, rows)

    def upsert(self, items: Sequence[Item], feats: np.ndarray) -> None:
        """Add items, or replace those of the same path, in one transaction."""
        with self._writing():
            number, num_rows = self._state()
            self._vectors(number).write(num_rows, feats)
            # A replaced item gets another row: the index knows the old one's vector.
            self._sql.executemany(
                'INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)',
                [
                    (num_rows + n, x.path, *x.stamp, json.dumps(dict(x.fields)))
                    for n, x in enumerate(items)
                ],
            )
            self._sql.execute('UPDATE state SET num_rows = ?', (num_rows + len(items),))

    def delete(self, paths: Sequence[str]) -> None:
        """Remove items; what is not there is no error."""
        with self._writing():
            self._sql.executemany(
                'DELETE FROM items WHERE path = ?', [(path,) for path in paths]
            )

    def finish(self) -> None:
        """Drop rows without items if they are many, and bring the index up to date."""
        with self._lock:
            number, num_rows = self._state()
            if num_rows - len(self) > _MAX_DEAD * num_rows:
                self._compact(number)
                number, num_rows = self._state()
            for file in self.folder.glob('vectors-*.f32'):
                if file != self._vectors(number).path:
                    file.unlink()
            kind = chosen_kind(self.kind, num_rows)
            path = self._index_path(number, kind)
            index = self._load_index(number, num_rows)
            if kind != 'exact' and num_rows and (index is None or not path.exists()):
                index = VectorIndex.build(kind, self._feats(number, num_rows))
                index.write(path)
            elif index is not None and len(index) < num_rows:
                index.add(self._feats(number, num_rows)[len(index) :])
                index.write(path)
            for file in self.folder.glob('index-*.faiss'):
                if kind == 'exact' or file != path:
                    file.unlink()
            self._index_of = (-1, -1)

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        where: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[list[Match]]:
        """Find the nearest items that fulfil all conditions.

        Where the index is behind, the rows that it lacks are compared one by one; and
        so are those that fulfil the conditions, if they are few.
        """
        with self._reading():
            number, num_rows = self._state()
            feats = self._feats(number, num_rows)
            allowed = self._allowed(where, num_rows)
            index = None if exact else self._load_index(number, num_rows)
            if allowed is not None and np.count_nonzero(allowed) <= MAX_EXACT:
                index = None
            indexed = 0 if index is None else len(index)
            scores, rows = _search_rows(queries, feats, top_k, indexed, allowed)
            if index is not None:
                mask = None if allowed is None else allowed[:indexed]
                more, at = index.search(queries, top_k, feats, mask)
                scores = np.concatenate([scores, more], axis=1)
                rows = np.concatenate([rows, at], axis=1)
                order = np.argsort(-scores, axis=1, kind='stable')[:, :top_k]
                scores = np.take_along_axis(scores, order, axis=1)
                rows = np.take_along_axis(rows, order, axis=1)
            return self._matches(scores, rows)

    def get(self, paths: Sequence[str]) -> list[Item | None]:
        """Return items by their paths."""
        found = {
            item.path: item
            for item in map(_item, self._by('path', paths, f'SELECT {_COLUMNS}'))
        }
        return [found.get(path) for path in paths]

    def feats_of(self, paths: Sequence[str]) -> np.ndarray:
        """Return the embeddings of items that are there."""
        with self._reading():
            rows = dict(self._by('path', paths, 'SELECT path, row'))
            gone = [path for path in paths if path not in rows]
            if gone:  # since it was found
                raise InputError(f'{self.folder}: has no picture {gone[0]!r} any more')
            number, num_rows = self._state()
            return self._feats(number, num_rows)[[rows[path] for path in paths]]

    def field_values(self, limit: int) -> dict[str, list[Any]]:
        """Return the fields and, of those with at most ``limit`` values, these."""
        return self._once(f'values {limit}', lambda: self._field_values(limit))

    def _field_values(self, limit: int) -> dict[str, list[Any]]:
        values: dict[str, list[Any]] = {}
        names = self._sql.execute(
            'SELECT DISTINCT key FROM items, json_each(fields) ORDER BY key'
        ).fetchall()
        for (name,) in names:
            found = self._sql.execute(
                'SELECT DISTINCT value, type FROM items, json_each(fields) '
                'WHERE key = ? ORDER BY value LIMIT ?',
                (name, limit + 1),
            ).fetchall()
            values[name] = [
                bool(value) if kind in ('true', 'false') else value
                for value, kind in found
                if len(found) <= limit
            ]
        return values

    def describe(self) -> dict[str, Any]:
        """Return kind of index, rows and bytes."""
        _, num_rows = self._state()
        kind = chosen_kind(self.kind, num_rows)
        files = [file for file in self.folder.iterdir() if file.is_file()]
        return {
            'engine': 'embedded',
            'index': kind,
            'items': len(self),
            'rows': num_rows,
            'bytes': sum(file.stat().st_size for file in files),
        }

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._sql.close()
            self._index = None
            self._mapped, self._mapped_of = self._mapped[:0].copy(), -1

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """See one state throughout: a writer waits, and so keeps its old files."""
        with self._lock:
            self._sql.execute('BEGIN')
            try:
                yield
            finally:
                self._sql.execute('COMMIT')

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make one transaction, while no other process makes one."""
        try:
            with self._lock, self._sql:
                self._sql.execute('BEGIN IMMEDIATE')
                yield
        except sqlite3.Error as error:
            raise InputError(
                f'{self.folder}: cannot be written to ({error}); what was written '
                f'before is kept'
            ) from error

    def _state(self) -> Any:
        with self._lock:
            return self._sql.execute('SELECT vectors, num_rows FROM state').fetchone()

    def _one(self, statement: str) -> Any:
        with self._lock:
            return self._sql.execute(statement).fetchone()[0]

    def _once(self, name: str, ask: Callable[[], Any]) -> Any:
        """Return what takes long to find out, and is so until somebody writes.

        Counting a million takes longer than searching them.
        """
        with self._lock:
            version = (self._one('PRAGMA data_version'), self._sql.total_changes)
            if self._known_of != version:
                self._known, self._known_of = {}, version
            if name not in self._known:
                self._known[name] = ask()
            return self._known[name]

    def _vectors(self, number: int) -> VectorFile:
        path = self.folder / f'vectors-{number}.f32'
        return VectorFile(path, self.embedding_size)

    def _feats(self, number: int, num_rows: int) -> np.ndarray:
        """Return the vectors that count; the file stays mapped between searches."""
        if self._mapped_of != number or len(self._mapped) < num_rows:
            self._mapped = self._vectors(number).read(num_rows)
            self._mapped_of = number
        return self._mapped[:num_rows]

    def _index_path(self, number: int, kind: str) -> Path:
        return self.folder / f'index-{number}-{kind}.faiss'

    def _load_index(self, number: int, num_rows: int) -> VectorIndex | None:
        """Return the index as it was last written, or none."""
        kind = chosen_kind(self.kind, num_rows)
        path = self._index_path(number, kind)
        if kind == 'exact' or not path.exists():
            return None
        version = (number, path.stat().st_mtime_ns)
        if self._index is None or self._index_of != version:
            self._index = VectorIndex.read(path)
            self._index_of = version
        return self._index

    def _allowed(self, where: Sequence[Condition], num_rows: int) -> np.ndarray | None:
        """Return which rows may be found, shape (num_rows,), None for all."""
        if not where and len(self) == num_rows:
            return None
        if not where:
            return self._once('live', lambda: self._fulfilling((), num_rows))
        return self._fulfilling(where, num_rows)

    def _fulfilling(self, where: Sequence[Condition], num_rows: int) -> np.ndarray:
        """Return which rows have items that fulfil all conditions."""
        clauses, values = ['row < ?'], [num_rows]
        for condition in where:
            clause, more = _sql_of(condition)
            clauses.append(clause)
            values += more
        statement = f'SELECT row FROM items WHERE {" AND ".join(clauses)}'
        rows = np.fromiter(
            (row for (row,) in self._sql.execute(statement, values)), np.int64
        )
        allowed = np.zeros(num_rows, bool)
        allowed[rows] = True
        return allowed

    def _by(self, column: str, keys: Sequence[Any], select: str) -> Iterator[Any]:
        """Yield what ``select`` names of the items with these keys."""
        with self._lock:
            for start in range(0, len(keys), _VARIABLES):
                some = keys[start : start + _VARIABLES]
                marks = ', '.join('?' * len(some))
                yield from self._sql.execute(
                    f'{select} FROM items WHERE {column} IN ({marks})', list(some)
                )

    def _matches(self, scores: np.ndarray, rows: np.ndarray) -> list[list[Match]]:
        # Lists: numbers of NumPy are slow one by one, and most searches have one query.
        at = rows.tolist()
        wanted = list({row for of_query in at for row in of_query if row >= 0})
        selected = self._by('row', wanted, f'SELECT {_COLUMNS}, row')
        items = {row[-1]: _item(row) for row in selected}
        found = [
            [
                Match(items[row], score)
                for row, score in zip(of_query, of_rows, strict=True)
                if row >= 0
            ]
            for of_query, of_rows in zip(at, scores.tolist(), strict=True)
        ]
        for matches in found:
            matches.sort(key=lambda match: (-match.score, match.item.path))
        return found

    def _compact(self, number: int) -> None:
        """Write the vectors that still have items into a new file."""
        with self._writing():
            _, num_rows = self._state()
            live = self._sql.execute('SELECT row FROM items ORDER BY row').fetchall()
            rows = np.array([row for (row,) in live], np.int64)
            feats = self._feats(number, num_rows)
            self._vectors(number + 1).write(0, feats[rows])
            # Ascending, so that a row is free before another takes its number.
            self._sql.executemany(
                'UPDATE items SET row = ? WHERE row = ?',
                [(new, int(old)) for new, old in enumerate(rows)],
            )
            self._sql.execute('UPDATE state SET vectors = ?', (number + 1,))
            self._sql.execute('UPDATE state SET num_rows = ?', (len(rows),))


def _search_rows(
    queries: np.ndarray,
    feats: np.ndarray,
    top_k: int,
    first: int,
    allowed: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare with the allowed rows from the given one on."""
    if allowed is None or not len(feats[first:]):
        scores, rows = exact_search(queries, feats[first:], top_k)
        return scores, rows + first
    if np.count_nonzero(allowed[first:]) > _MANY * len(feats[first:]):
        scores, rows = exact_search(queries, feats[first:], top_k, allowed[first:])
        return scores, np.where(rows < 0, rows, rows + first)
    candidates = first + np.flatnonzero(allowed[first:])
    scores, rows = exact_search(queries, feats[candidates], top_k)
    return scores, candidates[rows]


def _item(row: Sequence[Any]) -> Item:
    path, size, mtime_ns, fields = row[:4]
    # most have none
    return Item(
        path, Stamp(size, mtime_ns), {} if fields == '{}' else json.loads(fields)
    )


def _sql_of(condition: Condition) -> tuple[str, list[Any]]:
    # SQLite orders any number before any text: types are compared first.
    types = _SQL_TYPES.get(type(condition.value), _SQL_NUMBERS)
    path, value = f'$.{condition.field}', condition.value
    if isinstance(value, int) and abs(value) >= 2**63:  # more than SQLite's integers
        most = sys.float_info.max
        value = float(min(max(value, -most), most))
    clause = (
        f'json_type(fields, ?) IN {types} AND '
        f'json_extract(fields, ?) {condition.operator} ?'
    )
    return clause, [path, path, value]
