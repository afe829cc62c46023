"""The index of a gallery in a folder: a file of FAISS and its checksum."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.damage import (
    INDEX_AGAIN,
    Checked,
    DamagedGalleryWarning,
    crc_of_file,
)
from gckd_mm.search.gallery.embedded_schema import State
from gckd_mm.search.gallery.vector_index import VectorIndex, chosen_kind

_WITHOUT_INDEX = (
    f'searches compare with every image until you {INDEX_AGAIN}, which builds it again'
)


class StoredIndex:
    """Loads, verifies and writes the index that a state names.

    A file whose size or checksum does not match is a warning, and is never given to
    FAISS, which may crash.
    """

    def __init__(self, folder: Path, kind: str, embedding_size: int) -> None:
        self.folder = folder
        self.kind = kind
        self.embedding_size = embedding_size
        self._index: VectorIndex | None = None
        self._index_of: Any = None
        self._problem_of: tuple[Any, str] = (None, '')
        self._warned_of: set[str] = set()

    def load(
        self, state: State, what_follows: str = _WITHOUT_INDEX
    ) -> VectorIndex | None:
        """Return the index as it was last written, None if there is none."""
        if not state.has_checksums:
            return self._load_of_0_1(state, what_follows)
        version = (state.index_file, state.index_crc)
        if self._index_of != version:
            if not self.is_sound(state, what_follows):
                return None
            self._index = VectorIndex.read(self.folder / state.index_file)
            self._index_of = version
        return self._index

    def forget(self) -> None:
        """Let go of the memory."""
        self._index, self._index_of = None, None

    def is_sound(self, state: State, what_follows: str = _WITHOUT_INDEX) -> bool:
        """Return whether there is an index; warn once if it is damaged."""
        if not state.index_file:
            return False
        problem = self._problem(state)
        if problem:
            self._warn(problem, what_follows)
        return not problem

    def checked(self, state: State) -> list[Checked]:
        """Return the file as verified; nothing if there is to be none."""
        if not state.index_file:
            return []
        problem = self._problem(state)
        if problem:
            problem = f'{problem}: {_WITHOUT_INDEX}'
        return [Checked(state.index_file, 'index', problem)]

    def write(self, state: State, feats: np.ndarray) -> State:
        """Build or extend the index of all vectors, if there is to be one.

        Returns:
            The state with the file that is right for it, which the caller writes.
        """
        kind = chosen_kind(self.kind, state.num_rows)
        if kind == 'exact' or not state.num_rows:
            return state._replace(index_file='', index_size=0, index_crc=0)
        index = self.load(state, 'is built again')
        if index is not None and not state.index_file.endswith(f'-{kind}.faiss'):
            index = None
        if index is not None and len(index) == state.num_rows:
            return state
        self.forget()
        if index is None:
            index = VectorIndex.build(kind, feats)
        else:
            index.add(feats[len(index) :])
        path = self.folder / f'index-{state.vectors}-{state.num_rows}-{kind}.faiss'
        index.write(path)
        return state._replace(
            index_file=path.name,
            index_size=path.stat().st_size,
            index_crc=crc_of_file(path),
        )

    def _problem(self, state: State) -> str:
        """Return what is wrong with the file, empty for nothing."""
        path = self.folder / state.index_file
        try:
            found = path.stat()
            # what was compared once is not compared again
            version = (state[4:7], found.st_size, found.st_mtime_ns)
            if self._problem_of[0] != version:
                is_sound = found.st_size == state.index_size and (
                    crc_of_file(path) == state.index_crc
                )
                problem = '' if is_sound else 'it is not as it was written'
                self._problem_of = (version, problem)
            problem = self._problem_of[1]
        except (OSError, InputError) as error:
            problem = f'it cannot be read ({error})'
        return f'{path}: damaged: {problem}' if problem else ''

    def _warn(self, problem: str, what_follows: str) -> None:
        if problem not in self._warned_of:
            self._warned_of.add(problem)
            warnings.warn(
                f'{problem}: {what_follows}', DamagedGalleryWarning, stacklevel=2
            )

    def _load_of_0_1(self, state: State, what_follows: str) -> VectorIndex | None:
        kind = chosen_kind(self.kind, state.num_rows)
        path = self.folder / f'index-{state.vectors}-{kind}.faiss'
        if kind == 'exact' or not path.exists():
            return None
        version = (path.name, path.stat().st_mtime_ns)
        if self._index_of != version:
            try:
                index = VectorIndex.read(path)
            except InputError as error:
                self._warn(str(error), what_follows)
                return None
            if not index.fits(state.num_rows, self.embedding_size):
                self._warn(f'{path}: is of another gallery', what_follows)
                return None
            self._index, self._index_of = index, version
        return self._index
