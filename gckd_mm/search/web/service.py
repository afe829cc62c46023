"""What page and JSON interface have in common: a gallery and its model."""

from __future__ import annotations

import io
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from gckd_mm.datasets.image_size import MAX_PIXELS, check_size
from gckd_mm.errors import InputError
from gckd_mm.regular_files import open_regular
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.apis.query import Found, Query
from gckd_mm.search.gallery import Condition, Gallery, Item, parse_condition
from gckd_mm.search.gallery.damage import UnreadableGalleryError
from gckd_mm.search.gallery.items import Stamp, shown_value

MAX_QUERIES = 20
MAX_TOP_K = 200
MAX_UPLOAD_BYTES = 10_000_000
#: fields with more values get no menu of them
MAX_CHOICES = 50
#: of an image of the gallery, whatever its format: three bytes a pixel, and a header
_MAX_FILE_BYTES = 3 * MAX_PIXELS + 1_000_000
_FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'GIF', 'PPM')
_LOG = logging.getLogger(__name__)


class UnavailableError(InputError):
    """The gallery fails, through no fault of the request; the log says how."""


class SentImage(NamedTuple):
    """An image as it is sent: bytes and their type."""

    data: bytes
    media_type: str


@contextmanager
def _reading_gallery() -> Iterator[None]:
    """Log how a gallery fails: the places of files are no concern of visitors."""
    try:
        yield
    except UnreadableGalleryError as error:
        _LOG.error('the gallery fails: %s', ' '.join(str(error).split()))
        raise UnavailableError(
            'the gallery is damaged or cannot be read: the log of the server says what '
            'to do'
        ) from error


class SearchService:
    """Searches a gallery, and hands out its images and nothing else.

    Methods may be called from several threads.
    """

    def __init__(self, gallery: Gallery, inferencer: PersonSearchInferencer) -> None:
        gallery.check_model(inferencer.fingerprint, inferencer.encoder.name)
        self.gallery = gallery
        self.inferencer = inferencer

    @_reading_gallery()
    def search(
        self,
        texts: Sequence[str] = (),
        without: str = '',
        image: np.ndarray | None = None,
        like: str = '',
        top_k: int = 20,
        min_score: float = -1.0,
        where: Sequence[str | Condition] = (),
        rerank: str = '',
    ) -> list[Found]:
        """Search with every text, and with the image in each of them.

        Args:
            texts: Descriptions; empty ones are left out.
            without: What is unwanted.
            image: Of someone who looks alike, RGB, shape (H, W, 3).
            like: Path of an image of the gallery, to find those like it.
            top_k: At most as many matches each.
            min_score: Matches below are left out.
            where: Conditions, or texts such as ``camera=3``.
            rerank: How the first matches are ordered anew, empty for not at all: see
                :class:`~gckd_mm.search.apis.search_reranking.SearchReranking`. It
                concerns ``texts`` and ``image``.
        """
        texts = [text.strip() for text in texts if text.strip()]
        if len(texts) > MAX_QUERIES:
            raise InputError(f'at most {MAX_QUERIES} queries at once, got {len(texts)}')
        if not 1 <= top_k <= MAX_TOP_K:
            raise InputError(f'top_k must be 1 to {MAX_TOP_K}, got {top_k}')
        conditions = [
            x if isinstance(x, Condition) else parse_condition(x)
            for x in where
            if isinstance(x, Condition) or x.strip()
        ]
        found = []
        if like:
            matches = self.gallery.similar_to(like, top_k, conditions)
            found.append(Found(f'like {like}', matches))
        if texts or image is not None or not like:
            queries = [Query(text, without, image) for text in texts or ['']]
            matches_of = self.inferencer.search(
                self.gallery, queries, top_k, conditions, rerank=rerank or None
            )
            warnings_of = self.inferencer.query_warnings(queries)
            found += map(Found, map(str, queries), matches_of, warnings_of)
        hints: list[str] = []
        if conditions and not any(matches for _, matches, _ in found):
            hints = self.gallery.hints(conditions)
        return [
            Found(
                query,
                [match for match in matches if match.score >= min_score],
                [*warnings, *hints],
            )
            for query, matches, warnings in found
        ]

    @_reading_gallery()
    def image(self, path: str, height: int | None = None) -> SentImage:
        """Return the file of an item as it is, or a small copy of a height.

        Nothing but paths of items is looked for on the disk.
        """
        (item,) = self.gallery.engine.get([path])
        if item is None:
            raise InputError(f'the gallery has no picture {path!r}')
        try:
            data = self._read(item)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                check_size(image.size, path)
                if height is None:
                    media_type = image.get_format_mimetype() or 'image/jpeg'
                    return SentImage(data, media_type)
                return _small(image, height)
        except Exception as error:  # Pillow's decoders raise what they like
            raise InputError(
                f'{path}: is there no longer, or is no picture any more'
            ) from error

    def _read(self, item: Item) -> bytes:
        """Read the file of an item.

        What a link leads to outside of the gallery's folder must be the file that was
        indexed, by size and time of change.
        """
        path = self.gallery.file_of(item)
        real = os.path.realpath(path)
        with open_regular(real, follow_link=False) as file:
            changed = os.fstat(file.fileno()).st_mtime_ns
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ValueError(f'{real} has more than {_MAX_FILE_BYTES} bytes')
        root = os.path.realpath(self.gallery.root or os.path.dirname(path))
        is_outside = os.path.commonpath([root, real]) != root
        if is_outside and Stamp(len(data), changed) != item.stamp:
            raise ValueError(f'{path} is a link to another file than was indexed')
        return data

    @_reading_gallery()
    def info(self) -> dict[str, Any]:
        """Return what people want to know of the gallery."""
        return self.gallery.info()

    @_reading_gallery()
    def choices(self) -> dict[str, list[Any]]:
        """Return the fields of the gallery's items, those of few values with these."""
        return self.gallery.engine.field_values(MAX_CHOICES)

    def warm_up(self) -> float:
        """Search once, so that the first user does not wait; return the seconds."""
        began = time.perf_counter()
        self.search(['a person'], top_k=1)
        return time.perf_counter() - began


def shown_fields(item: Item) -> dict[str, str]:
    """Return the fields of an item for people: ``time`` as a date."""
    shown = {name: str(shown_value(name, value)) for name, value in item.fields.items()}
    if 'time' in shown:
        shown['time'] = shown['time'].removesuffix('+00:00').replace('T', ' ')
    return shown


def read_upload(data: bytes) -> np.ndarray:
    """Read an image that somebody sent: RGB, uint8, shape (H, W, 3)."""
    if len(data) > MAX_UPLOAD_BYTES:
        raise InputError(f'a picture may have {MAX_UPLOAD_BYTES / 1e6:.0f} MB at most')
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            check_size(image.size, 'the image')
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise what they like
        raise InputError('what was sent is no picture') from error


def _small(image: Image.Image, height: int) -> SentImage:
    image.draft('RGB', (1, height))  # JPEG: decodes no more than is needed
    copy = ImageOps.exif_transpose(image).convert('RGB')
    copy.thumbnail((3 * height, height))
    buffer = io.BytesIO()
    copy.save(buffer, 'JPEG', quality=85)
    return SentImage(buffer.getvalue(), 'image/jpeg')
