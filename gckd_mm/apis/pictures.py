"""Pictures in any form that programs have them, read a little ahead."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from gckd_mm.errors import InputError

Picture: TypeAlias = str | os.PathLike[str] | np.ndarray | Image.Image
#: of a picture in memory; a crop of a person has a thousandth of them
MAX_PIXELS = 50_000_000
#: bytes within which a JPEG tells its size, unless it carries another picture
_HEAD = 4096
#: markers of frame headers (ITU T.81, table B.1): C0 to CF but for C4, C8 and CC
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def as_input(picture: Picture) -> str | np.ndarray:
    """Return a path, or the picture as RGB of shape (H, W, 3), uint8.

    Args:
        picture: A path; an array of shape (H, W) or (H, W, 1, 3 or 4), uint8, grey or
            RGB (and not OpenCV's BGR), alpha being left out; or one of Pillow, whose
            EXIF orientation is applied.

    Raises:
        InputError: If it is none of them.
    """
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    if isinstance(picture, Image.Image):
        _check_size(picture.size, 'the picture')
        return np.asarray(ImageOps.exif_transpose(picture).convert('RGB'))
    if not isinstance(picture, np.ndarray):
        raise InputError(
            'a picture must be a path, an array or a Pillow image, got '
            f'{type(picture).__name__}'
        )
    shape = picture.shape
    if picture.dtype != np.uint8 or len(shape) not in (2, 3) or 0 in shape:
        raise InputError(
            'a picture must be an array of uint8, shape (H, W) or (H, W, 3), got '
            f'{picture.dtype} of shape {shape}'
        )
    _check_size(shape[1::-1], 'the picture')
    if len(shape) == 2 or shape[2] == 1:
        return np.repeat(picture.reshape(*shape[:2], 1), 3, axis=2)
    if shape[2] not in (3, 4):
        raise InputError(f'a picture has 1, 3 or 4 channels last, got shape {shape}')
    return np.ascontiguousarray(picture[:, :, :3])


def check_size_of_file(path: str) -> None:
    """Refuse a file that would fill the memory, from its first bytes.

    Raises:
        InputError: If it has more pixels than ``MAX_PIXELS``.
    """
    try:
        with open(path, 'rb') as file:
            size = _size_of_jpeg(file.read(_HEAD))
        if size is None:
            with Image.open(path) as image:
                size = image.size
    except Image.DecompressionBombError as error:
        raise InputError(f'{path}: {error}') from error
    except Exception:  # whatever is wrong with it, who reads it tells better
        return
    _check_size(size, path)


def reading_threads() -> int:
    """Return how many threads should read: none where there are but two processors.

    There the model uses both, and threads that read would take turns with it.
    """
    processors = os.cpu_count() or 1
    return 0 if processors <= 2 else min(4, processors // 2)


def read_ahead(
    pictures: Iterable[Picture],
    prepare: Callable[[str | np.ndarray], Any],
    ahead: int,
    num_threads: int | None = None,
) -> Iterator[Any]:
    """Prepare pictures on threads; yield them in order, or the error of each.

    Args:
        pictures: What to prepare.
        prepare: May raise InputError.
        ahead: How many may wait.
        num_threads: On which it is called; 0 for the caller's own. Defaults to
            :func:`reading_threads`.

    Yields:
        What ``prepare`` gives, or the :class:`InputError` that it raised.
    """

    def attempt(picture: Picture) -> Any:
        try:
            image = as_input(picture)
            if isinstance(image, str):
                check_size_of_file(image)
            return prepare(image)
        except InputError as error:
            return error

    if num_threads is None:
        num_threads = reading_threads()
    if num_threads == 0:
        yield from map(attempt, pictures)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[Future] = deque()
        try:
            for picture in pictures:
                waiting.append(pool.submit(attempt, picture))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _size_of_jpeg(head: bytes) -> tuple[int, int] | None:
    """Return width and height from the first bytes of a JPEG; None where in doubt.

    It takes a tenth of what Pillow does, which was a tenth of indexing a folder.
    """
    if head[:2] != b'\xff\xd8':
        return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        if head[at + 1] in _FRAMES:
            height, width = struct.unpack_from('>HH', head, at + 5)
            return width, height
        at += 2 + int.from_bytes(head[at + 2 : at + 4], 'big')
    return None


def _check_size(size: tuple[int, ...], where: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError(
            f'{where}: {width} × {height} is too large for the crop of a person (at '
            f'most {MAX_PIXELS / 1e6:.0f} megapixels)'
        )
