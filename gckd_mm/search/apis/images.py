"""Images in any form that programs have them, read a little ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from gckd_mm.datasets.image_size import check_size, checked_size_of_file
from gckd_mm.errors import InputError

AnyImage: TypeAlias = str | os.PathLike[str] | np.ndarray | Image.Image


def as_input(image: AnyImage) -> str | np.ndarray:
    """Return a path, or the image as RGB of shape (H, W, 3), uint8.

    Args:
        image: A path; an array of shape (H, W) or (H, W, 1, 3 or 4), uint8, grey or
            RGB (and not OpenCV's BGR), alpha being left out; or one of Pillow, whose
            EXIF orientation is applied.

    Raises:
        InputError: If it is none of them.
    """
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    if isinstance(image, Image.Image):
        return _rgb_of_pillow(image)
    if not isinstance(image, np.ndarray):
        raise InputError(
            'a picture must be a path, an array or a Pillow image, got '
            f'{type(image).__name__}'
        )
    shape = image.shape
    if image.dtype != np.uint8 or len(shape) not in (2, 3) or 0 in shape:
        raise InputError(
            'a picture must be an array of uint8, shape (H, W) or (H, W, 3), got '
            f'{image.dtype} of shape {shape}'
        )
    check_size(shape[1::-1], 'the picture')
    if len(shape) == 2 or shape[2] == 1:
        return np.repeat(image.reshape(*shape[:2], 1), 3, axis=2)
    if shape[2] not in (3, 4):
        raise InputError(f'a picture has 1, 3 or 4 channels last, got shape {shape}')
    return np.ascontiguousarray(image[:, :, :3])


class Prepared(NamedTuple):
    """An image as the model takes it, and whether it is wider than tall."""

    inputs: Any
    is_wide: bool


def prepare_with_size(
    prepare: Callable[[str | np.ndarray], Any], image: str | np.ndarray
) -> Prepared:
    """Prepare an image, unless it is too large or cannot be read."""
    if isinstance(image, str):
        size = checked_size_of_file(image)
    else:
        size = image.shape[1], image.shape[0]
    inputs = prepare(image)
    return Prepared(inputs, size is not None and size[0] > size[1])


def reading_threads() -> int:
    """Return how many threads should read: none where there are but two processors.

    There the model uses both, and threads that read would take turns with it.
    """
    processors = os.cpu_count() or 1
    return 0 if processors <= 2 else min(4, processors // 2)


def read_ahead(
    images: Iterable[AnyImage],
    prepare: Callable[[str | np.ndarray], Any],
    ahead: int,
    num_threads: int | None = None,
) -> Iterator[Any]:
    """Prepare images on threads; yield them in order, or the InputError of each.

    At most ``ahead`` wait. ``num_threads`` may be 0 for the caller's own, and defaults
    to :func:`reading_threads`.
    """

    def attempt(image: AnyImage) -> Any:
        try:
            return prepare(as_input(image))
        except InputError as error:
            return error

    if num_threads is None:
        num_threads = reading_threads()
    if num_threads == 0:
        yield from map(attempt, images)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[Future] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(attempt, image))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _rgb_of_pillow(image: Image.Image) -> np.ndarray:
    check_size(image.size, 'the picture')
    if 0 in image.size:
        raise InputError(f'the picture has no pixels, got size {image.size}')
    try:
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith('I;16'):  # Pillow would clip it to 255
            grey = (np.asarray(turned) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if turned.mode in ('I', 'F'):
            raise InputError(
                f'a picture of mode {turned.mode} has no known range: convert it to L '
                f'or RGB first'
            )
        return np.asarray(turned.convert('RGB'))
    except InputError:
        raise
    # of a file that is read only here; Pillow's decoders raise what they like
    except Exception as error:
        name = getattr(image, 'filename', '') or 'the picture'
        raise InputError(f'{name}: damaged or truncated image ({error})') from error
