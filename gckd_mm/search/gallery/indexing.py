"""Bring a gallery up to date with the files that it is to hold."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.files import ImageFile
from gckd_mm.search.gallery.gallery import Gallery, writing
from gckd_mm.search.gallery.items import Item

#: what is written together: a kill loses at most as much
_BATCHES_A_WRITE = 8
_SECONDS_A_WRITE = 30.0
_RESUME = '; what has been written is kept, and the same call goes on from there'


class Encodes(Protocol):
    """What is asked of an inferencer here."""

    def iter_encoded(self, images: Iterable[Any], batch_size: int) -> Iterator[Any]:
        """Embed images in batches: see :class:`PersonSearchInferencer`."""


class Share(NamedTuple):
    """The images that one of several processes looks after."""

    rank: int
    world_size: int

    def has(self, path: str) -> bool:
        """Return whether an image is in this share: always in the same."""
        name = path.encode(errors='surrogateescape')
        return zlib.crc32(name) % self.world_size == self.rank


ALL = Share(0, 1)


class Update(NamedTuple):
    """What was done.

    Attributes:
        added: Images that were not there.
        changed: Images whose files had changed.
        described: Images whose files had not, but their fields.
        unchanged: Images that were left as they are.
        removed: Images that are to be there no longer.
        unreadable: Path -> what is wrong with it; they are left out.
        seconds: That it took.
        repaired: Images whose stored embeddings were damaged.
        wider_than_tall: How many of those added or changed are.
    """

    added: int
    changed: int
    described: int
    unchanged: int
    removed: int
    unreadable: dict[str, str]
    seconds: float
    repaired: int = 0
    wider_than_tall: int = 0

    def beside(self, other: Update) -> Update:
        """Return what two shares did together, at the same time."""
        return Update(
            added=self.added + other.added,
            changed=self.changed + other.changed,
            described=self.described + other.described,
            unchanged=self.unchanged + other.unchanged,
            removed=self.removed + other.removed,
            unreadable=self.unreadable | other.unreadable,
            seconds=max(self.seconds, other.seconds),
            repaired=self.repaired + other.repaired,
            wider_than_tall=self.wider_than_tall + other.wider_than_tall,
        )


def update(
    gallery: Gallery,
    inferencer: Encodes,
    images: Sequence[ImageFile],
    batch_size: int = 64,
    keep_missing: bool = False,
    share: Share = ALL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Update:
    """Embed what is new or has changed, and drop what is no longer there.

    It writes as it goes: if interrupted, call it again, and it resumes. Several
    processes may do a share each, at the same time: one of them holds
    :meth:`Gallery.indexing` and calls :meth:`Gallery.prepare` first and :func:`finish`
    last. What lay in a folder that cannot be listed is kept.

    All checksums are verified; images whose embeddings are damaged are embedded again.

    Args:
        gallery: Of the inferencer's model.
        inferencer: Embeds.
        images: What the gallery is to hold.
        batch_size: Images embedded at a time. Defaults to 64.
        keep_missing: Whether to keep what is not among ``images``. Defaults to False.
        share: Which images this process is to look after. Defaults to all.
        progress: Called with the number of images done, and in all.

    Raises:
        LockedError: If another process indexes into the gallery.
        InputError: If two images have one path, the gallery is damaged beyond repair,
            or the disk is full.
    """
    with _alone(gallery) if share == ALL else nullcontext():
        began = time.perf_counter()
        damaged = {path for path in gallery.engine.damaged() if share.has(path)}
        known = {x.path: x for x in gallery.engine.items() if share.has(x.path)}
        closed = tuple(image.path for image in images if image.path.endswith('/'))
        images = [image for image in images if share.has(image.path)]
        plan = _Plan(images, known, damaged)
        wanted = {image.path for image in images}
        gone = [
            path
            for path in known
            if not (keep_missing or path in wanted or path.startswith(closed))
        ]
        unreadable = dict(plan.unreadable)
        for path in damaged - wanted - set(gone):
            unreadable[path] = (
                f'{path}: its embedding is damaged, and its image is missing'
            )
        num_wide = 0
        with writing(gallery.folder, _RESUME):
            gallery.engine.delete(
                [*gone, *(path for path in unreadable if path in known)]
            )
            _describe_anew(gallery, plan.to_describe)
            todo = plan.to_encode
            files = [image.file for image, _ in todo]
            batches = inferencer.iter_encoded(files, batch_size)
            for group in _groups(batches, len(todo), progress):
                items = [todo[row][1] for batch in group for row in batch.rows]
                feats = np.concatenate([batch.feats for batch in group])
                gallery.engine.upsert(items, feats)
                bad = {
                    todo[row][1].path: str(error)
                    for batch in group
                    for row, error in batch.unreadable.items()
                }
                gallery.engine.delete([path for path in bad if path in known])
                unreadable |= bad
                num_wide += sum(batch.num_wide for batch in group)
        paths = [image.path for image, _ in plan.to_encode]
        encoded = [path for path in paths if path not in unreadable]
        repaired = sum(path in plan.to_repair for path in encoded)
        changed = sum(path in known for path in encoded) - repaired
        return Update(
            added=len(encoded) - changed - repaired,
            changed=changed,
            described=len(plan.to_describe),
            unchanged=plan.unchanged,
            removed=len(gone),
            unreadable=unreadable,
            seconds=time.perf_counter() - began,
            repaired=repaired,
            wider_than_tall=num_wide,
        )


@contextmanager
def _alone(gallery: Gallery) -> Iterator[None]:
    """Do before and after what one of several processes does for all of them."""
    with gallery.indexing():
        gallery.prepare()
        yield
        finish(gallery)


def finish(gallery: Gallery) -> None:
    """Make a gallery ready for searching, after all shares of an update."""
    with gallery.indexing(), writing(gallery.folder, _RESUME):
        gallery.engine.finish()


class _Plan:
    """What has to be done to which images."""

    def __init__(
        self,
        images: Sequence[ImageFile],
        known: Mapping[str, Item],
        damaged: Container[str],
    ) -> None:
        self._damaged = damaged
        self.to_repair: set[str] = set()
        self.to_encode: list[tuple[ImageFile, Item]] = []
        self.to_describe: list[Item] = []
        self.unreadable: dict[str, str] = {}
        self.unchanged = 0
        seen: set[str] = set()
        for image in images:
            if image.path in seen:
                raise InputError(f'{image.path}: is there twice')
            seen.add(image.path)
            self._add(image, known.get(image.path))

    def _add(self, image: ImageFile, item: Item | None) -> None:
        try:
            image.path.encode()
            stamp = image.stamp()
        except UnicodeEncodeError:
            name = os.fsencode(image.path).decode(errors='replace')
            self.unreadable[name] = f'{name}: its name is not UTF-8'
        except InputError as error:
            self.unreadable[image.path] = str(error)
        else:
            fields = image.fields
            if fields is None:
                fields = {} if item is None else item.fields
            if item is None or item.stamp != stamp:
                self.to_encode.append((image, Item(image.path, stamp, fields)))
            elif image.path in self._damaged:
                self.to_encode.append((image, Item(image.path, stamp, fields)))
                self.to_repair.add(image.path)
            elif dict(item.fields) != dict(fields):
                self.to_describe.append(item._replace(fields=fields))
            else:
                self.unchanged += 1


def _describe_anew(gallery: Gallery, items: Sequence[Item], at_once: int = 512) -> None:
    for start in range(0, len(items), at_once):
        some = items[start : start + at_once]
        gallery.engine.upsert(some, gallery.engine.feats_of([x.path for x in some]))


def _groups(
    batches: Iterable[Any], num_images: int, progress: Callable[[int, int], None]
) -> Iterator[list[Any]]:
    """Yield the batches that are to be written together."""
    group: list[Any] = []
    done, written = 0, time.monotonic()
    progress(done, num_images)
    for batch in batches:
        group.append(batch)
        done += len(batch.rows) + len(batch.unreadable)
        late = time.monotonic() - written > _SECONDS_A_WRITE
        if late or len(group) == _BATCHES_A_WRITE:
            yield group
            group, written = [], time.monotonic()
        progress(done, num_images)
    if group:
        yield group
