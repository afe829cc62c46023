"""How many pixels an image file has, from its first bytes, and how many it may have."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, TypeVar

from PIL import Image

from gckd_mm.errors import InputError
from gckd_mm.regular_files import open_regular, unreadable

_Answer = TypeVar('_Answer')

#: of an image in memory; a crop of a person has a thousandth of them
MAX_PIXELS = 50_000_000
#: OpenCV resizes no image that is longer
MAX_SIDE = 32_766
#: Pillow knows more, some of which start other programs
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF', 'GIF', 'PPM', 'JPEG2000', 'AVIF')
#: bytes within which a JPEG tells its size, unless it carries another image
_HEAD = 4096
#: markers of frame headers (ITU T.81, table B.1): C0 to CF but for C4, C8 and CC
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ORIENTATION = 0x0112  # of EXIF; from 5 on, width and height change places


def check_size(size: tuple[int, ...], where: str) -> None:
    """Refuse an image that would fill the memory.

    Args:
        size: Width and height.
        where: For the message.

    Raises:
        InputError: If it has more than ``MAX_PIXELS``, or a side than ``MAX_SIDE``.
    """
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        raise InputError(
            f'{where}: {width} × {height} is too large for the crop of a person (at '
            f'most {MAX_PIXELS / 1e6:.0f} megapixels, and {MAX_SIDE} a side)'
        )


def checked_size_of_file(path: str) -> tuple[int, int] | None:
    """Return width and height of an image file as it is shown, from its first bytes.

    Returns:
        None if it is not in there: whoever reads the file finds out why.

    Raises:
        InputError: If it is no regular file, or too large: see :func:`check_size`.
    """
    with open_regular(path) as file:
        try:
            head = file.read(_HEAD) or b''
        except OSError as error:  # such as of /proc/self/mem
            raise unreadable(path, error) from error
        size = size_from_head(head)
        if size is None:
            size = _ask_pillow(file, path, lambda image: image.size)
        if size is None:
            return None
        check_size(size, path)
        if size[0] > size[1] and _ask_pillow(file, path, _is_turned):
            size = size[1], size[0]
    return size


def size_from_head(head: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG or PNG; None where in doubt.

    It takes a tenth of what Pillow does, which was a tenth of indexing a folder.

    Args:
        head: The file, or its first bytes.
    """
    if head[:8] == b'\x89PNG\r\n\x1a\n' and head[12:16] == b'IHDR' and len(head) >= 24:
        return struct.unpack_from('>II', head, 16)
    if head[:2] != b'\xff\xd8':
        return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        if head[at + 1] in _FRAMES:
            height, width = struct.unpack_from('>HH', head, at + 5)
            return width, height
        at += 2 + int.from_bytes(head[at + 2 : at + 4], 'big')
    return None


def _ask_pillow(
    file: BinaryIO, path: str, question: Callable[[Image.Image], _Answer]
) -> _Answer | None:
    """Return what Pillow says of an image file without decoding it; None if nothing."""
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            return question(image)
    except Image.DecompressionBombError as error:
        raise InputError(f'{path}: is too large: {error}') from error
    # Pillow's decoders raise what they like; who reads the file tells better.
    except Exception:
        return None


def _is_turned(image: Image.Image) -> bool:
    """Return whether EXIF says that width and height change places."""
    return image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
