"""A gallery in Milvus: a server that many processes share, or Milvus Lite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gckd_mm.errors import MissingDataError
from gckd_mm.search.gallery.conditions import Condition
from gckd_mm.search.gallery.damage import Checked, UnreadableGalleryError
from gckd_mm.search.gallery.embeddings import check_embeddings
from gckd_mm.search.gallery.engine import Engine
from gckd_mm.search.gallery.items import Item, Match, Stamp
from gckd_mm.search.gallery.milvus_connection import MilvusConnection, is_file, pymilvus
from gckd_mm.search.gallery.milvus_fields import (
    COLUMNS,
    columns_of,
    fields_of,
    filter_of,
)
from gckd_mm.search.gallery.vector_index import (
    CANDIDATES,
    EF_CONSTRUCTION,
    EF_SEARCH,
    LINKS,
    LIST_SIZE,
    best_of,
    chosen_kind,
)

_ITEM = ['path', 'size', 'mtime_ns', *COLUMNS]
_INDEX_TYPES = {'exact': 'FLAT', 'hnsw': 'HNSW', 'ivf': 'IVF_SQ8'}
_MAX_EF = 32768
#: an index is of one segment of a server, of some hundred thousand vectors
_MAX_LISTS, _PROBES = 1024, 32
#: what a server takes at most
_MAX_TOP_K, _MAX_PATH = 16384, 4096
#: what we send or ask for at once: bytes (a server takes 64 MB), paths, rows
_MAX_BYTES, _MAX_IDS, _PAGE = 16_000_000, 1000, 8192
_BYTES_OF_ITEM = 1024  # more or less
#: seconds that the first question, any other one, and building an index may take
_FIRST_SECONDS, _SECONDS, _BUILD_SECONDS = 10, 60, 6 * 3600


class MilvusEngine(Engine):
    """Items and vectors in a collection of Milvus: see :class:`Engine`.

    An item's key is a hash of its path, so that several processes, or one that was
    killed and runs again, never make two of an image. A process finds at once what it
    wrote itself and what others wrote before it connected; what others write later it
    finds when the server has passed it on, after some 0.2 s.

    Items go to the server in parts of 16 MB: each is taken whole or not at all.

    While :meth:`finish` builds another kind of index, other processes cannot search.

    Args:
        uri: See :class:`MilvusConnection`.
        collection: Its name.
        embedding_size: D.
        index: See :class:`EmbeddedEngine`; chosen in :meth:`finish`.
        token: See :class:`MilvusConnection`.
        new: Whether to make the collection. Defaults to False.
    """

    def __init__(
        self,
        uri: str,
        collection: str,
        embedding_size: int,
        index: str = 'auto',
        token: str | None = None,
        new: bool = False,
    ) -> None:
        chosen_kind(index, 0)  # refuses what is none
        self.uri = uri
        self.collection = collection
        self.embedding_size = embedding_size
        self.kind = index
        self._connection = MilvusConnection(uri, token)
        try:
            if new:
                self._create()
            elif not self._call('has_collection', timeout=_FIRST_SECONDS):
                raise MissingDataError(
                    f'{uri}: has no collection {collection}: is it the right server? '
                    f'If it was dropped, index the pictures anew into another gallery'
                )
            # what a kill within finish() may have left undone
            self._build(self._built() or 'exact', 0)
            len(self)  # from here on, all that was written before is found
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        (row,) = self._call(
            'query', filter='', output_fields=['count(*)'], consistency_level='Strong'
        )
        return row['count(*)']

    def items(self) -> Iterator[Item]:
        """Yield every item, in the order of their keys."""
        for rows in self._pages(_ITEM, _PAGE):
            yield from map(_item, rows)

    def upsert(self, items: Sequence[Item], feats: np.ndarray) -> None:
        """Add items, or replace those of the same path."""
        paths = [item.path for item in items]
        check_embeddings(feats, paths, self.embedding_size)
        rows = [
            {
                'id': _id(item.path),
                'path': item.path,
                'size': item.stamp.size,
                'mtime_ns': item.stamp.mtime_ns,
                **columns_of(item.fields),
                'feat': feat,
            }
            for item, feat in zip(items, feats, strict=True)
        ]
        at_once = self._rows_at_once()
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            self._call('upsert', some)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove items; what is not there is no error."""
        ids = [_id(path) for path in paths]
        for start in range(0, len(ids), _MAX_IDS):
            some = ids[start : start + _MAX_IDS]
            self._call('delete', ids=some)

    def verify(self, progress: Callable[[int, int], None]) -> list[Checked]:
        """Say that Milvus looks after what it stores."""
        return [Checked(self.collection, 'not verifiable: Milvus looks after it')]

    def finish(self) -> None:
        """Build the kind of index that fits the number of items, if it is another."""
        if is_file(self.uri):
            # It searches slowly what is not on the disk; a server sees to it itself.
            self._call('flush', timeout=_BUILD_SECONDS)
        count = len(self)
        self._build(chosen_kind(self.kind, count), count)

    def search(
        self,
        queries: np.ndarray,
        top_k: int,
        where: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[list[Match]]:
        """Find the nearest items that fulfil all conditions.

        Where Milvus cannot (an exact search in an index that is none, more results than
        it gives), all vectors are fetched and compared here.
        """
        kind = self._built()
        if top_k > _MAX_TOP_K or (exact and kind != 'exact'):
            return self._search_all(queries, top_k, filter_of(where))
        limit, fields, row_bytes = top_k, _ITEM, _BYTES_OF_ITEM
        if kind == 'ivf':
            limit = min(CANDIDATES * top_k, _MAX_TOP_K)
            fields = [*_ITEM, 'feat']
            row_bytes += 4 * self.embedding_size
        query_bytes = 4 * self.embedding_size
        at_once = max(1, _MAX_BYTES // (query_bytes + limit * row_bytes))
        found: list[list[Match]] = []
        for start in range(0, len(queries), at_once):
            some = queries[start : start + at_once]
            replies = self._call(
                'search',
                data=list(some),
                anns_field='feat',
                limit=limit,
                filter=filter_of(where),
                output_fields=fields,
                search_params={'params': _search_params(limit)},
            )
            for query, hits in zip(some, replies, strict=True):
                found.append(_sorted(_match(hit, query) for hit in hits)[:top_k])
        return found

    def get(self, paths: Sequence[str]) -> list[Item | None]:
        """Return items by their paths."""
        ids = [_id(path) for path in paths]
        found = {row['id']: _item(row) for row in self._rows(ids, _ITEM, _MAX_IDS)}
        return [found.get(key) for key in ids]

    def feats_of(self, paths: Sequence[str]) -> np.ndarray:
        """Return the embeddings of items that are there."""
        ids = [_id(path) for path in paths]
        at_once = min(_MAX_IDS, self._rows_at_once())
        found = {row['id']: row['feat'] for row in self._rows(ids, ['feat'], at_once)}
        gone = [path for path, key in zip(paths, ids, strict=True) if key not in found]
        if gone:  # since it was found
            raise UnreadableGalleryError(
                f'{self.uri}: has no picture {gone[0]!r} any more'
            )
        feats = np.array([found[key] for key in ids], np.float32)
        return feats.reshape(len(ids), self.embedding_size)

    def field_values(self, limit: int) -> dict[str, list[Any]]:
        """Return the fields and, of those with at most ``limit`` values, these.

        Milvus does not know: this reads the fields of all items.
        """
        values: dict[str, set[Any]] = {}
        for rows in self._pages(list(COLUMNS), _PAGE):
            for row in rows:
                for name, value in fields_of(row).items():
                    seen = values.setdefault(name, set())
                    if len(seen) <= limit:
                        seen.add(value)
        # numbers come before text
        key = lambda value: (isinstance(value, str), value)  # noqa: E731
        return {
            name: sorted(seen, key=key) if len(seen) <= limit else []
            for name, seen in sorted(values.items())
        }

    def describe(self) -> dict[str, Any]:
        """Return the kind of index and the number of items."""
        return {'engine': 'milvus', 'index': self._built(), 'items': len(self)}

    def close(self) -> None:
        """Disconnect; the last one of a file of Milvus Lite closes it."""
        self._connection.close()

    def _call(
        self, method: str, *args: Any, timeout: int = _SECONDS, **options: Any
    ) -> Any:
        """Call a method of the client about the collection."""
        function = getattr(self._connection.client, method)
        return self._connection.run(
            function, self.collection, *args, timeout=timeout, **options
        )

    def _create(self) -> None:
        types = pymilvus().DataType
        schema = pymilvus().MilvusClient.create_schema(auto_id=False)
        schema.add_field('id', types.VARCHAR, is_primary=True, max_length=32)
        schema.add_field('path', types.VARCHAR, max_length=_MAX_PATH)
        schema.add_field('size', types.INT64)
        schema.add_field('mtime_ns', types.INT64)
        for column in COLUMNS:
            schema.add_field(column, types.JSON)
        schema.add_field('feat', types.FLOAT_VECTOR, dim=self.embedding_size)
        self._call('create_collection', schema=schema, consistency_level='Session')

    def _built(self) -> str | None:
        """Return the kind of index that there is, None if there is none."""
        index = self._call('describe_index', index_name='feat')
        if index is None:
            return None
        kinds = {name: kind for kind, name in _INDEX_TYPES.items()}
        return kinds.get(index['index_type'], index['index_type'])

    def _build(self, kind: str, count: int) -> None:
        """Build a kind of index, unless it is there, and make ready for searching."""
        built = self._built()
        if built != kind:
            if built is not None:
                # an index is of what is on the disk
                self._call('flush', timeout=_BUILD_SECONDS)
                self._call('release_collection')
                self._call('drop_index', index_name='feat')
            indexes = pymilvus().MilvusClient.prepare_index_params()
            indexes.add_index(
                'feat',
                index_name='feat',
                index_type=_INDEX_TYPES[kind],
                metric_type='IP',
                params=_index_params(kind, count),
            )
            # nothing to wait for: there are no items yet, or loading does it (Lite)
            wait = built is not None and not is_file(self.uri)
            self._call('create_index', indexes, sync=wait, timeout=_BUILD_SECONDS)
        # whoever may only search may not load
        loaded = pymilvus().client.types.LoadState.Loaded
        if self._call('get_load_state')['state'] != loaded:
            self._call('load_collection', timeout=_BUILD_SECONDS)

    def _search_all(
        self, queries: np.ndarray, top_k: int, passes: str
    ) -> list[list[Match]]:
        """Compare with the vectors of all items that pass a filter."""
        ids: list[str] = []
        scores = np.empty((len(queries), 0), np.float32)
        rows = np.empty((len(queries), 0), np.int64)
        for page in self._pages(['feat'], self._rows_at_once(), passes):
            feats = np.array([row['feat'] for row in page], np.float32)
            at = np.broadcast_to(
                len(ids) + np.arange(len(page)), (len(queries), len(page))
            )
            ids += [row['id'] for row in page]
            scores, rows = best_of(
                np.concatenate([scores, queries @ feats.T], axis=1),
                np.concatenate([rows, at], axis=1),
                top_k,
            )
        wanted = [ids[row] for row in np.unique(rows)]
        items = {row['id']: _item(row) for row in self._rows(wanted, _ITEM, _MAX_IDS)}
        return [
            _sorted(
                Match(items[ids[row]], float(score))
                for row, score in zip(at, of_query, strict=True)
                if ids[row] in items  # unless it was deleted meanwhile
            )
            for at, of_query in zip(rows, scores, strict=True)
        ]

    def _pages(
        self, fields: list[str], at_once: int, passes: str = ''
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows that pass a filter, some at once."""
        len(self)  # waits for what others wrote
        iterator = self._call(
            'query_iterator', batch_size=at_once, filter=passes, output_fields=fields
        )
        try:
            while rows := self._connection.run(iterator.next):
                yield rows
        finally:
            iterator.close()

    def _rows(
        self, ids: Sequence[str], fields: list[str], at_once: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of these keys, of those that are there."""
        for start in range(0, len(ids), at_once):
            yield from self._call(
                'query',
                ids=list(ids[start : start + at_once]),
                output_fields=['id', *fields],
            )

    def _rows_at_once(self) -> int:
        """Return how many rows with vectors go together."""
        row_bytes = _BYTES_OF_ITEM + 4 * self.embedding_size
        return min(_PAGE, max(1, _MAX_BYTES // row_bytes))


def _id(path: str) -> str:
    name = path.encode(errors='surrogatepass')
    return hashlib.blake2b(name, digest_size=16).hexdigest()


def _item(row: Any) -> Item:
    return Item(row['path'], Stamp(row['size'], row['mtime_ns']), fields_of(row))


def _match(hit: Any, query: np.ndarray) -> Match:
    row = hit['entity']
    # 8-bit codes give but an approximate score
    score = query @ np.float32(row['feat']) if 'feat' in row else hit['distance']
    return Match(_item(row), float(score))


def _sorted(matches: Iterable[Match]) -> list[Match]:
    return sorted(matches, key=lambda match: (-match.score, match.item.path))


def _search_params(limit: int) -> dict[str, int]:
    """Return what each kind of index reads its part of."""
    return {'ef': min(max(EF_SEARCH, 2 * limit), _MAX_EF), 'nprobe': _PROBES}


def _index_params(kind: str, count: int) -> dict[str, int]:
    if kind == 'hnsw':
        return {'M': LINKS, 'efConstruction': EF_CONSTRUCTION}
    if kind == 'ivf':
        return {'nlist': min(max(1, count // LIST_SIZE), _MAX_LISTS)}
    return {}
