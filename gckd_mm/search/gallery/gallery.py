"""A gallery: images embedded by one model, to be searched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

import gckd_mm
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.process_lock import process_lock
from gckd_mm.search.gallery import settings as gallery_settings
from gckd_mm.search.gallery.condition_hints import check_fields, values_hints
from gckd_mm.search.gallery.conditions import Condition, check_conditions
from gckd_mm.search.gallery.damage import Checked, UnreadableGalleryError
from gckd_mm.search.gallery.embedded_engine import EMPTY_FILES
from gckd_mm.search.gallery.embeddings import checked_queries
from gckd_mm.search.gallery.engine import Engine
from gckd_mm.search.gallery.gallery_folder import (
    LOCK,
    check_is_free,
    new_collection,
    open_engine,
    remembered_uri,
)
from gckd_mm.search.gallery.items import Item, Match

#: for another process that makes the same gallery; filling it takes longer
_SECONDS_TO_MAKE, _SECONDS_TO_CHANGE = 10.0, 2.0
#: matches; of more, only as many as there are items are asked for
_MANY = 10_000


class Gallery:
    """Images, their embeddings, and the model that made these.

    A gallery is a folder. ``gallery.json`` in it says which model, and the engine keeps
    the rest: in the folder, or in Milvus, in a collection of its own. It is filled by
    :func:`gckd_mm.search.gallery.indexing.update`.

    Args:
        folder: Of the gallery.
        settings: What ``gallery.json`` holds.
        engine: That has its vectors.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], engine: Engine) -> None:
        self.folder = folder
        self.settings = settings
        self.engine = engine
        self._is_indexing = False

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        model: dict[str, Any],
        fingerprint: str,
        embedding_size: int,
        root: str | os.PathLike[str] | None = None,
        index: str = 'auto',
        uri: str | None = None,
        token: str | None = None,
    ) -> Gallery:
        """Make an empty gallery.

        Args:
            folder: A new one, or an empty one.
            model: ``model``, its name for people, and ``source``, the files that it
                is read from, or None.
            fingerprint: Of the model.
            embedding_size: D.
            root: The folder of the images, if they lie in one.
            index: See :class:`EmbeddedEngine`.
            uri: Of Milvus: an address such as ``http://localhost:19530``, or a file of
                Milvus Lite, which ends in ``.db``. Defaults to none: the folder holds
                all of the gallery.
            token: Of the server: a key, or ``user:password``; it is not remembered.
                Defaults to the environment's ``MILVUS_TOKEN``, if there is one.

        Raises:
            GalleryExistsError: If it is there, or another process has just made it.
            LockedError: If another process made it and fills it.
            InputError: If the folder holds something else, or cannot be written to; or
                Milvus is not there.
        """
        folder = Path(folder)
        settings = {
            'format': gallery_settings.FORMAT,
            'model': model['model'],
            'source': model['source'],
            'fingerprint': fingerprint,
            'embedding_size': embedding_size,
            'root': None if root is None else os.path.abspath(root),
            'index': index,
            'engine': 'embedded' if uri is None else 'milvus',
            'gckd_mm': gckd_mm.__version__,
        }
        if uri is not None:
            settings['uri'] = remembered_uri(uri, folder)
            settings['collection'] = new_collection(fingerprint)
        with writing(folder):
            check_is_free(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with process_lock(folder / LOCK, str(folder), _SECONDS_TO_MAKE):
                check_is_free(folder)
                for name in EMPTY_FILES:
                    (folder / name).unlink(missing_ok=True)
                engine = open_engine(folder, settings, token, new=True)
                gallery = cls(folder, settings, engine)
                # Last: a folder without it is no gallery yet.
                gallery._write_settings()
        return gallery

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        token: str | None = None,
        check: bool = True,
    ) -> Gallery:
        """Open a gallery that is there.

        Args:
            folder: Of the gallery.
            token: Of its Milvus server. Defaults to the environment's ``MILVUS_TOKEN``,
                if there is one.
            check: Whether to compare what is stored with its checksums, where that
                takes no time: see :meth:`check`. Defaults to True.

        Raises:
            InputError: If there is none, or it is of another version, is damaged, or
                its Milvus is not there.
        """
        folder = Path(folder)
        settings = gallery_settings.read_settings(folder)
        gallery = cls(folder, settings, open_engine(folder, settings, token))
        try:
            if check:
                gallery.check()
        except BaseException:
            gallery.close()
            raise
        return gallery

    @staticmethod
    def is_there(folder: str | os.PathLike[str]) -> bool:
        """Return whether a folder is a gallery."""
        return gallery_settings.is_there(folder)

    def __len__(self) -> int:
        return len(self.engine)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def root(self) -> str | None:
        """The folder of the images, if they lie in one."""
        return self.settings['root']

    def follow(self, root: str | os.PathLike[str]) -> None:
        """Look for the images in another folder, to which all of them were moved."""
        self.settings['root'] = os.path.abspath(root)
        with writing(self.folder):
            self._write_settings()

    def _write_settings(self) -> None:
        text = gallery_settings.text_of(self.settings)
        write_atomically(self.folder / gallery_settings.FILE, text)

    @contextmanager
    def indexing(self) -> Iterator[None]:
        """Change the gallery while no other process does; searching goes on.

        Raises:
            LockedError: If another process does; the message names it.
            InputError: If the folder cannot be written to.
        """
        if self._is_indexing:
            yield
            return
        lock = self.folder / LOCK, str(self.folder), _SECONDS_TO_CHANGE
        with ExitStack() as held:
            with writing(self.folder):
                held.enter_context(process_lock(*lock))
            self._is_indexing = True
            held.callback(setattr, self, '_is_indexing', False)
            yield

    def prepare(self) -> None:
        """Make ready for changes; a gallery of version 0.1 is given checksums."""
        with writing(self.folder):
            self.engine.prepare()
            if self.settings['format'] != gallery_settings.FORMAT:
                self.settings['format'] = gallery_settings.FORMAT
                self._write_settings()

    def check(self, fully: bool = False) -> None:
        """Compare what is stored with its checksums.

        Unless ``fully``, files that take longer than a moment are compared by size.

        Raises:
            DamagedGalleryError: If something is damaged that searches need; the message
                says what to run. A damaged index is a ``DamagedGalleryWarning``.
        """
        with _reading(self.folder):
            self.engine.check(fully)

    def verify(
        self, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Checked]:
        """Compare all that is stored with its checksums; return what is damaged.

        ``progress`` is called with the number of images verified, and in all.
        """
        name = gallery_settings.FILE
        return [Checked(name, 'the model'), *self.engine.verify(progress)]

    def is_kept_in(self, uri: str) -> bool:
        """Return whether a Milvus holds it: see :meth:`create`."""
        return self.settings.get('uri') == remembered_uri(uri, self.folder)

    def check_model(self, fingerprint: str, name: str) -> None:
        """Refuse another model, or one that prepares its images otherwise."""
        if fingerprint != self.settings['fingerprint']:
            raise InputError(
                f'{self.folder}: was built by another model ({self.settings["model"]}, '
                f'fingerprint {self.settings["fingerprint"]}) than {name} '
                f'({fingerprint}): search with that one, or index the pictures anew '
                f'into another gallery'
            )

    def search(
        self,
        feats: np.ndarray,
        top_k: int = 10,
        where: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[list[Match]]:
        """Find the nearest images.

        Args:
            feats: Of Q queries, by the gallery's model, shape (Q, D).
            top_k: For each query. Defaults to 10.
            where: What all of them must fulfil. Defaults to nothing.
            exact: Whether to compare with all images, whatever the index. Defaults
                to False.

        Returns:
            Q lists of at most ``top_k`` matches, best first.

        Raises:
            InputError: If ``top_k`` is below 1, the embeddings are of another size,
                zero or not finite, or no item has a field that a condition names, or
                has it with a value of that type.
        """
        top_k, where = checked_top_k(top_k), check_conditions(where)
        feats = checked_queries(feats, self.settings['embedding_size'])
        if top_k > _MANY:  # engines make room for as many
            top_k = max(1, min(top_k, len(self)))
        found = self.engine.search(feats, top_k, where, exact)
        if where and len(feats) and not any(found) and len(self):
            check_fields(self.engine, feats[:1], where)
        return found

    def hints(self, where: Sequence[Condition]) -> list[str]:
        """Return which values there are, for conditions that found nothing."""
        return values_hints(self.engine, check_conditions(where))

    def similar_to(
        self, path: str, top_k: int = 10, where: Sequence[Condition] = ()
    ) -> list[Match]:
        """Find images like one of the gallery, itself left out.

        Raises:
            InputError: If the gallery has no such image, or see :meth:`search`.
        """
        top_k = checked_top_k(top_k)
        if not isinstance(path, str) or self.engine.get([path]) == [None]:
            raise InputError(f'the gallery has no picture {path!r}')
        feats = self.engine.feats_of([path])
        (matches,) = self.search(feats, top_k + 1, where)
        return [match for match in matches if match.item.path != path][:top_k]

    def file_of(self, item: Item) -> str:
        """Return where the file of an item lies."""
        if os.path.isabs(item.path) or self.root is None:
            return item.path
        return os.path.join(self.root, *item.path.split('/'))

    def measure_recall(self, queries: np.ndarray, top_k: int = 10) -> float:
        """Return the recall@top_k of queries, shape (Q, D), of an exact search."""
        found = self.search(queries, top_k)
        true = self.search(queries, top_k, exact=True)
        hits = sum(
            len({m.item.path for m in a} & {m.item.path for m in b})
            for a, b in zip(found, true, strict=True)
        )
        return hits / max(1, sum(map(len, true)))

    def measure_recall_on_own(self, num_queries: int) -> float:
        """Return :meth:`measure_recall` of random images of the gallery, the same ones.

        Raises:
            InputError: If the gallery is empty, or ``num_queries`` is below 1.
        """
        paths = sorted(item.path for item in self.engine.items())
        if not paths or num_queries < 1:
            raise InputError(
                f'the recall is measured with at least 1 of the pictures of a gallery, '
                f'got {num_queries} of {len(paths)}'
            )
        rng = np.random.default_rng(0)
        rows = rng.choice(len(paths), min(num_queries, len(paths)), replace=False)
        feats = self.engine.feats_of([paths[row] for row in rows])
        return self.measure_recall(feats)

    def info(self) -> dict[str, Any]:
        """Return what people want to know of a gallery."""
        with _reading(self.folder):
            known = self.engine.describe()
        return {'folder': str(self.folder), **self.settings, **known}

    def close(self) -> None:
        """Close its files."""
        self.engine.close()


def checked_top_k(top_k: Any) -> int:
    """Return how many matches are wanted, at least 1."""
    if not isinstance(top_k, Integral) or isinstance(top_k, bool) or top_k < 1:
        raise InputError(f'top_k must be at least 1, got {top_k!r}')
    return int(top_k)


@contextmanager
def writing(folder: Path, what_follows: str = '') -> Iterator[None]:
    """Raise InputError where a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f'{folder}: cannot be written to ({error.strerror}){what_follows}'
        ) from error


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableGalleryError(
            f'{folder}: cannot be read ({error.strerror})'
        ) from error
