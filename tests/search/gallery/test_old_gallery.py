"""Galleries of version 0.1 open, are searched, and get checksums from ``index``."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Gallery, Item
from gckd_mm.search.gallery.damage import DamagedGalleryError, DamagedGalleryWarning
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from tests.search.gallery.engines import nearest, paths
from tests.search.gallery.fakes import SIZE, FakeInferencer, embedding, write_images
from tests.search.gallery.old_gallery import write_old_gallery

NAMES = [f'{n:02d}.jpg' for n in range(60)]
QUERIES = np.stack([embedding(f'query {n}'.encode()) for n in range(4)])


@pytest.fixture(params=['exact', 'hnsw', 'ivf'])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / 'crops'
    write_images(root, NAMES)
    items = [Item(x.path, x.stamp(), {'camera': '1'}) for x in find_images(root)]
    feats = np.stack([embedding(name.encode()) for name in NAMES])
    write_old_gallery(tmp_path / 'g', items, feats, root, request.param)
    return tmp_path / 'g'


def expected(folder: Path) -> list[list[str]]:
    feats = np.stack([embedding(name.encode()) for name in NAMES])
    items = [Item(x.path, x.stamp()) for x in find_images(folder.parent / 'crops')]
    return nearest(items, feats, QUERIES, 5)


def index(folder: Path) -> tuple[int, int, int]:
    with Gallery.open(folder, check=False) as gallery:
        images = find_images(folder.parent / 'crops')
        done = update(gallery, FakeInferencer(), images)
    return done.unchanged, done.repaired, done.added


def test_it_is_searched_and_not_changed(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with Gallery.open(folder) as gallery:
        assert paths(gallery.search(QUERIES, 5)) == expected(folder)
        assert len(gallery) == 60
        assert gallery.info()['checksums'].startswith('not verified')
        assert not any(file.problem for file in gallery.verify())
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_indexing_adds_checksums_and_embeds_nothing(folder: Path) -> None:
    assert index(folder) == (60, 0, 0)
    with Gallery.open(folder) as gallery:
        assert gallery.info()['checksums'] == 'yes'
        assert gallery.info()['format'] == 2
        assert paths(gallery.search(QUERIES, 5)) == expected(folder)
        (item,) = gallery.engine.get([NAMES[3]])
        assert item is not None
        assert item.fields == {'camera': '1'}
    data = bytearray((folder / 'vectors-0.f32').read_bytes())
    data[100] ^= 1
    (folder / 'vectors-0.f32').write_bytes(data)
    with pytest.raises(DamagedGalleryError, match=r'vectors-0\.f32: damaged'):
        Gallery.open(folder)


def test_what_can_be_no_embedding_is_embedded_again(folder: Path) -> None:
    feats = np.fromfile(folder / 'vectors-0.f32', '<f4').reshape(-1, SIZE)
    feats[7, 2] = np.nan
    feats.tofile(folder / 'vectors-0.f32')
    with pytest.raises(DamagedGalleryError, match=r'60 of 60 embeddings'):
        Gallery.open(folder)
    assert index(folder) == (0, 60, 0)
    with Gallery.open(folder) as gallery:
        assert paths(gallery.search(QUERIES, 5)) == expected(folder)


def test_a_damaged_index_is_passed_over(folder: Path) -> None:
    for file in folder.glob('*.faiss'):
        file.write_bytes(file.read_bytes()[:100])
        with Gallery.open(folder) as gallery:
            with pytest.warns(DamagedGalleryWarning, match=f'{file.name}: cannot be'):
                found = gallery.search(QUERIES, 5)
            assert paths(found) == expected(folder)


def test_damage_is_no_traceback(folder: Path) -> None:
    rng, reported = random.Random(0), []
    data = (folder / 'items.sqlite').read_bytes()
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 8, 64])):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        (folder / 'items.sqlite').write_bytes(damaged)
        try:
            with Gallery.open(folder) as gallery:
                gallery.search(QUERIES, 5)
                gallery.engine.field_values(5)
                gallery.info()
        except InputError as error:
            reported.append(str(error))
    assert all(len(text.splitlines()) == 1 for text in reported)
