"""Load an image fast, and never the first half of one."""

from __future__ import annotations

import io
import os
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image, UnidentifiedImageError

from gckd_mm.datasets.image_size import FORMATS, check_size, size_from_head
from gckd_mm.errors import InputError
from gckd_mm.registry import TRANSFORMS
from gckd_mm.regular_files import open_regular, read_regular, unreadable

#: of a file; as many pixels as we read, 16 bits deep and not compressed, have fewer
_MAX_BYTES = 500_000_000

#: how a complete file of each format begins and ends
_COMPLETE = ((b'\xff\xd8', b'\xff\xd9'), (b'\x89PNG', b'IEND\xaeB`\x82'))
_LONGEST_MARK = max(len(mark) for marks in _COMPLETE for mark in marks)


@TRANSFORMS.register_module()
class LoadPersonImage(BaseTransform):
    """Read ``img_path`` into ``img``: RGB, uint8, shape (H, W, 3), EXIF applied.

    OpenCV decodes; some of its versions fill the missing part of a truncated JPEG with
    grey and say nothing, so a file without its format's end mark goes through Pillow,
    which refuses it. Damage inside a file that keeps its end mark is seen only where it
    keeps OpenCV from decoding at all.

    Raises:
        InputError: If the file cannot be read, is cut short, cannot be decoded or has
            more than 50 megapixels.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``img_shape`` and ``ori_shape`` to the results."""
        image = read_image(results['img_path'])
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def read_image(path: str) -> np.ndarray:
    """Read an image file: RGB, uint8, shape (H, W, 3).

    Raises:
        InputError: If it is no regular file, cannot be read, is cut short, cannot be
            decoded or has more than 50 megapixels.
    """
    data = read_regular(path, _MAX_BYTES)
    size = size_from_head(data) if _looks_complete(data, data) else None
    if size is None:
        _decode_strictly(data, path)
    else:
        check_size(size, path)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f'{path}: not an image that OpenCV can decode')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_image(path: str) -> None:
    """Look at both ends of an image file, and decode it only if one looks wrong.

    That finds files that are empty, cut short or no images, many thousand a second.

    Raises:
        InputError: See :func:`read_image`.
    """
    with open_regular(path) as file:
        try:
            start = file.read(_LONGEST_MARK) or b''
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LONGEST_MARK))
            end = file.read(_LONGEST_MARK) or b''
        except OSError as error:
            raise unreadable(path, error) from error
    if not _looks_complete(start, end):
        read_image(path)


def _looks_complete(start: bytes, end: bytes) -> bool:
    return any(start.startswith(a) and end.endswith(b) for a, b in _COMPLETE)


def _decode_strictly(data: bytes, path: str) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(image.size, path)
            image.load()
    except InputError:
        raise
    except UnidentifiedImageError as error:
        problem = 'not an image' if data else 'not an image: the file is empty'
        raise InputError(f'{path}: {problem}') from error
    except Image.DecompressionBombError as error:
        raise InputError(f'{path}: is too large: {error}') from error
    # Pillow's decoders raise SyntaxError and struct.error, too, on broken files.
    except Exception as error:
        raise InputError(
            f'{path}: damaged or truncated image ({error}). Download it again, or '
            f'find all such files with tools/check_dataset.py'
        ) from error
