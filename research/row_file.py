"""A file of rows, to which several processes may add."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock  # torch needs it too

from gckd_mm.fileio import write_atomically

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """Return the rows; none if there is no file.

    Raises:
        SystemExit: If the file holds something else.
    """
    if not path.exists():
        return []
    rows = json.loads(path.read_text())
    if not isinstance(rows, list):
        raise SystemExit(f'{path} is not a list of rows')
    return rows


@contextmanager
def changing(path: Path) -> Iterator[list[Row]]:
    """Give the rows to change, and write them afterwards; meanwhile others wait.

    Nothing is written if the block raises.

    Args:
        path: A JSON list, a row a line; it need not be there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f'.{path.name}.lock')):
        rows = read(path)
        yield rows
        lines = ',\n'.join(json.dumps(row) for row in rows)
        write_atomically(path, f'[\n{lines}\n]\n')
