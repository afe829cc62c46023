"""Nearest vectors without comparing with all of them: FAISS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.choices import INDEX_KINDS
from gckd_mm.search.gallery.damage import UnreadableGalleryError

#: up to as many, comparing with all of them takes two milliseconds and misses none
MAX_EXACT = 50_000
#: up to as many, the links of HNSW are built within a minute and miss next to none;
#: IVF misses two in a hundred (benchmarks/search.py)
MAX_HNSW = 200_000
LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 80, 128
#: vectors that a list of IVF is to have, and the share of lists that is looked at
LIST_SIZE, _MIN_PROBES, _PROBED = 250, 16, 1 / 128
_TRAINING_PER_LIST = 40
#: candidates for each result that 8-bit codes find, to be compared exactly
CANDIDATES = 8
#: searched on one thread
_FEW_QUERIES = 8


def faiss() -> Any:
    """Import FAISS, or raise InputError if it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "a gallery needs FAISS: pip install 'gckd-mm[search]'"
        ) from error
    return faiss


def chosen_kind(kind: str, count: int) -> str:
    """Return the kind of index for so many vectors: exact, hnsw or ivf."""
    if kind not in INDEX_KINDS:
        raise InputError(f'index must be one of {", ".join(INDEX_KINDS)}, got {kind!r}')
    if kind != 'auto':
        return kind
    if count <= MAX_EXACT:
        return 'exact'
    return 'hnsw' if count <= MAX_HNSW else 'ivf'


def exact_search(
    queries: np.ndarray,
    feats: np.ndarray,
    top_k: int,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compare with all vectors.

    Args:
        queries: Shape (Q, D), float32.
        feats: Shape (N, D), float32.
        top_k: At most N are returned.
        allowed: Whether a row may be found, shape (N,), bool. Defaults to all.

    Returns:
        Inner products and rows, each of shape (Q, min(top_k, N)), best first; -1 for
        rows that are missing, with scores of minus infinity.
    """
    top_k = min(top_k, len(feats))
    if not top_k:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), int)
    if len(queries) == 1 or allowed is not None:
        # FAISS has a thread for each query, NumPy all for one
        found = [_best(feats @ query, top_k, allowed) for query in queries]
        return np.stack([x for x, _ in found]), np.stack([x for _, x in found])
    library = faiss()
    with _threads_for(queries):
        return library.knn(queries, feats, top_k, metric=library.METRIC_INNER_PRODUCT)


def best_of(
    scores: np.ndarray, rows: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest scores of each query, best first, and their rows."""
    order = np.argsort(-scores, axis=1, kind='stable')[:, :top_k]
    best = np.take_along_axis(scores, order, axis=1)
    return best, np.take_along_axis(rows, order, axis=1)


def _best(
    scores: np.ndarray, top_k: int, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best of the allowed scores, and their rows."""
    if allowed is not None:
        np.putmask(scores, ~allowed, -np.inf)
    rows = np.argpartition(scores, -top_k)[-top_k:]
    rows = rows[np.argsort(-scores[rows], kind='stable')]
    scores = scores[rows]
    return scores, np.where(scores == -np.inf, -1, rows)


@contextmanager
def _threads_for(queries: np.ndarray) -> Iterator[None]:
    """Let FAISS use one thread of this caller's for few queries.

    Threads that wait for each other take longer than a query does, and where there are
    more users than processors they stand in each other's way. OpenMP keeps the number
    for each calling thread.
    """
    library = faiss()
    before = library.omp_get_max_threads()
    if len(queries) <= _FEW_QUERIES:
        library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


class VectorIndex:
    """The first rows of a matrix, indexed: HNSW, or IVF with 8-bit codes.

    Args:
        index: Of FAISS, of inner products; its ids are rows.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._is_ivf = hasattr(index, 'nlist')

    @classmethod
    def build(cls, kind: str, feats: np.ndarray) -> VectorIndex:
        """Index vectors, shape (N, D), N >= 1, float32, by ``'hnsw'`` or ``'ivf'``."""
        library = faiss()
        size = feats.shape[1]
        if kind == 'hnsw':
            index = library.IndexHNSWFlat(size, LINKS, library.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = EF_CONSTRUCTION
        else:
            num_lists = max(1, len(feats) // LIST_SIZE)
            index = library.index_factory(
                size, f'IVF{num_lists},SQ8', library.METRIC_INNER_PRODUCT
            )
            rng = np.random.default_rng(0)
            count = min(len(feats), _TRAINING_PER_LIST * num_lists)
            rows = np.sort(rng.choice(len(feats), count, replace=False))
            index.train(np.ascontiguousarray(feats[rows]))
        built = cls(index)
        built.add(feats)
        return built

    @classmethod
    def read(cls, path: Path) -> VectorIndex:
        """Read what :meth:`write` wrote, byte for byte: of other bytes FAISS may crash.

        Raises:
            UnreadableGalleryError: If it is no index.
        """
        try:
            return cls(faiss().read_index(os.fspath(path)))
        except (RuntimeError, MemoryError) as error:  # of FAISS, with its source lines
            reason = str(error).strip().rpartition('\n')[2]
            raise UnreadableGalleryError(f'{path}: cannot be read: {reason}') from error

    def write(self, path: Path) -> None:
        """Write the index, whole or not at all."""
        partial = path.with_name(f'.{path.name}.partial')
        try:
            faiss().write_index(self._index, os.fspath(partial))
        except RuntimeError as error:  # of FAISS, which does not name the cause
            partial.unlink(missing_ok=True)
            raise InputError(f'{path}: cannot be written: is the disk full?') from error
        os.replace(partial, path)

    def __len__(self) -> int:
        return self._index.ntotal

    def fits(self, num_rows: int, embedding_size: int) -> bool:
        """Return whether it can be of a matrix of this shape, or of its first rows."""
        return len(self) <= num_rows and self._index.d == embedding_size

    def add(self, feats: np.ndarray, chunk_size: int = 65536) -> None:
        """Add the next rows of the matrix: shape (N, D), float32."""
        for start in range(0, len(feats), chunk_size):
            chunk = feats[start : start + chunk_size]
            self._index.add(np.ascontiguousarray(chunk))

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        feats: np.ndarray,
        allowed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find most of the nearest: see :func:`exact_search`.

        Candidates are compared with ``feats``, the matrix that was indexed.
        """
        library = faiss()
        selection: dict[str, Any] = {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder='little')
            selector = library.IDSelectorBitmap(len(allowed), library.swig_ptr(bits))
            selection = {'sel': selector}
        if not self._is_ivf:
            ef = max(EF_SEARCH, 2 * top_k)
            params = library.SearchParametersHNSW(efSearch=ef, **selection)
            with _threads_for(queries):
                scores, rows = self._index.search(queries, top_k, params=params)
            return np.where(rows < 0, -np.inf, scores), rows
        probes = max(_MIN_PROBES, round(self._index.nlist * _PROBED))
        params = library.SearchParametersIVF(nprobe=probes, **selection)
        with _threads_for(queries):
            _, rows = self._index.search(queries, CANDIDATES * top_k, params=params)
        scores = np.einsum('qd,qkd->qk', queries, feats[np.maximum(rows, 0)])
        scores[rows < 0] = -np.inf
        return best_of(scores, rows, top_k)
