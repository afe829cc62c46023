"""A model that needs no training: equal pictures get equal embeddings."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.apis.person_search_inferencer import EncodedBatch

SIZE = 8
FAKE = {'model': 'fake', 'source': None}


def embedding(content: bytes, size: int = SIZE) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(content).digest()[:8], 'little')
    feat = np.random.default_rng(seed).normal(size=size)
    return (feat / np.linalg.norm(feat)).astype(np.float32)


class FakeInferencer:
    """Embeds the bytes of files; those that begin with BAD cannot be read."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.encoded: list[str] = []
        self.kill_after = kill_after

    def iter_encoded(self, images: Iterable[Any], batch_size: int) -> Iterator[Any]:
        numbered = enumerate(images)
        while batch := list(islice(numbered, batch_size)):
            rows, feats, bad = [], [np.empty((0, SIZE), np.float32)], {}
            for row, path in batch:
                if self.kill_after == len(self.encoded):
                    raise KeyboardInterrupt
                self.encoded.append(path)
                content = Path(path).read_bytes()
                if content.startswith(b'BAD'):
                    bad[row] = InputError(f'{path}: not an image')
                else:
                    rows.append(row)
                    feats.append(embedding(content)[None])
            yield EncodedBatch(rows, np.concatenate(feats), bad)


def write_images(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def close(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let nobody list a folder; whoever runs the tests may be root."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if os.fspath(path) == str(folder):
            raise PermissionError(errno.EACCES, 'Permission denied', str(folder))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
