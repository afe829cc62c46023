"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from gckd_mm.fileio import write_atomically


def test_writes_bytes_and_text_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'file.txt'
    write_atomically(path, 'grün')
    assert path.read_bytes() == 'grün'.encode()
    write_atomically(path, b'\x00\x01')
    assert path.read_bytes() == b'\x00\x01'
    assert os.listdir(path.parent) == ['file.txt']


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'file.txt'
    write_atomically(path, 'old')

    def fail(*args: object) -> None:
        raise OSError('disk full')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomically(path, 'new')
    assert path.read_text() == 'old'


def test_the_backend_of_mmengine_writes_atomically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = []
    replace = os.replace
    monkeypatch.setattr(
        os, 'replace', lambda a, b: (renamed.append(Path(b)), replace(a, b))
    )
    backend = get_file_backend(backend_args={'backend': 'atomic'})
    backend.put(b'bytes', tmp_path / 'a')
    backend.put_text('text', tmp_path / 'b')
    assert renamed == [tmp_path / 'a', tmp_path / 'b']
    assert (tmp_path / 'b').read_text() == 'text'
