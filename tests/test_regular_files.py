"""Only regular files are opened."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gckd_mm.errors import InputError
from gckd_mm.regular_files import open_regular, read_regular, stat_regular


def other_files(folder: Path) -> dict[Path, str]:
    """Files of other kinds, and what an error says of them."""
    (folder / 'folder').mkdir()
    os.mkfifo(folder / 'pipe')
    (folder / 'link').symlink_to(folder / 'pipe')
    (folder / 'loop').symlink_to(folder / 'loop')
    (folder / 'nowhere').symlink_to(folder / 'none')
    return {
        folder / 'folder': 'not a regular file, but a folder',
        folder / 'pipe': 'not a regular file, but a pipe',
        folder / 'link': 'not a regular file, but a pipe',
        folder / 'loop': 'Too many levels of symbolic links',
        folder / 'nowhere': 'No such file',
        Path('/dev/zero'): 'not a regular file, but a device',
        folder / 'nul\0byte': 'null byte',
    }


@pytest.mark.parametrize(
    'opener', [stat_regular, open_regular, lambda path: read_regular(path, 10)]
)
def test_other_files_are_refused_and_named(tmp_path: Path, opener) -> None:
    for path, message in other_files(tmp_path).items():
        with pytest.raises(InputError, match=message) as error:
            opener(path)
        assert str(error.value).startswith(f'{path}: cannot be read')


def test_a_socket_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket')
        with pytest.raises(InputError, match='but a socket'):
            open_regular('socket')


def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_bytes(b'0123456789')
    (tmp_path / 'link').symlink_to(file)
    assert read_regular(tmp_path / 'link', 10) == b'0123456789'
    with pytest.raises(InputError, match='is too large'):
        read_regular(file, 9)
    with open(tmp_path / 'sparse', 'wb') as sparse:
        sparse.truncate(10**12)
    with pytest.raises(InputError, match='is too large: at most 1 MB'):
        read_regular(tmp_path / 'sparse', 10**6)


def test_a_file_that_grows_after_its_size_was_asked_is_read(tmp_path: Path) -> None:
    """As those of /proc, whose size is 0."""
    assert read_regular('/proc/self/status', 10**6).startswith(b'Name:')


def test_a_link_is_refused_where_it_must_be_none(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'0123456789')
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    assert read_regular(tmp_path / 'file', 10, follow_link=False) == b'0123456789'
    for read in (open_regular, lambda path, follow: read_regular(path, 10, follow)):
        with pytest.raises(InputError, match='cannot be read'):
            read(tmp_path / 'link', False)
