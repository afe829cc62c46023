"""The database of a gallery in a folder, as it is read: items, fields, conditions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.regular_files import stat_regular
from gckd_mm.search.gallery import embedded_schema as schema
from gckd_mm.search.gallery.conditions import Condition
from gckd_mm.search.gallery.damage import (
    NEW_GALLERY,
    DamagedGalleryError,
    UnreadableGalleryError,
)
from gckd_mm.search.gallery.embedded_schema import Damage, State, item_of
from gckd_mm.search.gallery.items import Item, comparable

ITEMS = 'items.sqlite'
_SQL_TYPES = {str: "('text')", bool: "('true', 'false')"}
_SQL_NUMBERS = "('integer', 'real')"
_VARIABLES = 500  # of one SQL statement
#: sqlite3 cannot decode messages that quote what is damaged
DAMAGE = (Damage, UnicodeDecodeError)


class EmbeddedItems:
    """``items.sqlite``: what is known of the images, and which rows their vectors have.

    Every reader sees one state throughout. What SQLite raises becomes an error for
    people.

    Args: see :class:`~gckd_mm.search.gallery.embedded_engine.EmbeddedEngine`.
    """

    def __init__(self, folder: Path, new: bool | None, model: str) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        path = folder / ITEMS
        there = path.is_file()
        # SQLite would wait for a pipe
        for file in (path, folder / f'{ITEMS}-journal', folder / f'{ITEMS}-wal'):
            if os.path.lexists(file):
                stat_regular(file)
        if not there and new is False:
            raise DamagedGalleryError(
                f'{folder}: damaged: it has no {ITEMS}: {NEW_GALLERY}'
            )
        try:
            self._sql = sqlite3.connect(path, timeout=60, check_same_thread=False)
            if new or not there:
                with self._sql:
                    self._sql.execute('BEGIN IMMEDIATE')
                    schema.create_tables(self._sql)
                    schema.write_model(self._sql, model)
            schema.check_schema(self._sql)
            schema.check_model(self._sql, model)
        except (sqlite3.Error, *DAMAGE) as error:
            raise self._unreadable(error, 'opened') from error
        self._model = model
        self._known: dict[str, Any] = {}
        self._known_of = (-1, -1)

    def __len__(self) -> int:
        return self._once('count', lambda: self._one('SELECT COUNT(*) FROM items'))

    def items(self) -> Iterator[Item]:
        """Yield every item, in the order in which they came."""
        with self._lock, self._sqlite('read'):
            yield from map(
                item_of,
                self._sql.execute(
                    f'SELECT {columns_of(self._state())} FROM items ORDER BY row'
                ),
            )

    def get(self, paths: Sequence[str]) -> list[Item | None]:
        """Return items by their paths."""
        with self._lock, self._sqlite('read'):
            rows = self._by('path', paths, f'SELECT {columns_of(self._state())}')
            found = {item.path: item for item in map(item_of, rows)}
        return [found.get(path) for path in paths]

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

    @contextmanager
    def _sqlite(self, doing: str) -> Iterator[None]:
        """Turn what SQLite raises into errors for people."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.Error, *DAMAGE) as error:
            raise self._unreadable(error, doing) from error

    def _unreadable(self, error: Exception, doing: str) -> InputError:
        path, reason = self.folder / ITEMS, _on_one_line(error)
        if 'locked' in reason:
            return UnreadableGalleryError(
                f'{path}: cannot be {doing} ({reason}): another process has been '
                f'writing for a minute; try again'
            )
        if any(cause in reason for cause in ('readonly', 'unable to open')):
            return UnreadableGalleryError(f'{path}: cannot be {doing} ({reason})')
        return DamagedGalleryError(
            f'{path}: damaged: cannot be {doing} ({reason}): {NEW_GALLERY}'
        )

    @contextmanager
    def _reading(self) -> Iterator[State]:
        """See one state throughout: a writer waits, and so keeps its old files."""
        with self._lock, self._sqlite('read'):
            self._sql.execute('BEGIN')
            try:
                yield schema.read_state(self._sql)
            finally:
                if self._sql.in_transaction:
                    self._sql.execute('COMMIT')

    def _state(self) -> State:
        with self._lock, self._sqlite('read'):
            return schema.read_state(self._sql)

    def _one(self, statement: str) -> Any:
        with self._lock, self._sqlite('read'):
            return self._sql.execute(statement).fetchone()[0]

    def _once(self, name: str, ask: Callable[[], Any]) -> Any:
        """Return what takes long to find out, and is so until somebody writes.

        Counting a million takes longer than searching them.
        """
        with self._lock, self._sqlite('read'):
            (data_version,) = self._sql.execute('PRAGMA data_version').fetchone()
            version = (data_version, self._sql.total_changes)
            if self._known_of != version:
                self._known, self._known_of = {}, version
            if name not in self._known:
                self._known[name] = ask()
            return self._known[name]

    def _paths_in(self, rows: Sequence[range]) -> list[str]:
        paths: list[str] = []
        for some in rows:
            found = self._sql.execute(
                'SELECT path FROM items WHERE row >= ? AND row < ?',
                (some.start, some.stop),
            )
            paths += [path for (path,) in found]
        return paths

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
        if len(rows) and rows.min() < 0:
            raise Damage(f'an item has row {rows.min()}')
        allowed = np.zeros(num_rows, bool)
        allowed[rows] = True
        return allowed

    def _by(self, column: str, keys: Sequence[Any], select: str) -> list[Any]:
        """Return what ``select`` names of the items with these keys.

        A list: where an item is damaged, a generator would keep the lock.
        """
        rows: list[Any] = []
        with self._lock:
            for start in range(0, len(keys), _VARIABLES):
                some = keys[start : start + _VARIABLES]
                marks = ', '.join('?' * len(some))
                rows += self._sql.execute(
                    f'{select} FROM items WHERE {column} IN ({marks})', list(some)
                )
        return rows


def _on_one_line(error: Exception) -> str:
    """Return what SQLite says, which may quote lines of what is damaged."""
    text = ' '.join(str(error).split())
    return ''.join(x if x.isprintable() else '?' for x in text)[:200]


def columns_of(state: State) -> str:
    """Return what of an item is selected."""
    return schema.ITEM if state.has_checksums else schema.ITEM_OF_0_1


def _sql_of(condition: Condition) -> tuple[str, list[Any]]:
    # SQLite orders any number before any text: types are compared first.
    types = _SQL_TYPES.get(type(condition.value), _SQL_NUMBERS)
    path, value = f'$.{condition.field}', condition.value
    if isinstance(value, int):
        value = comparable(value)
    clause = (
        f'json_type(fields, ?) IN {types} AND '
        f'json_extract(fields, ?) {condition.operator} ?'
    )
    return clause, [path, path, value]
