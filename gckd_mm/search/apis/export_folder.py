"""What an export is: a folder, whole or not at all, that says what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gckd_mm
from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.fileio import write_atomically

SETTINGS = 'export.json'
TOKENIZER = 'tokenizer.json'
IMAGE_GRAPH, TEXT_GRAPH = GRAPHS = ('image.onnx', 'text.onnx')
#: key of the hash of all else that ``export.json`` says
_DIGEST = 'sha256'
_FORMAT = 1
_CHUNK = 1 << 20
_MOST_SIZE = 1 << 24


class ImageInput(NamedTuple):
    """How an image becomes the input of its graph: see mmcv's ``Resize``."""

    height: int
    width: int
    interpolation: str
    backend: str


class TextInput(NamedTuple):
    """How a caption becomes the input of its graph.

    ``max_length`` counts tokens, start and end included; ``padding_id`` fills the
    shorter captions of a batch.
    """

    max_length: int
    padding_id: int
    vocab_size: int


class ExportSettings(NamedTuple):
    """What ``export.json`` says; ``precision`` is ``'float32'`` or ``'int8'``."""

    name: str
    precision: str
    fingerprint: str
    embedding_size: int
    image: ImageInput
    text: TextInput


def write_settings(folder: Path, settings: ExportSettings) -> None:
    """Write ``export.json``, with hashes of the other files, and the hash of itself."""
    described: dict[str, Any] = {
        'format': _FORMAT,
        'gckd_mm': gckd_mm.__version__,
        **settings._asdict(),
        'image': settings.image._asdict(),
        'text': settings.text._asdict(),
        'files': file_hashes(folder),
    }
    described[_DIGEST] = _digest_of(described)
    write_atomically(folder / SETTINGS, json.dumps(described, indent=2) + '\n')


def read_settings(folder: Path) -> ExportSettings:
    """Read ``export.json``; refuse an export that is not as it was written."""
    path = folder / SETTINGS
    if not path.is_file():  # a FIFO would block
        raise MissingDataError(
            f'{folder}: is no exported model (it has no {SETTINGS}): make one with '
            f'tools/export_onnx.py, or name a checkpoint'
        )
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict) or found.get('format') != _FORMAT:
        version = found.get('format') if isinstance(found, dict) else None
        raise InputError(
            f'{path}: an export of format {version}, this version reads {_FORMAT}: '
            f'export the checkpoint anew'
        )
    try:
        settings = ExportSettings(
            **{
                **{name: found[name] for name in ExportSettings._fields},
                'image': ImageInput(**found['image']),
                'text': TextInput(**found['text']),
            }
        )
        expected = dict(found['files'])
        _check_types(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f'{type(error).__name__}: {error}') from error
    _check_digest(found, path)
    for name in {*GRAPHS, TOKENIZER, *expected}:
        if not (folder / name).is_file():
            raise MissingDataError(f'{folder}: lacks {name}: export the model anew')
        if Path(name).name != name:
            raise _damaged(path, f'it names a file outside of the folder, {name!r}')
        if _hash(folder / name) != expected.get(name):
            raise _damaged(folder / name, 'it is not as it was written')
    return settings


def _check_digest(found: dict[str, Any], path: Path) -> None:
    """Verify what ``export.json`` says; version 0.1 wrote no hash of it."""
    known = {'format', 'gckd_mm', 'files', _DIGEST, *ExportSettings._fields}
    unknown = sorted(found.keys() - known)
    if unknown:
        raise _damaged(path, f'it has the unknown keys {", ".join(unknown)}')
    if _DIGEST not in found:
        say_not_verifiable(str(path), 'it was written without a hash of itself')
    elif found[_DIGEST] != _digest_of(found):
        raise _damaged(path, 'it is not as it was written')


def _digest_of(described: dict[str, Any]) -> str:
    rest = {key: value for key, value in described.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_types(settings: ExportSettings) -> None:
    """Refuse values of another type or range than the named tuples say."""
    sizes = [settings.embedding_size, settings.image.height, settings.image.width]
    sizes += [settings.text.max_length, settings.text.vocab_size]
    texts = [settings.name, settings.precision, settings.fingerprint]
    texts += [settings.image.interpolation, settings.image.backend]
    numbers = [*sizes, settings.text.padding_id]
    if not all(type(number) is int for number in numbers):
        raise TypeError(f'sizes must be whole numbers, got {numbers}')
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f'names must be texts, got {texts}')
    if min(sizes) < 1 or max(sizes) > _MOST_SIZE or settings.text.padding_id < 0:
        raise ValueError(f'sizes must be from 1 to {_MOST_SIZE}, got {numbers}')


def file_hashes(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 of the files that an :class:`OnnxEncoder` reads."""
    files = [folder / TOKENIZER, *sorted(folder.glob('*.onnx*'))]
    return {path.name: _hash(path) for path in files}


def check_new(folder: str | os.PathLike[str]) -> None:
    """Refuse a file, and a folder that holds something."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f'{folder}: exists and is not empty: name a new folder')


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder that appears when all is in it, and never if something fails.

    Yields:
        A hidden folder beside it, to be filled.
    """
    check_new(folder)
    target = Path(os.path.abspath(folder))
    partial = target.with_name(f'.{target.name}.partial')
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.rmdir()
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f'{folder}: cannot be written to ({error})') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from error
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f'{path}: damaged ({reason}): export the model anew')
