"""Which files a gallery is built from."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.regular_files import read_regular, stat_regular
from gckd_mm.search.gallery.items import (
    Stamp,
    Value,
    check_encodable,
    checked_fields,
    shortened,
    value_of,
)

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm')
#: of a list, or of a file of fields: a million images take some 100 MB
_MAX_TABLE = 4_000_000_000
_UTF16 = (b'\xff\xfe', b'\xfe\xff')


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
        """Return the stamp of the file as it is, if it can be read."""
        if self.problem:
            raise InputError(self.problem)
        found = stat_regular(self.file)
        return Stamp(found.st_size, found.st_mtime_ns)


class FolderScan(NamedTuple):
    """The images of a folder; and suffix -> number of files that are none by it."""

    images: list[ImageFile]
    passed_over: dict[str, int]


def find_images(
    root: str | os.PathLike[str],
    fields: Mapping[str, Mapping[str, Value]] | None = None,
) -> list[ImageFile]:
    """Find the images below a folder, by suffix; hidden ones are left out.

    Args:
        root: The folder. Links to folders are not followed.
        fields: Path below the root -> fields: see :func:`read_fields`. Images that it
            does not name have none. Defaults to None: nothing is said of them.

    Returns:
        In the order of their paths, and then the folders that cannot be listed.

    Raises:
        InputError: If it is no folder, or holds no images, or ``fields`` names none
            of them.
    """
    return scan_folder(root, fields).images


def scan_folder(
    root: str | os.PathLike[str],
    fields: Mapping[str, Mapping[str, Value]] | None = None,
) -> FolderScan:
    """Find the images below a folder as :func:`find_images` does; count other files."""
    root = os.fspath(root)
    if not os.path.isdir(root):
        raise MissingDataError(f'{root} is no folder')
    found = []
    others: Counter[str] = Counter()
    closed: list[OSError] = []
    for file in _walk(root, closed.append):
        if not file.lower().endswith(SUFFIXES):
            others[os.path.splitext(file)[1].lower()] += 1
            continue
        path = _below(root, file)
        found.append(ImageFile(path, file, _fields_of(path, fields)))
    if not found and closed:
        raise InputError(
            f'{closed[0].filename}: cannot be listed ({closed[0].strerror}), and '
            f'nothing else holds pictures'
        )
    if not found:
        named = f', {named_suffixes(others)}' if others else ''
        raise InputError(
            f'{root}: holds no pictures ({others.total()} other files){named}: they '
            f'are known by {" ".join(SUFFIXES)}'
        )
    _check_used(fields, {image.path for image in found}, root)
    for error in closed:
        problem = f'{error.filename}: cannot be listed ({error.strerror})'
        path = f'{_below(root, error.filename)}/'
        found.append(ImageFile(path, error.filename, None, problem))
    return FolderScan(found, dict(others.most_common()))


def named_suffixes(passed_over: Mapping[str, int]) -> str:
    """Return numbers of files for people: ``2 .heic, 1 .mp4``."""
    return ', '.join(
        f'{count} {shortened(suffix)[1:-1] if suffix else "without a suffix"}'
        for suffix, count in passed_over.items()
    )


def images_of_dataset(dataset: Any) -> list[ImageFile]:
    """Return the images of a dataset with ``view='images'``, with known person ids."""
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
    """Return images of a folder by their paths, below or inside of it, each once."""
    root = os.path.abspath(root)
    if isinstance(paths, str):
        raise InputError('paths must be a list of paths, got a single one')
    images = {}
    for name in paths:
        if '\0' in name:
            raise InputError(f'{shortened(name)}: holds a NUL character')
        file = os.path.normpath(os.path.join(root, name))
        path = _below(root, file)
        if path.split('/')[0] == '..':
            raise InputError(f'{name}: lies outside of {root}')
        images[path] = ImageFile(path, file, _fields_of(path, fields))
    _check_used(fields, images, root)
    return list(images.values())


def read_fields(file: str | os.PathLike[str]) -> dict[str, dict[str, Value]]:
    """Read what is known of images: camera, time, or whatever one searches by.

    Args:
        file: ``.csv`` with a line of names, or ``.jsonl`` with a JSON object a line;
            ``path`` is that of the image, below the gallery's folder.

    Returns:
        Path -> fields.

    Raises:
        InputError: If the file cannot be read, or a line is not as described.
    """
    file = Path(file)
    if file.suffix.lower() not in _READERS:
        raise InputError(f'{file}: must be .csv or .jsonl')
    fields: dict[str, dict[str, Value]] = {}
    for number, record in _READERS[file.suffix.lower()](file, _text_of(file)):
        where = f'{file}, line {number}'
        path = record.pop('path', None)
        if not isinstance(path, str) or not path:
            raise InputError(
                f'{where}: has no path, which says whose fields these are; got '
                f'{shortened(", ".join(map(str, record)))}'
            )
        check_encodable(path, f'{where}: path')
        if path in fields:
            raise InputError(f'{where}: {path} has been there before')
        fields[path] = checked_fields(record, where)
    if not fields:
        raise InputError(f'{file}: has fields of no picture')
    return fields


def read_list(file: str | os.PathLike[str]) -> list[str]:
    """Read paths of images, one a line; empty lines are left out."""
    lines = _text_of(Path(file)).split('\n')
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f'{file}: is empty')
    return names


def _text_of(file: Path) -> str:
    """Read a file of text, in UTF-8 with or without a byte order mark."""
    data = read_regular(file, _MAX_TABLE)
    if data.startswith(_UTF16):
        raise InputError(f'{file}: cannot be read (it is UTF-16): save it as UTF-8')
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        number = data.count(b'\n', 0, error.start) + 1
        raise InputError(
            f'{file}, line {number}: cannot be read (it is not UTF-8: '
            f'{error.reason}): save it as UTF-8'
        ) from error
    if '\0' in text:
        number = text.count('\n', 0, text.index('\0')) + 1
        raise InputError(
            f'{file}, line {number}: holds a NUL character: is it UTF-16, or no text? '
            f'Save it as UTF-8'
        )
    return text


def _below(root: str, file: str) -> str:
    return os.path.relpath(file, root).replace(os.sep, '/')


def _fields_of(
    path: str, fields: Mapping[str, Mapping[str, Value]] | None
) -> Mapping[str, Value] | None:
    return None if fields is None else checked_fields(fields.get(path, {}), path)


def _check_used(fields: Iterable[str] | None, paths: Container[str], root: str) -> None:
    """Refuse fields of nothing but other paths: those of some may be gone."""
    named = list(fields or ())
    if named and not any(path in paths for path in named):
        raise InputError(
            f'{root}: has no picture {named[0]!r}, and none of the {len(named)} that '
            f'there are fields of: paths are those below this folder'
        )


def _csv_records(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # not splitlines(): a cell in quotes may have lines, and other line ends
    rows = csv.DictReader(io.StringIO(text, newline=''), strict=True)
    try:
        _check_columns(file, rows.fieldnames or [])
        for row in rows:
            if None in row or None in row.values():
                raise InputError(
                    f'{file}, line {rows.line_num}: has {_num_cells(row)} cells, and '
                    f'the first line {len(rows.fieldnames or [])}'
                )
            yield rows.line_num, {k: _cell(k, v) for k, v in row.items()}
    except csv.Error as error:
        # also that of a quote that is never closed: it is found at the end
        raise InputError(
            f'{file}, line {rows.line_num}: no CSV ({error}): are all quotes closed?'
        ) from error


def _check_columns(file: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f'{file}, line 1: has two columns of the name {shortened(twice[0])}'
        )
    if len(names) == 1 and any(mark in names[0] for mark in ';\t|'):
        raise InputError(
            f'{file}, line 1: has one column, {shortened(names[0])}: cells are '
            f'separated by commas'
        )


def _num_cells(row: Mapping[Any, Any]) -> int:
    missing = sum(value is None for value in row.values())
    return len(row) - missing + max(0, len(row.get(None) or []) - 1)


def _json_records(file: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split('\n'), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_without_twins)
        except (ValueError, RecursionError) as error:
            raise InputError(f'{file}, line {number}: no JSON ({error})') from error
        if not isinstance(record, dict):
            raise InputError(f'{file}, line {number}: must be a JSON object')
        yield number, record


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = [name for name, n in Counter(k for k, _ in pairs).items() if n > 1]
        raise ValueError(f'{shortened(twice[0])} is there twice')
    return record


_READERS = {'.csv': _csv_records, '.jsonl': _json_records}


def _cell(name: str, text: str) -> Value:
    """Return what a cell of CSV stands for."""
    return text if name in ('path', 'camera') else value_of(text)


def _walk(root: str, onerror: Callable[[OSError], None]) -> Iterator[str]:
    for folder, folders, files in os.walk(root, onerror=onerror):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            if not name.startswith('.'):
                yield os.path.join(folder, name)
