"""The vectors of a gallery in a folder, compared with their checksums."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import embedded_schema as schema
from gckd_mm.search.gallery.damage import INDEX_AGAIN, Checked, DamagedGalleryError
from gckd_mm.search.gallery.embedded_schema import Segment, State
from gckd_mm.search.gallery.embeddings import lengths_are_one
from gckd_mm.search.gallery.vector_file import VectorFile

#: up to as many bytes are verified when they are first read: 0.1 s on one core
MAX_CHECKED_BYTES = 256 << 20


class StoredVectors:
    """Maps the file of vectors that a state names, and verifies it.

    All methods are for a transaction of the caller's, of which the state is.
    """

    def __init__(
        self, folder: Path, embedding_size: int, sql: sqlite3.Connection
    ) -> None:
        self.folder = folder
        self.embedding_size = embedding_size
        #: rows that are known to be damaged, and about to be replaced
        self.damaged: list[range] = []
        self._sql = sql
        self._file_of = self._mapped_of = self._verified_of = -1
        self._mapped = np.empty((0, embedding_size), np.float32)
        self._verified = 0
        self._changed = -1

    def file(self, number: int) -> VectorFile:
        """Return the file of a number."""
        if self._file_of != number:
            path = self.folder / f'vectors-{number}.f32'
            self._file = VectorFile(path, self.embedding_size)
            self._file_of = number
        return self._file

    def feats(self, state: State) -> np.ndarray:
        """Return the vectors that count; the file stays mapped between searches."""
        file = self.file(state.vectors)
        # what was cut off must not be touched
        changed = file.check_size(state.num_rows)
        if self._mapped_of != state.vectors or len(self._mapped) < state.num_rows:
            self._mapped = file.read(state.num_rows)
            self._mapped_of = state.vectors
        known = self._verified_of, self._changed
        if known != (state.vectors, changed) or self._verified < state.num_rows:
            self.verify(state)
        return self._mapped[: state.num_rows]

    def forget(self) -> None:
        """Let go of the file."""
        self._mapped, self._mapped_of = self._mapped[:0].copy(), -1

    def verify(self, state: State, fully: bool = False) -> None:
        """Compare rows with their checksums, each once.

        More than ``MAX_CHECKED_BYTES`` are compared ``fully`` or not at all.

        Raises:
            DamagedGalleryError: If rows are damaged that :meth:`know` has not named.
        """
        if self._verified_of != state.vectors:
            self._verified, self._verified_of = 0, state.vectors
            self.damaged = []
        changed = self.file(state.vectors).check_size(state.num_rows)
        if changed != self._changed and not self.damaged:
            self._verified = 0  # whoever changed it may have changed any row
        self._changed = changed
        count = state.num_rows - self._verified
        if count <= 0:
            return
        num_bytes = count * self.file(state.vectors).row_bytes
        if num_bytes > MAX_CHECKED_BYTES and not fully:
            return
        self.raise_if(state, self.damaged_rows(state, self._verified))
        self._verified = state.num_rows

    def know(self, state: State) -> list[range]:
        """Verify all rows; return those that are damaged, and remember them.

        They are to be replaced: from then on, the others can be read.
        """
        self.damaged = self.damaged_rows(state)
        self._verified, self._verified_of = state.num_rows, state.vectors
        return self.damaged

    def damaged_rows(
        self,
        state: State,
        first: int = 0,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[range]:
        """Return which rows from the first on do not match their checksums.

        Those of version 0.1, which had none, have to be of length 1.
        """
        feats = self.file(state.vectors).read(state.num_rows)
        damaged = []
        for segment in self._segments(state, feats, first):
            rows = feats[segment.start : segment.stop]
            if state.has_checksums:
                is_sound = schema.segments_of(rows, segment.start) == [segment]
            else:
                is_sound = bool(lengths_are_one(rows).all())
            if not is_sound:
                damaged.append(range(segment.start, segment.stop))
            progress(segment.stop)
        return damaged

    def checked(self, state: State, progress: Callable[[int], None]) -> Checked:
        """Return the file as verified."""
        name, found = self.file(state.vectors).path.name, f'{state.num_rows} embeddings'
        try:
            self.raise_if(state, self.damaged_rows(state, 0, progress))
        except InputError as error:
            return Checked(name, found, str(error))
        return Checked(name, found)

    def segments_of_0_1(self, state: State) -> list[Segment]:
        """Return the segments that a gallery of version 0.1 lacks.

        What cannot be an embedding gets a checksum that it does not have, and so is
        repaired as other damage is.
        """
        file = self.file(state.vectors)
        file.extend(state.num_rows)
        feats = file.read(state.num_rows)
        segments = []
        for segment in schema.segments_of(feats, 0):
            if not lengths_are_one(feats[segment.start : segment.stop]).all():
                segment = segment._replace(crc=segment.crc ^ 0xFFFFFFFF)
            segments.append(segment)
        return segments

    def last_segment(self, state: State) -> Segment | None:
        """Return the segment that new rows may be added to."""
        if not state.num_rows:
            return None
        *_, last = schema.read_segments(self._sql, state, state.num_rows - 1)
        return None if range(last.start, last.stop) in self.damaged else last

    def raise_if(self, state: State, damaged: Sequence[range]) -> None:
        """Refuse rows that are damaged."""
        if not damaged:
            return
        rows = sum(map(len, damaged))
        raise DamagedGalleryError(
            f'{self.file(state.vectors).path}: damaged: {rows} of {state.num_rows} '
            f'embeddings, from row {damaged[0].start} on, are not as they were '
            f'written: {INDEX_AGAIN}, which embeds their images again'
        )

    def _segments(
        self, state: State, feats: np.ndarray, first: int
    ) -> Sequence[Segment]:
        if state.has_checksums:
            return schema.read_segments(self._sql, state, first)
        return schema.segments_of(feats[first:], first)
