from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Gallery, Item, parse_condition
from gckd_mm.search.gallery.damage import DamagedGalleryError
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.gallery_folder import GalleryExistsError
from gckd_mm.search.gallery.indexing import update
from gckd_mm.search.gallery.items import Stamp
from tests.search.gallery.fakes import (
    FAKE,
    SIZE,
    FakeInferencer,
    embedding,
    write_images,
)
from tests.search.gallery.old_gallery import write_old_gallery


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    root = tmp_path / 'crops'
    write_images(root, [f'{n}.jpg' for n in range(20)])
    gallery = Gallery.create(tmp_path / 'gallery', FAKE, 'f00', SIZE, root)
    update(gallery, FakeInferencer(), find_images(root))
    return gallery


def test_it_opens_as_it_was(gallery: Gallery, tmp_path: Path) -> None:
    query = embedding(b'7.jpg')[None]
    before = gallery.search(query, 3)
    gallery.close()
    with Gallery.open(tmp_path / 'gallery') as again:
        assert again.search(query, 3) == before
        assert again.file_of(before[0][0].item) == str(tmp_path / 'crops/7.jpg')
        assert len(again) == 20
        info = again.info()
    assert (info['items'], info['index'], info['model']) == (20, 'exact', 'fake')
    assert info['engine'] == 'embedded'
    assert 'uri' not in info


def test_another_model_is_refused(gallery: Gallery) -> None:
    gallery.check_model('f00', 'a copy of it')
    with pytest.raises(
        InputError, match=r'another model \(fake, .* than other \(f01\)'
    ):
        gallery.check_model('f01', 'other')


def test_pictures_like_one_of_its_own(gallery: Gallery) -> None:
    feats = gallery.engine.feats_of([f'{n}.jpg' for n in range(20)])
    order = np.argsort(-(feats @ feats[4]))[1:6]
    found = [match.item.path for match in gallery.similar_to('4.jpg', 5)]
    assert found == [f'{n}.jpg' for n in order]
    with pytest.raises(InputError, match=r"has no picture '\.\./4\.jpg'"):
        gallery.similar_to('../4.jpg')


def test_the_recall_of_an_exact_index_is_one(gallery: Gallery) -> None:
    assert gallery.measure_recall(np.eye(SIZE, dtype=np.float32), 5) == 1


def test_the_recall_is_the_share_that_is_found(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = gallery.engine.search

    def forgetful(queries, top_k, where, exact=False):  # type: ignore[no-untyped-def]
        found = search(queries, top_k, where, exact)
        return found if exact else [row[1:] for row in found]

    monkeypatch.setattr(gallery.engine, 'search', forgetful)
    assert gallery.measure_recall(np.eye(SIZE, dtype=np.float32), 5) == 0.8


@pytest.mark.parametrize('shape', [(SIZE,), (1, SIZE + 1), (1, 1, SIZE)])
def test_queries_of_another_shape(gallery: Gallery, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r'queries must have shape \(Q, 8\)'):
        gallery.search(np.zeros(shape, np.float32))


def test_fewer_than_one(gallery: Gallery) -> None:
    with pytest.raises(InputError, match='top_k must be at least 1, got 0'):
        gallery.search(np.zeros((1, SIZE), np.float32), 0)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(InputError, match='neither empty nor a gallery'):
        Gallery.create(tmp_path, FAKE, 'f00', SIZE)
    with pytest.raises(InputError, match='neither empty nor a gallery'):
        Gallery.create(tmp_path / 'thesis.tex', FAKE, 'f00', SIZE)
    assert os.listdir(tmp_path) == ['thesis.tex']


def test_a_gallery_without_the_permission_to_write_is_searched_and_not_changed(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = embedding(b'7.jpg')[None]
    before = gallery.search(query, 3)
    gallery.close()
    # the superuser, whom tests may run as, may write whatever a mode says
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3,
        'connect',
        lambda file, **options: connect(f'file:{file}?mode=ro', uri=True, **options),
    )
    with Gallery.open(tmp_path / 'gallery') as again:
        assert again.search(query, 3) == before
        write_images(tmp_path / 'crops', ['new.jpg'])
        with pytest.raises(InputError, match=r'cannot be written to .*readonly'):
            update(again, FakeInferencer(), find_images(tmp_path / 'crops'))


def test_a_folder_that_is_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='is no gallery'):
        Gallery.open(tmp_path)
    assert not Gallery.is_there(tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [('{', 'damaged'), (json.dumps({'format': 99}), 'a gallery of format 99')],
)
def test_a_description_that_is_wrong(
    gallery: Gallery, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / 'gallery/gallery.json').write_text(text)
    with pytest.raises(InputError, match=message):
        Gallery.open(tmp_path / 'gallery')


def test_a_folder_that_cannot_be_written_to() -> None:
    with pytest.raises(InputError, match='cannot be written to'):
        Gallery.create('/proc/gallery', FAKE, 'f00', SIZE)


def test_a_kill_while_a_gallery_is_made_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, data: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('gckd_mm.search.gallery.gallery.write_atomically', killed)
        with pytest.raises(KeyboardInterrupt):
            Gallery.create(tmp_path / 'g', FAKE, 'f00', SIZE)
    assert list((tmp_path / 'g').iterdir())
    assert not Gallery.is_there(tmp_path / 'g')
    with Gallery.create(tmp_path / 'g', FAKE, 'f00', SIZE) as gallery:
        assert len(gallery) == 0


def test_a_gallery_that_has_lost_its_items(gallery: Gallery, tmp_path: Path) -> None:
    gallery.close()
    (tmp_path / 'gallery/items.sqlite').unlink()
    with pytest.raises(InputError, match=r'damaged: it has no items\.sqlite'):
        Gallery.open(tmp_path / 'gallery')
    assert not (tmp_path / 'gallery/items.sqlite').exists()


def test_it_follows_its_pictures(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / 'crops').rename(tmp_path / 'moved')
    gallery.follow(tmp_path / 'moved')
    with Gallery.open(tmp_path / 'gallery') as again:
        (item,) = again.engine.get(['7.jpg'])
        assert item is not None
        assert again.file_of(item) == str(tmp_path / 'moved/7.jpg')


def answers(folder: Path) -> Any:
    """Return what a gallery gives, scores rounded: an index adds in another order."""
    queries = np.stack([embedding(f'{n}.jpg'.encode()) for n in range(0, 20, 3)])
    with Gallery.open(folder) as gallery:
        found = [gallery.search(queries, 5), gallery.search(queries, 5, ODD)]
        rounded = [
            [(match.item, round(match.score, 4)) for match in matches]
            for matches in found[0] + found[1]
        ]
        info = gallery.info()
        for name in ('folder', 'bytes', 'source'):
            info.pop(name)
        fields = gallery.engine.field_values(5)
        return rounded, len(gallery), list(gallery.engine.items()), fields, info


ODD = [parse_condition('odd=1')]


def damaged(data: bytes, rng: random.Random) -> bytes | None:
    """Return other bytes, or None for a file that is gone."""
    changed = bytearray(data)
    match rng.choice(['bytes', 'bytes', 'bit', 'zeros', 'cut', 'empty', 'gone']):
        case 'bytes':
            for _ in range(rng.choice([1, 8, 64])):
                changed[rng.randrange(len(data))] = rng.randrange(256)
        case 'bit':
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 'zeros':
            start, count = rng.randrange(len(data)), rng.choice([16, 4096])
            changed[start : start + count] = bytes(len(changed[start : start + count]))
        case 'cut':
            del changed[rng.randrange(len(data)) :]
        case 'empty':
            changed.clear()
        case 'gone':
            return None
    return bytes(changed)


@pytest.mark.filterwarnings(
    'ignore::gckd_mm.search.gallery.damage.DamagedGalleryWarning'
)
@pytest.mark.parametrize('kind', ['exact', 'hnsw', 'ivf'])
def test_damage_is_harmless_or_told_and_never_answered_from(
    tmp_path: Path, kind: str
) -> None:
    root = tmp_path / 'crops'
    write_images(root, [f'{n}.jpg' for n in range(20)])
    fields = {f'{n}.jpg': {'odd': n % 2} for n in range(20)}
    folder = tmp_path / 'gallery'
    with Gallery.create(folder, FAKE, 'f00', SIZE, root, kind) as gallery:
        update(gallery, FakeInferencer(), find_images(root, fields))
    expected = answers(folder)
    rng = random.Random(kind)
    reported = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        for _ in range(25 if data else 0):
            changed = damaged(data, rng)
            file.unlink()
            if changed is not None:
                file.write_bytes(changed)
            try:
                assert answers(folder) == expected, file
            except InputError as error:
                reported.append(str(error))
            file.write_bytes(data)
    assert len(reported) > 30
    assert all(len(text.splitlines()) == 1 for text in reported)
    assert answers(folder) == expected


def test_a_gallery_that_is_there_is_not_made_again(
    gallery: Gallery, tmp_path: Path
) -> None:
    with pytest.raises(GalleryExistsError, match='is a gallery already'):
        Gallery.create(tmp_path / 'gallery', FAKE, 'f00', SIZE)
    assert len(gallery) == 20


def test_items_that_lost_their_checksums(gallery: Gallery, tmp_path: Path) -> None:
    gallery.close()
    feats = np.stack([embedding(b'0.jpg')])
    write_old_gallery(tmp_path / 'old', [Item('0.jpg', Stamp(1, 1))], feats)
    data = (tmp_path / 'old/items.sqlite').read_bytes()
    (tmp_path / 'gallery/items.sqlite').write_bytes(data)
    with pytest.raises(DamagedGalleryError, match='has no checksums'):
        Gallery.open(tmp_path / 'gallery')


@pytest.mark.parametrize('value', [np.nan, np.inf, 0])
def test_queries_that_nothing_is_like(gallery: Gallery, value: float) -> None:
    with pytest.raises(InputError, match='query 0: its embedding is'):
        gallery.search(np.full((1, SIZE), value))


def test_a_disk_that_may_only_be_read(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = embedding(b'7.jpg')[None]
    before = gallery.search(query, 3)
    gallery.close()

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, 'Read-only file system', str(path))

    # a search must not even try to write
    for name in ('process_lock', 'write_atomically'):
        monkeypatch.setattr(f'gckd_mm.search.gallery.gallery.{name}', refuse)
    monkeypatch.setattr('gckd_mm.search.gallery.vector_file.VectorFile.write', refuse)
    files = {file.name: file.stat().st_mtime_ns for file in gallery.folder.iterdir()}
    with Gallery.open(tmp_path / 'gallery') as again:
        assert again.search(query, 3) == before
        assert again.info()['items'] == 20
        again.check(fully=True)
        with pytest.raises(InputError, match='Read-only file system'):
            update(again, FakeInferencer(), find_images(tmp_path / 'crops'))
        with pytest.raises(InputError, match='Read-only file system'):
            again.follow(tmp_path)
    with pytest.raises(InputError, match='Read-only file system'):
        Gallery.create(tmp_path / 'new', FAKE, 'f00', SIZE)
    found = {file.name: file.stat().st_mtime_ns for file in gallery.folder.iterdir()}
    assert found == files


def test_a_folder_that_cannot_be_read(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'iterdir', refuse)
    with pytest.raises(InputError, match=r'cannot be read \(Permission denied\)'):
        gallery.info()
    (tmp_path / 'other').mkdir()
    with pytest.raises(InputError, match='Permission denied'):
        Gallery.create(tmp_path / 'other', FAKE, 'f00', SIZE)


def test_the_files_of_another_models_gallery(gallery: Gallery, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / 'other', FAKE, 'f01', SIZE) as other:
        update(other, FakeInferencer(), find_images(tmp_path / 'crops'))
    gallery.close()
    for name in ('items.sqlite', 'gallery.json'):
        mixed = tmp_path / f'mixed {name}'
        shutil.copytree(gallery.folder, mixed)
        shutil.copy(tmp_path / 'other' / name, mixed / name)
        with pytest.raises(InputError, match='of another model'):
            Gallery.open(mixed)


def test_vectors_that_change_while_they_are_searched(gallery: Gallery) -> None:
    query = embedding(b'7.jpg')[None]
    gallery.search(query, 3)
    (file,) = gallery.folder.glob('vectors-*.f32')
    data = bytearray(file.read_bytes())
    data[10] ^= 0xFF
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))  # whatever the clock's resolution
    with pytest.raises(InputError, match='damaged'):
        gallery.search(query, 3)


@pytest.mark.parametrize('name', ['vectors-0.f32', 'items.sqlite-journal'])
def test_pipes_are_not_waited_for(gallery: Gallery, tmp_path: Path, name: str) -> None:
    gallery.close()
    (gallery.folder / name).unlink(missing_ok=True)
    os.mkfifo(gallery.folder / name)
    with (
        pytest.raises(InputError, match='not a regular file'),
        Gallery.open(gallery.folder, check=False) as again,
    ):
        update(again, FakeInferencer(), find_images(tmp_path / 'crops'))
