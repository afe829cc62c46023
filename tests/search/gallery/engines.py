"""Engines to test, and what they are judged by."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gckd_mm.search.gallery import Item
from gckd_mm.search.gallery.embedded_engine import EmbeddedEngine
from gckd_mm.search.gallery.engine import Engine
from gckd_mm.search.gallery.items import Stamp
from gckd_mm.search.gallery.milvus_engine import MilvusEngine

SIZE = 16


class Place(Protocol):
    """Where an engine keeps its items; it may be opened again and again."""

    def open(self, new: bool = False) -> Engine: ...


class FolderPlace(NamedTuple):
    folder: Path
    index: str = 'auto'

    def open(self, new: bool = False) -> EmbeddedEngine:
        return EmbeddedEngine(self.folder, SIZE, self.index)


class MilvusPlace(NamedTuple):
    uri: str
    collection: str
    index: str = 'auto'

    @classmethod
    def new(cls, uri: str, index: str = 'auto') -> MilvusPlace:
        return cls(uri, f'test_{uuid.uuid4().hex}', index)

    def open(self, new: bool = False) -> MilvusEngine:
        return MilvusEngine(self.uri, self.collection, SIZE, self.index, new=new)


def feats_of(count: int, seed: int = 0) -> np.ndarray:
    feats = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return feats / np.linalg.norm(feats, axis=1, keepdims=True)


def items_of(count: int, first: int = 0, **fields: Any) -> list[Item]:
    return [
        Item(f'{n:05d}.jpg', Stamp(n, n), {'camera': str(n % 3), 'pid': n, **fields})
        for n in range(first, first + count)
    ]


def fill(engine: Engine, count: int = 300) -> None:
    engine.upsert(items_of(count), feats_of(count))
    engine.finish()


def paths(found: Any) -> list[list[str]]:
    return [[match.item.path for match in matches] for matches in found]


def scores(found: Any) -> list[list[float]]:
    return [[match.score for match in matches] for matches in found]


def nearest(
    items: list[Item], feats: np.ndarray, queries: np.ndarray, k: int
) -> list[list[str]]:
    order = np.argsort(-(queries @ feats.T), axis=1)[:, :k]
    return [[items[n].path for n in row] for row in order]
