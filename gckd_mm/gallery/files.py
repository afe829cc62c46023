"""Which files a gallery is built from."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.gallery.items import Stamp, Value, checked_fields, value_of

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm')


class ImageFile(NamedTuple):
    """A file that is to be in a gallery.

    Attributes:
        path: What the gallery calls it: see :class:`Item`. That of a folder, which can
            only have a ``problem``, ends in ``/``.
        file: Where it lies.
        fields: What else is known of it. With None, nothing is said of that: what the
            gallery knows stays.
        problem: Why it cannot be read, if that is known already.
    """

    path: str
    file: str
    fields: Mapping[str, Value] | None = None
    problem: str = ''

    def stamp(self) -> Stamp:
        """Return the stamp of the file as it is now.

        Raises:
            InputError: If it is gone, or has a problem.
        """
        if self.problem:
            raise InputError(self.problem)
        try:
            found = os.stat(self.file)
        except OSError as error:
            raise InputError(
                f'{self.file}: cannot be read ({error.strerror})'
            ) from error
        return Stamp(found.st_size, found.st_mtime_ns)


def find_images(
    root: str | os.PathLike[str],
    fields: Mapping[str, Mapping[str, Value]] | None = None,
) -> list[ImageFile]:
    """Find the pictures below a folder, by their suffixes; hidden ones are left out.

    Args:
        root: The folder. Links to folders are not followed.
        fields: Path below the root -> fields: see :func:`read_fields`. Pictures that it
            does not name have none. Defaults to None: nothing is said of them.

    Returns:
        In the order of their paths, and then the folders that cannot be listed.

    Raises:
        InputError: If it is no folder, or holds no pictures, or ``fields`` names none
            of them.
    """
    root = os.fspath(root)
    if not os.path.isdir(root):
        raise MissingDataError(f'{root} is no folder')
    found, others = [], 0
    closed: list[OSError] = []
    for file in _walk(root, closed.append):
        if not file.lower().endswith(SUFFIXES):
            others += 1
            continue
        path = _below(root, file)
        found.append(ImageFile(path, file, _fields_of(path, fields)))
    if not found and closed:
        raise InputError(
            f'{closed[0].filename}: cannot be listed ({closed[0].strerror}), and '
            f'nothing else holds pictures'
        )
    if not found:
        raise InputError(
            f'{root}: holds no pictures ({others} other files): they are known by '
            f'{" ".join(SUFFIXES)}'
        )
    _check_used(fields, {image.path for image in found}, root)
    for error in closed:
        problem = f'{error.filename}: cannot be listed ({error.strerror})'
        path = f'{_below(root, error.filename)}/'
        found.append(ImageFile(path, error.filename, None, problem))
    return found


def images_of_dataset(dataset: Any) -> list[ImageFile]:
    """Return the pictures of a dataset of ours that shows images, with person ids.

    Args:
        dataset: With ``view='images'``; its items have ``img_path``, and ``pid`` if
            they are labelled.
    """
    images = []
    for row in range(len(dataset)):
        info = dataset.get_data_info(row)
        file = os.path.abspath(info['img_path'])
        fields = {'pid': int(info['pid'])} if 'pid' in info else {}
        images.append(ImageFile(file, file, fields))
    return images


def images_at(
    paths: Iterable[str],
    root: str | os.PathLike[str],
    fields: Mapping[str, Mapping[str, Value]] | None = None,
) -> list[ImageFile]:
    """Return pictures of a folder by their paths, each once.

    Args:
        paths: Below the folder, or absolute and inside it.
        root: The folder.
        fields: See :func:`find_images`.

    Raises:
        InputError: If one lies outside it, or ``fields`` names none of them.
    """
    root = os.path.abspath(root)
    images = {}
    for name in paths:
        file = os.path.normpath(os.path.join(root, name))
        path = _below(root, file)
        if path.split('/')[0] == '..':
            raise InputError(f'{name}: lies outside of {root}')
        images[path] = ImageFile(path, file, _fields_of(path, fields))
    _check_used(fields, images, root)
    return list(images.values())


def read_fields(file: str | os.PathLike[str]) -> dict[str, dict[str, Value]]:
    """Read what is known of pictures: camera, time, or whatever one searches by.

    Args:
        file: ``.csv`` with a line of names, or ``.jsonl`` with a JSON object a line;
            ``path`` is that of the picture, below the gallery's folder.

    Returns:
        Path -> fields.

    Raises:
        InputError: If the file cannot be read, or a line is not as described.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{file}: cannot be read ({error})') from error
    fields: dict[str, dict[str, Value]] = {}
    for number, record in _records(file, text):
        where = f'{file}, line {number}'
        path = record.pop('path', None)
        if not isinstance(path, str) or not path:
            raise InputError(f'{where}: has no path')
        if path in fields:
            raise InputError(f'{where}: {path} has been there before')
        fields[path] = checked_fields(record, where)
    return fields


def _below(root: str, file: str) -> str:
    return os.path.relpath(file, root).replace(os.sep, '/')


def _fields_of(
    path: str, fields: Mapping[str, Mapping[str, Value]] | None
) -> Mapping[str, Value] | None:
    return None if fields is None else fields.get(path, {})


def _check_used(fields: Iterable[str] | None, paths: Container[str], root: str) -> None:
    """Refuse fields of nothing but other paths: those of some may be gone."""
    named = list(fields or ())
    if named and not any(path in paths for path in named):
        raise InputError(
            f'{root}: has no picture {named[0]!r}, and none of the {len(named)} that '
            f'there are fields of: paths are those below this folder'
        )


def _records(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix == '.csv':
        rows = csv.DictReader(text.splitlines())
        for row in rows:
            if None in row or None in row.values():
                raise InputError(
                    f'{file}, line {rows.line_num}: has {len(row)} cells or so, and '
                    f'the first line {len(rows.fieldnames or [])}'
                )
            yield rows.line_num, {k: _cell(k, v) for k, v in row.items()}
        return
    if file.suffix != '.jsonl':
        raise InputError(f'{file}: must be .csv or .jsonl')
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f'{file}, line {number}: no JSON ({error})') from error
        if not isinstance(record, dict):
            raise InputError(f'{file}, line {number}: must be a JSON object')
        yield number, record


def _cell(name: str, text: str) -> Value:
    """Return what a cell of CSV stands for."""
    return text if name in ('path', 'camera') else value_of(text)


def _walk(root: str, onerror: Callable[[OSError], None]) -> Iterator[str]:
    for folder, folders, files in os.walk(root, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if not name.startswith('.'):
                yield os.path.join(folder, name)
