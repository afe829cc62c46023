"""An update embeds what is new or has changed, and nothing twice."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.process_lock import LockedError, is_locked
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.damage import DamagedGalleryError
from gckd_mm.search.gallery.files import ImageFile, find_images
from gckd_mm.search.gallery.indexing import Share, Update, finish, update
from tests.search.gallery.fakes import (
    FAKE,
    SIZE,
    FakeInferencer,
    close,
    embedding,
    write_images,
)
from tests.training import ROOT

NAMES = [f'{n // 10}/{n:03d}.jpg' for n in range(100)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / 'crops', NAMES)
    return tmp_path / 'crops'


@pytest.fixture
def gallery(tmp_path: Path, root: Path) -> Gallery:
    return Gallery.create(tmp_path / 'gallery', FAKE, 'f00', SIZE, root)


def bring_up_to_date(gallery: Gallery, **options: object) -> tuple[Update, list[str]]:
    """Index the folder; return what was done, and which files were encoded."""
    inferencer = FakeInferencer()
    images = find_images(gallery.root or '', options.pop('fields', {}))  # type: ignore[arg-type]
    done = update(gallery, inferencer, images, batch_size=4, **options)  # type: ignore[arg-type]
    encoded = [os.path.relpath(path, gallery.root) for path in inferencer.encoded]
    return done._replace(seconds=0), encoded


def check(gallery: Gallery, root: Path) -> None:
    """Compare a gallery with the files that are there now."""
    files = {image.path: image for image in find_images(root)}
    good = {
        path: image
        for path, image in files.items()
        if not Path(image.file).read_bytes().startswith(b'BAD')
    }
    items = {item.path: item for item in gallery.engine.items()}
    assert items.keys() == good.keys()
    for path, image in good.items():
        assert items[path].stamp == image.stamp()
        feat = embedding(Path(image.file).read_bytes())
        np.testing.assert_array_equal(gallery.engine.feats_of([path])[0], feat)
        ((match,),) = gallery.search(feat[None], 1)
        assert match.score == pytest.approx(1)


def test_everything_is_encoded_once(gallery: Gallery, root: Path) -> None:
    done, encoded = bring_up_to_date(gallery)
    assert done == Update(100, 0, 0, 0, 0, {}, 0)
    assert encoded == NAMES
    check(gallery, root)
    done, encoded = bring_up_to_date(gallery)
    assert done == Update(0, 0, 0, 100, 0, {}, 0)
    assert encoded == []


def test_only_what_is_new_or_has_changed_is_encoded(
    gallery: Gallery, root: Path
) -> None:
    bring_up_to_date(gallery)
    write_images(root, ['new/1.jpg', 'new/2.jpg'])
    (root / NAMES[5]).write_bytes(b'another picture')
    os.utime(root / NAMES[6], ns=(1, 1))
    (root / NAMES[7]).unlink()
    done, encoded = bring_up_to_date(gallery)
    assert done == Update(2, 2, 0, 97, 1, {}, 0)
    assert encoded == [NAMES[5], NAMES[6], 'new/1.jpg', 'new/2.jpg']
    check(gallery, root)


def test_what_is_missing_can_be_kept(gallery: Gallery, root: Path) -> None:
    bring_up_to_date(gallery)
    (root / NAMES[7]).unlink()
    done, _ = bring_up_to_date(gallery, keep_missing=True)
    assert done == Update(0, 0, 0, 99, 0, {}, 0)
    assert len(gallery) == 100


def test_other_fields_need_no_encoding(gallery: Gallery, root: Path) -> None:
    bring_up_to_date(gallery)
    done, encoded = bring_up_to_date(gallery, fields={NAMES[3]: {'camera': '2'}})
    assert done == Update(0, 0, 1, 99, 0, {}, 0)
    assert encoded == []
    (item,) = gallery.engine.get([NAMES[3]])
    assert item is not None
    assert dict(item.fields) == {'camera': '2'}
    check(gallery, root)


def test_what_cannot_be_read_is_listed_and_left_out(
    gallery: Gallery, root: Path
) -> None:
    bring_up_to_date(gallery)
    (root / NAMES[3]).write_bytes(b'BAD now')
    (root / 'new.jpg').write_bytes(b'BAD from the start')
    done, _ = bring_up_to_date(gallery)
    assert done._replace(unreadable={}) == Update(0, 0, 0, 99, 0, {}, 0)
    assert {
        path: text.rpartition(': ')[2] for path, text in done.unreadable.items()
    } == {
        NAMES[3]: 'not an image',
        'new.jpg': 'not an image',
    }
    check(gallery, root)
    # it is tried again, and taken when it is fixed
    (root / 'new.jpg').write_bytes(b'good')
    done, _ = bring_up_to_date(gallery)
    assert (done.added, done.changed, len(done.unreadable)) == (1, 0, 1)
    check(gallery, root)


def test_a_file_that_goes_while_it_is_indexed_is_unreadable(
    gallery: Gallery, root: Path
) -> None:
    images = [*find_images(root), ImageFile('gone.jpg', str(root / 'gone.jpg'))]
    done = update(gallery, FakeInferencer(), images)
    assert list(done.unreadable) == ['gone.jpg']
    assert 'cannot be read (No such file or directory)' in done.unreadable['gone.jpg']
    assert len(gallery) == 100


@pytest.mark.parametrize('kill_after', [0, 1, 33, 71, 99])
def test_a_kill_loses_little_and_the_next_call_goes_on(
    gallery: Gallery, root: Path, kill_after: int, tmp_path: Path
) -> None:
    images = find_images(root)
    with pytest.raises(KeyboardInterrupt):
        update(gallery, FakeInferencer(kill_after), images, batch_size=2)
    gallery.close()
    with Gallery.open(tmp_path / 'gallery') as again:
        kept = len(again)
        assert kill_after - 16 <= kept <= kill_after
        done, encoded = bring_up_to_date(again)
        assert done == Update(100 - kept, 0, 0, kept, 0, {}, 0)
        assert encoded == NAMES[kept:]
        check(again, root)


def test_a_name_that_is_not_utf8_is_listed(gallery: Gallery, root: Path) -> None:
    bad = os.fsencode(root) + b'/\xff.jpg'
    Path(os.fsdecode(bad)).write_bytes(b'good')
    done, _ = bring_up_to_date(gallery)
    assert done.unreadable == {'\ufffd.jpg': '\ufffd.jpg: its name is not UTF-8'}
    assert len(gallery) == 100


def test_two_pictures_of_one_path_are_refused(gallery: Gallery, root: Path) -> None:
    images = find_images(root)
    with pytest.raises(InputError, match='is there twice'):
        update(gallery, FakeInferencer(), [*images, images[0]])


def test_a_full_disk_keeps_what_was_written(
    gallery: Gallery, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gckd_mm.search.gallery.vector_file import VectorFile

    write, calls = VectorFile.write, []

    def full(self: VectorFile, start: int, feats: np.ndarray) -> None:
        calls.append(start)
        if len(calls) > 2:
            raise OSError(28, 'No space left on device')
        write(self, start, feats)

    monkeypatch.setattr(VectorFile, 'write', full)
    with pytest.raises(InputError, match=r'No space left .*goes on from there'):
        bring_up_to_date(gallery)
    monkeypatch.undo()
    assert len(gallery) == 64
    done, encoded = bring_up_to_date(gallery)
    assert (done.added, done.unchanged) == (36, 64)
    assert encoded == NAMES[64:]
    check(gallery, root)


def test_progress_is_told(gallery: Gallery, root: Path) -> None:
    reported: list[tuple[int, int]] = []
    progress = lambda done, total: reported.append((done, total))  # noqa: E731
    update(gallery, FakeInferencer(), find_images(root), 10, progress=progress)
    assert reported == [(done, 100) for done in range(0, 101, 10)]


def test_slow_models_write_more_often(
    gallery: Gallery, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('gckd_mm.search.gallery.indexing._SECONDS_A_WRITE', -1.0)
    with pytest.raises(KeyboardInterrupt):
        update(gallery, FakeInferencer(kill_after=25), find_images(root), 10)
    assert len(gallery) == 20


def test_fields_stay_where_nothing_is_said_of_them(
    gallery: Gallery, root: Path
) -> None:
    bring_up_to_date(gallery, fields={NAMES[0]: {'camera': '1'}, NAMES[1]: {'pid': 2}})
    (root / NAMES[1]).write_bytes(b'another picture')
    done, encoded = bring_up_to_date(gallery, fields=None)
    assert (done.described, encoded) == (0, [NAMES[1]])
    first, second = gallery.engine.get(NAMES[:2])
    assert first is not None
    assert second is not None
    assert (first.fields, second.fields) == ({'camera': '1'}, {'pid': 2})
    # and go where others are given
    done, _ = bring_up_to_date(gallery, fields={NAMES[0]: {'camera': '3'}})
    assert done.described == 2


def test_what_lies_in_a_folder_that_cannot_be_listed_is_kept(
    gallery: Gallery, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up_to_date(gallery)
    (root / NAMES[50]).unlink()
    with monkeypatch.context() as patch:
        close(patch, root / '3')
        done, _ = bring_up_to_date(gallery)
        shares = [
            update(gallery, FakeInferencer(), find_images(root), share=Share(n, 2))
            for n in range(2)
        ]
    assert (done.removed, done.unchanged, list(done.unreadable)) == (1, 89, ['3/'])
    both = shares[0].beside(shares[1])
    assert (both.removed, both.unchanged, list(both.unreadable)) == (0, 89, ['3/'])
    check(gallery, root)


def damage(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 0xFF
    file.write_bytes(data)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('gckd_mm.search.gallery.embedded_schema.SEGMENT_ROWS', 10)


@pytest.mark.usefixtures('small_segments')
def test_damaged_embeddings_are_made_again(
    gallery: Gallery, root: Path, tmp_path: Path
) -> None:
    fields = {name: {'camera': '1'} for name in NAMES}
    bring_up_to_date(gallery, fields=fields)
    gallery.close()
    damage(tmp_path / 'gallery/vectors-0.f32', 4 * SIZE * 25)
    with pytest.raises(DamagedGalleryError, match='10 of 100 embeddings, from row 20'):
        Gallery.open(tmp_path / 'gallery')
    with Gallery.open(tmp_path / 'gallery', check=False) as again:
        done, encoded = bring_up_to_date(again, fields=None)
        assert encoded == NAMES[20:30]
        assert done == Update(0, 0, 0, 90, 0, {}, 0, repaired=10)
    with Gallery.open(tmp_path / 'gallery') as again:
        check(again, root)
        # what is known of the images stays
        assert {x.path: x.fields for x in again.engine.items()} == fields
        assert bring_up_to_date(again, fields=None)[0].unchanged == 100


@pytest.mark.usefixtures('small_segments')
def test_a_kill_while_damage_is_repaired(
    gallery: Gallery, root: Path, tmp_path: Path
) -> None:
    bring_up_to_date(gallery)
    gallery.close()
    file = tmp_path / 'gallery/vectors-0.f32'
    file.write_bytes(file.read_bytes()[: 4 * SIZE * 50])
    images = find_images(root)
    with (
        Gallery.open(tmp_path / 'gallery', check=False) as again,
        pytest.raises(KeyboardInterrupt),
    ):
        update(again, FakeInferencer(kill_after=30), images, batch_size=2)
    with Gallery.open(tmp_path / 'gallery', check=False) as again:
        done, _ = bring_up_to_date(again)
        assert 20 <= done.repaired < 50
        assert done.repaired + done.unchanged == 100
        check(again, root)


@pytest.mark.usefixtures('small_segments')
def test_damaged_embeddings_whose_images_are_gone(
    gallery: Gallery, root: Path, tmp_path: Path
) -> None:
    bring_up_to_date(gallery)
    gallery.close()
    damage(tmp_path / 'gallery/vectors-0.f32', 0)
    (root / NAMES[3]).unlink()
    with Gallery.open(tmp_path / 'gallery', check=False) as again:
        done, _ = bring_up_to_date(again, keep_missing=True)
        assert done.repaired == 9
        assert list(done.unreadable) == [NAMES[3]]
        assert 'its embedding is damaged' in done.unreadable[NAMES[3]]
        check(again, root)


@pytest.mark.usefixtures('small_segments')
def test_shares_repair_what_is_theirs(
    gallery: Gallery, root: Path, tmp_path: Path
) -> None:
    bring_up_to_date(gallery)
    gallery.close()
    damage(tmp_path / 'gallery/vectors-0.f32', 0)
    images = find_images(root)
    with (
        Gallery.open(tmp_path / 'gallery', check=False) as first,
        Gallery.open(tmp_path / 'gallery', check=False) as second,
        first.indexing(),
    ):
        first.prepare()
        parts = [
            update(one, FakeInferencer(), images, share=Share(rank, 2))
            for rank, one in enumerate((first, second))
        ]
        finish(first)
    both = parts[0].beside(parts[1])
    assert (both.repaired, both.unchanged) == (10, 90)
    with Gallery.open(tmp_path / 'gallery') as again:
        check(again, root)


def test_damaged_items_are_an_error_that_says_what_to_run(
    gallery: Gallery, tmp_path: Path
) -> None:
    bring_up_to_date(gallery)
    gallery.close()
    (tmp_path / 'gallery/items.sqlite').write_bytes(b'')
    with pytest.raises(
        DamagedGalleryError, match=r'items\.sqlite: damaged.*--gallery NEW'
    ):
        Gallery.open(tmp_path / 'gallery', check=False)


class NotFinite(FakeInferencer):
    """A model that diverged."""

    def iter_encoded(self, images: Iterable[Any], batch_size: int) -> Iterator[Any]:
        for batch in super().iter_encoded(images, batch_size):
            yield batch._replace(feats=batch.feats * np.nan)


def test_embeddings_that_are_not_finite_are_refused(
    gallery: Gallery, root: Path
) -> None:
    with pytest.raises(InputError, match=f'{NAMES[0]}: its embedding must be finite'):
        update(gallery, NotFinite(), find_images(root))
    assert len(gallery) == 0
    bring_up_to_date(gallery)
    check(gallery, root)


_INDEXER = """
import sys, time
from gckd_mm.errors import InputError
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.gallery_folder import GalleryExistsError
from gckd_mm.search.gallery.indexing import update
from tests.search.gallery.fakes import FAKE, SIZE, FakeInferencer

class Slow(FakeInferencer):
    def iter_encoded(self, images, batch_size):
        for batch in super().iter_encoded(images, batch_size):
            time.sleep(float(sys.argv[3]))
            yield batch

images = find_images(sys.argv[1])
print('ready', flush=True)
sys.stdin.readline()
try:
    try:
        gallery = Gallery.create(sys.argv[2], FAKE, 'f00', SIZE, sys.argv[1])
    except GalleryExistsError:
        gallery = Gallery.open(sys.argv[2], check=False)
    print('has it', flush=True)
    update(gallery, Slow(), images, batch_size=10)
except InputError as error:
    sys.exit(f'{type(error).__name__}: {error}')
"""


class Indexer:
    """A process that makes a gallery, and fills it."""

    def __init__(self, root: Path, folder: Path, seconds: float = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, '-c', _INDEXER, str(root), str(folder), str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write('\n')
        self.process.stdin.flush()

    def end(self) -> str:
        """Return what it died of, empty for nothing."""
        return self.process.communicate(timeout=60)[1]


def test_several_indexers_that_make_one_gallery_at_the_same_moment(
    root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'new'
    indexers = [Indexer(root, folder) for _ in range(3)]
    for indexer in indexers:
        assert indexer.line() == 'ready'
    for indexer in indexers:
        indexer.go()
    errors = [indexer.end() for indexer in indexers]
    assert '' in errors
    for error in errors:
        assert not error or error.startswith('LockedError: ')
    with Gallery.open(folder) as gallery:
        check(gallery, root)


def test_a_second_indexer_is_refused_until_the_first_was_killed(
    gallery: Gallery, root: Path
) -> None:
    first = Indexer(root, gallery.folder, seconds=30)
    first.line()
    first.go()
    assert first.line() == 'has it'
    while not is_locked(gallery.folder / 'index.lock'):
        time.sleep(0.01)
    with pytest.raises(LockedError, match=f'in use by process {first.process.pid}'):
        bring_up_to_date(gallery)
    with pytest.raises(LockedError, match=f'in use by process {first.process.pid}'):
        finish(gallery)
    assert gallery.search(embedding(b'')[None]) == [[]]  # searching goes on
    first.process.kill()
    first.end()
    bring_up_to_date(gallery)
    check(gallery, root)


def test_a_gallery_is_free_after_an_error(gallery: Gallery, root: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            update(gallery, FakeInferencer(kill_after=0), find_images(root))
    bring_up_to_date(gallery)
    check(gallery, root)


def test_a_folder_that_no_lock_can_be_written_to(
    gallery: Gallery, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise OSError(errno.EROFS, 'Read-only file system', str(path))

    monkeypatch.setattr('gckd_mm.search.gallery.gallery.process_lock', refuse)
    with pytest.raises(InputError, match=r'cannot be written to \(Read-only file'):
        update(gallery, FakeInferencer(), find_images(root))
