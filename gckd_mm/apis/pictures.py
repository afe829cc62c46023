"""Pictures in any form that programs have them, read a little ahead."""

from __future__ import annotations

import os
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
        with Image.open(path) as image:
            size = image.size
    except Image.DecompressionBombError as error:
        raise InputError(f'{path}: {error}') from error
    except Exception:  # whatever is wrong with it, who reads it tells better
        return
    _check_size(size, path)


def read_ahead(
    pictures: Iterable[Picture],
    prepare: Callable[[str | np.ndarray], Any],
    num_threads: int,
    ahead: int,
) -> Iterator[Any]:
    """Prepare pictures on threads; yield them in order, or the error of each.

    Args:
        pictures: What to prepare.
        prepare: May raise InputError.
        num_threads: On which it is called.
        ahead: How many may wait.

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


def _check_size(size: tuple[int, ...], where: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError(
            f'{where}: {width} × {height} is too large for the crop of a person (at '
            f'most {MAX_PIXELS / 1e6:.0f} megapixels)'
        )
