"""Tell by their hashes which image files hold the same image."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple

import cv2
import numpy as np

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.errors import InputError

#: wraps an iterable of known length, to show how far it has come
Track = Callable[[Iterable[Any], int], Iterable[Any]]


class ImageHash(NamedTuple):
    """What tells whether two files hold the same image."""

    sha256: bytes  # of the file
    difference: np.ndarray | None  # (64,) bool, None if the image was not decoded
    thumbnail: np.ndarray | None  # (32, 16) uint8, grey


class ImageScan(NamedTuple):
    """What the image files of a dataset hold."""

    hashes: dict[str, ImageHash]
    unreadable: dict[str, str]  # image -> what is wrong with it


class Match(NamedTuple):
    """An image of one dataset that is an image of another."""

    first: str
    second: str
    identical: bool  # byte for byte; otherwise it only looks the same


def scan_images(
    root: str | os.PathLike[str],
    images: Sequence[str],
    decode: bool = True,
    workers: int | None = None,
    track: Track = lambda items, total: items,
) -> ImageScan:
    """Read and hash image files in threads: reading and decoding release the GIL.

    Args:
        root: Folder of the images.
        images: Paths below ``root``.
        decode: Whether to decode them, too. Defaults to True.
        workers: Number of threads. Defaults to the number of processors.
        track: Shows the progress. Defaults to no progress bar.
    """

    def scan(image: str) -> ImageHash | str:
        try:
            return hash_image(os.path.join(root, image), decode)
        except InputError as error:
            return str(error)

    hashes: dict[str, ImageHash] = {}
    unreadable: dict[str, str] = {}
    # Unlike an executor's, this pool's exit does not finish the queue after Ctrl-C.
    with ThreadPool(workers) as pool:
        results = pool.imap(scan, images, chunksize=8)
        for image, result in zip(images, track(results, len(images)), strict=True):
            if isinstance(result, str):
                unreadable[image] = result
            else:
                hashes[image] = result
    return ImageScan(hashes, unreadable)


def hash_image(path: str, decode: bool = True) -> ImageHash:
    """Hash a file and, if it is decoded, the image in it.

    Raises:
        InputError: If the file cannot be read or decoded whole.
    """
    try:
        with open(path, 'rb') as file:
            digest = hashlib.sha256(file.read()).digest()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    if not decode:
        return ImageHash(digest, None, None)
    grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(grey, (16, 32), interpolation=cv2.INTER_AREA)
    return ImageHash(digest, difference_hash(grey), thumbnail)


def difference_hash(grey: np.ndarray) -> np.ndarray:
    """Hash a grey image so that re-encoding or scaling it changes few bits.

    Args:
        grey: Shape ``(H, W)``, any real dtype.

    Returns:
        Shape ``(64,)``, bool: on a grid of 8 rows by 9 columns, whether a cell is
        brighter than the one to its left.

    Source: N. Krawetz, *Kind of Like That*, 2013 (dHash).
    """
    cells = cv2.resize(grey.astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    return (cells[:, 1:] > cells[:, :-1]).ravel()


def find_overlap(
    first: Mapping[str, ImageHash],
    second: Mapping[str, ImageHash],
    radius: int = 8,
    tolerance: float = 4.0,
) -> list[Match]:
    """Find the images of one dataset that are in another, re-encoded or not.

    Crops of people look alike, and there are billions of pairs, so hashes that are
    close only name the candidates; their thumbnails must agree, too. The defaults are
    ours, measured on 90 real crops: all JPEG copies of quality 50 are found, and 96 of
    100 at quality 75 and half the size, while the thumbnails of two different people
    are at least 22 grey levels apart. Neighbouring frames of one person can pass: that
    is an overlap as well.

    Args:
        first: Hashes of one dataset.
        second: Hashes of the other.
        radius: Largest number of different bits of the difference hash. Defaults to 8.
        tolerance: Largest mean absolute difference of the thumbnails, in grey levels
            of 255. Defaults to 4.0.

    Returns:
        All pairs, in the order of ``first`` and then of ``second``.
    """
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for image, image_hash in second.items():
        by_digest[image_hash.sha256].append(image)
    matches = {
        (image, copy): Match(image, copy, True)
        for image, image_hash in first.items()
        for copy in by_digest.get(image_hash.sha256, ())
    }
    for image, copy in _similar_pairs(first, second, radius, tolerance):
        matches.setdefault((image, copy), Match(image, copy, False))
    places = [{image: place for place, image in enumerate(h)} for h in (first, second)]
    return sorted(
        matches.values(), key=lambda m: (places[0][m.first], places[1][m.second])
    )


def _similar_pairs(
    first: Mapping[str, ImageHash],
    second: Mapping[str, ImageHash],
    radius: int,
    tolerance: float,
) -> Iterable[tuple[str, str]]:
    names, signs, thumbnails = _stack(first)
    other_names, other_signs, other_thumbnails = _stack(second)
    rows = 256  # bounds the memory: a block is (rows, number of the others)
    for start in range(0, len(names), rows):
        # a dot product of ±1 is (equal bits - different bits), exact in float32
        agreement = signs[start : start + rows] @ other_signs.T
        lines, columns = np.nonzero(agreement >= 64 - 2 * radius)
        for line, column in zip(lines + start, columns, strict=True):
            apart = np.abs(thumbnails[line] - other_thumbnails[column]).mean()
            if apart <= tolerance:
                yield names[line], other_names[column]


def _stack(
    hashes: Mapping[str, ImageHash],
) -> tuple[list[str], np.ndarray, np.ndarray]:
    names: list[str] = []
    bits: list[np.ndarray] = []
    thumbnails: list[np.ndarray] = []
    for name, image_hash in hashes.items():
        if image_hash.difference is not None and image_hash.thumbnail is not None:
            names.append(name)
            bits.append(image_hash.difference)
            thumbnails.append(image_hash.thumbnail)
    signs = np.array(bits, np.float32).reshape(-1, 64) * 2 - 1
    return names, signs, np.array(thumbnails, np.int16)
