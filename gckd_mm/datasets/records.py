"""Read and check the flat JSON annotation files of person-text datasets."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gckd_mm.datasets.transforms.load_person_image import check_image
from gckd_mm.errors import InputError

#: what is said of a folder that is not there or cannot be
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)

SPLITS = ('train', 'val', 'test')


class PersonRecord(NamedTuple):
    """One image of one person, with the sentences that describe it."""

    pid: int
    image: str  # relative to the image folder, as the annotation file has it
    captions: tuple[str, ...]
    split: str  # lower case: 'train', 'val' or 'test'


class RecordSchema(NamedTuple):
    """The names that an annotation file gives to the fields of a record."""

    pid: str = 'id'
    image: str = 'file_path'
    captions: str = 'captions'
    split: str = 'split'


def read_records(
    path: str | os.PathLike[str], schema: RecordSchema
) -> list[PersonRecord]:
    """Read a whole annotation file, in its own order.

    Args:
        path: JSON file (UTF-8) holding a list of objects.
        schema: Names of the fields; other fields are ignored.

    Returns:
        The records of all splits.

    Raises:
        InputError: Names the file, the record, the field and what was found there.
    """
    try:
        if not os.path.isfile(path):  # a FIFO would never end
            raise InputError(f'{path}: is not a file')
        raw_records = json.loads(
            Path(path).read_bytes(), object_pairs_hook=_without_repetition
        )
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    except _RepeatedField as error:
        raise InputError(
            f'{path}: a record has the field {error.args[0]!r} twice: remove one'
        ) from error
    # Besides JSONDecodeError: bytes that are no UTF-8, numbers of thousands of digits,
    # thousands of nested lists.
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'{path}: not a JSON file in UTF-8 ({error}). Is the download complete?'
        ) from error
    if not isinstance(raw_records, list):
        raise InputError(
            f'{path}: must hold a list of records, got {_show(raw_records)}'
        )
    return [
        _parse_record(raw, schema, f'{path}, record {number}')
        for number, raw in enumerate(raw_records)
    ]


class _RepeatedField(Exception):
    """A JSON object has a name twice, of which Python would keep the last."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _RepeatedField(next(name for name in counts if counts[name] > 1))
    return found


def select_split(
    records: Sequence[PersonRecord], split: str, path: str | os.PathLike[str]
) -> list[PersonRecord]:
    """Return the records of one split.

    Raises:
        InputError: If the split is unknown or holds no record.
    """
    if split not in SPLITS:
        raise InputError(f'{path}: unknown split {split!r}, choose one of {SPLITS}')
    selected = [record for record in records if record.split == split]
    if not selected:
        counts = Counter(record.split for record in records)
        found = ', '.join(f'{name} {counts[name]}' for name in SPLITS if counts[name])
        raise InputError(
            f'{path}: no record in split {split!r}; records by split: '
            f'{found or "none at all"}'
        )
    return selected


def missing_images(root: str | os.PathLike[str], images: Iterable[str]) -> list[str]:
    """Return the images that are not files below ``root``, without repetition.

    Every folder is listed once, which is much faster than a look at each file.
    """
    listings: dict[str, set[str]] = {}
    missing: dict[str, None] = {}
    for image in images:
        folder, name = os.path.split(image)
        if folder not in listings:
            listings[folder] = _file_names(os.path.join(root, folder))
        if name not in listings[folder]:
            missing[image] = None
    return list(missing)


def damaged_images(
    root: str | os.PathLike[str], images: Iterable[str]
) -> dict[str, str]:
    """Return the images whose files are empty, cut short or no images.

    Both ends of each file are looked at, and nothing else of those that look whole; see
    :func:`check_image`. What is damaged in between, ``tools/check_dataset.py`` finds.

    Args:
        root: Folder of the images.
        images: Paths below ``root``.

    Returns:
        Image -> what is wrong with it.
    """
    damaged = {}
    for image in dict.fromkeys(images):
        try:
            check_image(os.path.join(root, image))
        except InputError as error:
            damaged[image] = str(error)
    return damaged


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError as error:
        if error.errno in _NO_FOLDER:
            return set()
        raise InputError(f'{folder}: cannot be read ({error.strerror})') from error


def _parse_record(raw: Any, schema: RecordSchema, where: str) -> PersonRecord:
    if not isinstance(raw, dict):
        raise InputError(f'{where}: must be an object, got {_show(raw)}')
    for field in schema:
        if field not in raw:
            raise InputError(
                f'{where}: no field {field!r}, found {sorted(raw)}. Is this the '
                f'annotation file of another dataset?'
            )
    pid = raw[schema.pid]
    if not isinstance(pid, int) or isinstance(pid, bool) or pid.bit_length() > 63:
        raise InputError(
            f'{where}: {schema.pid!r} must be an integer of 64 bits, got {_show(pid)}'
        )
    return PersonRecord(
        pid=pid,
        image=_parse_image(raw[schema.image], f'{where}: {schema.image!r}'),
        captions=_parse_captions(raw[schema.captions], f'{where}: {schema.captions!r}'),
        split=_parse_split(raw[schema.split], f'{where}: {schema.split!r}'),
    )


def _parse_image(image: Any, where: str) -> str:
    if (
        not isinstance(image, str)
        or not image.strip()
        or '\0' in image
        or not _is_unicode(image)
    ):
        raise InputError(f'{where} must be a path, got {_show(image)}')
    parts = image.split('/')
    if image.startswith('/') or '..' in parts:
        raise InputError(
            f'{where} must stay inside the image folder, got {_show(image)}'
        )
    # as pathlib writes it, which takes three times as long
    return '/'.join(part for part in parts if part not in ('', '.')) or '.'


def _parse_captions(captions: Any, where: str) -> tuple[str, ...]:
    if (
        not isinstance(captions, list)
        or not captions
        or not all(isinstance(caption, str) for caption in captions)
    ):
        raise InputError(
            f'{where} must be a non-empty list of strings, got {_show(captions)}'
        )
    for number, caption in enumerate(captions):
        if not caption.strip():
            raise InputError(
                f'{where}, caption {number} is empty: write one or remove it'
            )
        if not _is_unicode(caption):
            raise InputError(
                f'{where}, caption {number} holds half a character (a lone surrogate): '
                f'{_show(caption)}'
            )
    return tuple(captions)


def _parse_split(split: Any, where: str) -> str:
    if not isinstance(split, str) or split.lower() not in SPLITS:
        raise InputError(
            f'{where} must be one of {SPLITS} (in any case), got {_show(split)}'
        )
    return split.lower()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _show(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f'{text[:limit]}…'
