"""``gallery.json``: which model a gallery is of, and where its data lie."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.regular_files import open_regular, unreadable
from gckd_mm.search.choices import INDEX_KINDS
from gckd_mm.search.gallery.damage import NEW_GALLERY, DamagedGalleryError

FILE = 'gallery.json'
#: 1, of version 0.1, has no checksums
FORMAT = 2
_MAX_BYTES = 1 << 20
_MAX_EMBEDDING_SIZE = 1 << 16


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_source(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) == 2
        and _is_text(value[0])
        and (value[1] is None or _is_text(value[1]))
    )


_Rule = tuple[Callable[[Any], bool], str]
_TEXT: _Rule = (_is_text, 'a text')
_RULES: dict[str, _Rule] = {
    'model': _TEXT,
    'source': (_is_source, 'null, or a model and its weights or null'),
    'fingerprint': _TEXT,
    'embedding_size': (
        lambda x: type(x) is int and 1 <= x <= _MAX_EMBEDDING_SIZE,
        f'a whole number from 1 to {_MAX_EMBEDDING_SIZE}',
    ),
    'root': (lambda x: x is None or _is_text(x), 'a folder or null'),
    'index': (lambda x: x in INDEX_KINDS, f'one of {", ".join(INDEX_KINDS)}'),
}
_RULES_OF_MILVUS: dict[str, _Rule] = {'uri': _TEXT, 'collection': _TEXT}
_ENGINES = ('embedded', 'milvus')


def is_there(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder has the file."""
    try:
        return (Path(folder) / FILE).is_file()
    except OSError as error:
        raise InputError(f'{folder}: cannot be read ({error.strerror})') from error


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the file of a gallery, unless it is damaged or of a later version."""
    path = folder / FILE
    settings = _parsed(path, _read(folder))
    number = settings.get('format')
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise InputError(
            f'{folder}: a gallery of format {number!r}, this version reads 1 to '
            f'{FORMAT}: index the images anew'
        )
    checksum = settings.pop('checksum', None)
    if (checksum is not None or number > 1) and checksum != _checksum(settings):
        raise DamagedGalleryError(
            f'{path}: edited or damaged (its checksum does not match): {NEW_GALLERY}'
        )
    _check(path, settings, _RULES)
    engine = settings.get('engine', 'embedded')
    if engine not in _ENGINES:
        raise _wrong(path, 'engine', f'one of {", ".join(_ENGINES)}', engine)
    if engine == 'milvus':
        _check(path, settings, _RULES_OF_MILVUS)
    return settings


def text_of(settings: Mapping[str, Any]) -> str:
    """Return what the file is to hold: the settings, and a checksum of them."""
    known = {**settings, 'checksum': _checksum(settings)}
    return json.dumps(known, indent=2) + '\n'


def _checksum(settings: Mapping[str, Any]) -> str:
    """Return the checksum of all but ``source``.

    Whoever moves a model may write its new place there: the fingerprint shows whether
    it is the same model.
    """
    covered = {name: x for name, x in settings.items() if name != 'source'}
    return f'{zlib.crc32(json.dumps(covered, sort_keys=True).encode()):08x}'


def _read(folder: Path) -> bytes:
    path = folder / FILE
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise MissingDataError(
                f'{folder}: is no gallery (it has no {FILE}): make one with '
                f'gckd-search index'
            ) from error
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) > _MAX_BYTES:
        raise _damaged(path, f'more than {_MAX_BYTES} bytes')
    return data


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(data.decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(settings, dict):
        raise _damaged(path, f'must be a JSON object, got a {type(settings).__name__}')
    return settings


def _check(path: Path, settings: Mapping[str, Any], rules: Mapping[str, _Rule]) -> None:
    for name, (is_right, expected) in rules.items():
        if name not in settings:
            raise _damaged(path, f'it has no {name!r}')
        if not is_right(settings[name]):
            raise _wrong(path, name, expected, settings[name])


def _wrong(path: Path, name: str, expected: str, value: Any) -> DamagedGalleryError:
    return _damaged(path, f'{name!r} must be {expected}, got {value!r:.100}')


def _damaged(path: Path, reason: str) -> DamagedGalleryError:
    return DamagedGalleryError(f'{path}: damaged ({reason}): {NEW_GALLERY}')
