"""A gallery as version 0.1 wrote it: without checksums."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gckd_mm.search.gallery import Item
from gckd_mm.search.gallery.vector_index import VectorIndex

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


def write_old_gallery(
    folder: Path,
    items: Sequence[Item],
    feats: np.ndarray,
    root: Path | None = None,
    index: str = 'auto',
) -> None:
    """Write ``gallery.json``, ``items.sqlite``, the vectors and perhaps an index."""
    folder.mkdir()
    settings = {
        'format': 1,
        'model': 'fake',
        'source': None,
        'fingerprint': 'f00',
        'embedding_size': feats.shape[1],
        'root': None if root is None else str(root),
        'index': index,
        'engine': 'embedded',
        'gckd_mm': '0.1.0',
    }
    (folder / 'gallery.json').write_text(json.dumps(settings, indent=2) + '\n')
    sql = sqlite3.connect(folder / 'items.sqlite')
    with sql:
        sql.executescript(_SCHEMA)
        sql.execute('INSERT INTO state VALUES (0, ?)', (len(items),))
        sql.executemany(
            'INSERT INTO items VALUES (?, ?, ?, ?, ?)',
            [
                (n, x.path, *x.stamp, json.dumps(dict(x.fields)))
                for n, x in enumerate(items)
            ],
        )
    sql.close()
    (folder / 'vectors-0.f32').write_bytes(feats.astype('<f4').tobytes())
    if index in ('hnsw', 'ivf'):
        built = VectorIndex.build(index, feats)
        built.write(folder / f'index-0-{index}.faiss')
