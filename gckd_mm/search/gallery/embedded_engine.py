"""A gallery in one folder: SQLite for what is known, a flat file for the vectors."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import embedded_schema as schema
from gckd_mm.search.gallery.conditions import Condition
from gckd_mm.search.gallery.damage import (
    Checked,
    DamagedGalleryError,
    UnreadableGalleryError,
)
from gckd_mm.search.gallery.embedded_items import ITEMS, EmbeddedItems, columns_of
from gckd_mm.search.gallery.embedded_schema import Damage, State, item_of
from gckd_mm.search.gallery.embeddings import check_embeddings
from gckd_mm.search.gallery.items import Item, Match
from gckd_mm.search.gallery.stored_index import StoredIndex
from gckd_mm.search.gallery.stored_vectors import MAX_CHECKED_BYTES, StoredVectors
from gckd_mm.search.gallery.vector_file import VectorFile
from gckd_mm.search.gallery.vector_index import (
    MAX_EXACT,
    best_of,
    chosen_kind,
    exact_search,
)

#: of a folder to which nothing has been added
EMPTY_FILES = (ITEMS, f'{ITEMS}-journal')
#: above this share of rows without an item the file of vectors is written anew
_MAX_DEAD = 0.25
#: where more than this share of rows may be found, none are copied to be compared
_MANY = 0.3
#: up to as many are verified whenever a gallery is opened: 0.2 s on one core
MAX_CHECKED_ITEMS = 100_000


class EmbeddedEngine(EmbeddedItems):
    """Items in SQLite and vectors in a file of one folder: see :class:`Engine`.

    A change is one transaction: vectors go to the disk first, behind the rows that
    count, and then SQLite takes items, checksums and number of rows together. A kill
    leaves the one state or the other. Searching while another process writes is safe.

    Everything has a checksum. Items are compared with theirs whenever they are read,
    an index when it is loaded, and all of a gallery of up to ``MAX_CHECKED_ITEMS`` and
    ``MAX_CHECKED_BYTES`` by :meth:`check`.

    Args:
        folder: Where ``items.sqlite``, ``vectors-<n>.f32`` and the index lie.
        embedding_size: D.
        index: ``'exact'``, ``'hnsw'``, ``'ivf'``, or ``'auto'``, which chooses by the
            number of vectors.
        new: Whether to make the database. Defaults to whether there is none.
        model: Fingerprint of the model that embeds, which the database remembers.
            Defaults to an unknown one.
    """

    def __init__(
        self,
        folder: Path,
        embedding_size: int,
        index: str = 'auto',
        new: bool | None = None,
        model: str = '',
    ) -> None:
        chosen_kind(index, 0)  # refuses what is none
        super().__init__(folder, new, model)
        self.embedding_size = embedding_size
        self.kind = index
        self._vectors = StoredVectors(folder, embedding_size, self._sql)
        self._index = StoredIndex(folder, index, embedding_size)

    def upsert(self, items: Sequence[Item], feats: np.ndarray) -> None:
        """Add items, or replace those of the same path, in one transaction."""
        paths = [item.path for item in items]
        check_embeddings(feats, paths, self.embedding_size)
        feats = VectorFile.as_stored(feats)
        with self._writing() as state:
            self._vectors.file(state.vectors).write(state.num_rows, feats)
            last = self._vectors.last_segment(state)
            # A replaced item gets another row: the index knows the old one's vector.
            rows_before = state.num_rows
            state = schema.delete_items(self._sql, paths, state)
            state = schema.insert_items(self._sql, items, state)
            segments = schema.segments_of(feats, rows_before, last)
            schema.write_segments(self._sql, segments)
            schema.write_state(self._sql, state)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove items; what is not there is no error."""
        with self._writing() as state:
            state = schema.delete_items(self._sql, paths, state)
            schema.write_state(self._sql, state)

    def prepare(self) -> None:
        """Make ready for changes: add the checksums that a gallery of 0.1 lacks."""
        with self._writing() as state:
            self._vectors.file(state.vectors).extend(state.num_rows)

    def damaged(self) -> list[str]:
        """Verify everything; return the items whose embeddings are damaged.

        Once they are known, they can be replaced: :meth:`finish` then drops the rows.
        """
        with self._reading() as state:
            schema.check_items(self._sql, state)
            return self._paths_in(self._vectors.know(state))

    def finish(self) -> None:
        """Drop rows without items if they are many, and bring the index up to date."""
        with self._lock:
            state = self._state()
            if not state.has_checksums:
                with self._writing():
                    pass
                state = self._state()
            dead = state.num_rows - len(self)
            if self._vectors.damaged or dead > _MAX_DEAD * state.num_rows:
                self._compact()
            with self._reading() as state:
                feats = self._vectors.feats(state)
            indexed = self._index.write(state, feats)
            if indexed != state:
                with self._writing() as state:
                    state = state._replace(
                        index_file=indexed.index_file,
                        index_size=indexed.index_size,
                        index_crc=indexed.index_crc,
                    )
                    schema.write_state(self._sql, state)
            self._remove_old_files()

    def _remove_old_files(self) -> None:
        """Remove what the state does not name: all who read an older one are done."""
        with self._writing() as state:
            kept = (self._vectors.file(state.vectors).path.name, state.index_file)
            for pattern in ('vectors-*.f32', 'index-*.faiss'):
                for file in self.folder.glob(pattern):
                    if file.name not in kept:
                        file.unlink(missing_ok=True)

    def check(self, fully: bool = False) -> None:
        """Compare what is stored with its checksums: see :class:`Engine`.

        A damaged index is a warning: searches do without it.
        """
        with self._reading() as state:
            if fully or state.num_rows <= MAX_CHECKED_ITEMS:
                schema.check_items(self._sql, state)
            elif state.has_checksums and len(self) != state.num_items:
                raise Damage(f'it has {len(self)} items instead of {state.num_items}')
            self._vectors.feats(state)
            self._vectors.verify(state, fully)
            if fully or state.index_size <= MAX_CHECKED_BYTES:
                self._index.is_sound(state)

    def verify(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Checked]:
        """Compare all of it with its checksums; return what is damaged, by file."""
        try:
            with self._reading() as state:
                # an image is done when its item and its vector are
                total = 2 * state.num_rows
                report = lambda done: progress(done // 2, total // 2)  # noqa: E731
                schema.check_items(self._sql, state, report)
                count = self._one('SELECT COUNT(*) FROM items')
                checked = [Checked(ITEMS, f'{count} images')]
                report_more = lambda done: report(state.num_rows + done)  # noqa: E731
                checked.append(self._vectors.checked(state, report_more))
                checked += self._index.checked(state)
        except DamagedGalleryError as error:
            return [Checked(ITEMS, '', str(error))]
        return checked

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
        with self._reading() as state:
            feats = self._vectors.feats(state)
            allowed = self._allowed(where, state.num_rows)
            index = None if exact else self._index.load(state)
            if allowed is not None and np.count_nonzero(allowed) <= MAX_EXACT:
                index = None
            indexed = 0 if index is None else len(index)
            scores, rows = _search_rows(queries, feats, top_k, indexed, allowed)
            if index is not None:
                mask = None if allowed is None else allowed[:indexed]
                more, at = index.search(queries, top_k, feats, mask)
                if scores.shape[1] == 0:  # the index has all rows, as a rule
                    return self._matches(state, more, at)
                scores = np.concatenate([scores, more], axis=1)
                rows = np.concatenate([rows, at], axis=1)
                scores, rows = best_of(scores, rows, top_k)
            return self._matches(state, scores, rows)

    def feats_of(self, paths: Sequence[str]) -> np.ndarray:
        """Return the embeddings of items that are there."""
        with self._reading() as state:
            rows = dict(self._by('path', paths, 'SELECT path, row'))
            gone = [path for path in paths if path not in rows]
            if gone:  # since it was found
                raise UnreadableGalleryError(
                    f'{self.folder}: has no picture {gone[0]!r} any more'
                )
            return self._vectors.feats(state)[[rows[path] for path in paths]]

    def describe(self) -> dict[str, Any]:
        """Return kind of index, rows and bytes."""
        state = self._state()
        checksums = 'yes'
        if not state.has_checksums:
            checksums = (
                'not verified (made by version 0.1: run gckd-search index again to '
                'add them)'
            )
        return {
            'engine': 'embedded',
            'index': chosen_kind(self.kind, state.num_rows),
            'items': len(self),
            'rows': state.num_rows,
            'bytes': _bytes_in(self.folder),
            'checksums': checksums,
        }

    @property
    def has_checksums(self) -> bool:
        """Whether there are checksums; version 0.1 had none."""
        return self._state().has_checksums

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._sql.close()
            self._index.forget()
            self._vectors.forget()

    @contextmanager
    def _writing(self) -> Iterator[State]:
        """Make one transaction, while no other process makes one."""
        with self._lock, self._sqlite('read'):
            try:
                with self._sql:
                    self._sql.execute('BEGIN IMMEDIATE')
                    state = schema.read_state(self._sql)
                    if not state.has_checksums:
                        segments = self._vectors.segments_of_0_1(state)
                        state = schema.add_checksums(self._sql, state, segments)
                        schema.write_model(self._sql, self._model)
                    yield state
            except sqlite3.Error as error:
                if type(error) is sqlite3.DatabaseError:  # malformed, or no database
                    raise
                raise InputError(
                    f'{self.folder}: cannot be written to ({error}); what was written '
                    f'before is kept'
                ) from error

    def _matches(
        self, state: State, scores: np.ndarray, rows: np.ndarray
    ) -> list[list[Match]]:
        # Lists: numbers of NumPy are slow one by one, and most searches have one query.
        at = rows.tolist()
        wanted = list({row for of_query in at for row in of_query if row >= 0})
        selected = self._by('row', wanted, f'SELECT {columns_of(state)}')
        items = {row[4]: item_of(row) for row in selected}
        if len(items) != len(wanted):
            raise Damage(f'{len(wanted) - len(items)} of the items found are gone')
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

    def _compact(self) -> None:
        """Write the vectors that still have items into a new file."""
        with self._writing() as state:
            damaged = self._vectors.damaged_rows(state)
            if self._paths_in(damaged):
                self._vectors.raise_if(state, damaged)
            live = self._sql.execute('SELECT row FROM items ORDER BY row').fetchall()
            rows = np.array([row for (row,) in live], np.int64)
            feats = self._vectors.file(state.vectors).read(state.num_rows)[rows]
            self._vectors.file(state.vectors + 1).write(0, feats)
            state = schema.renumber_items(self._sql, state)
            self._sql.execute('DELETE FROM segments')
            schema.write_segments(self._sql, schema.segments_of(feats, 0))
            state = state._replace(
                vectors=state.vectors + 1, index_file='', index_size=0, index_crc=0
            )
            schema.write_state(self._sql, state)
        self._vectors.damaged = []


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


def _bytes_in(folder: Path) -> int:
    """Return the bytes of the files of a folder, from which some may be vanishing."""
    total = 0
    for file in folder.iterdir():
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total
