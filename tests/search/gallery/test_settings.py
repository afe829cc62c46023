"""``gallery.json``, and what others make of it."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.search.gallery.damage import DamagedGalleryError
from gckd_mm.search.gallery.settings import FILE, is_there, read_settings, text_of

SETTINGS: dict[str, Any] = {
    'format': 2,
    'model': 'fake',
    'source': ['checkpoint.pth', None],
    'fingerprint': 'f00',
    'embedding_size': 8,
    'root': '/crops',
    'index': 'auto',
    'engine': 'embedded',
    'gckd_mm': '0.1.0',
}


def write(folder: Path, **changes: Any) -> None:
    """Write settings of 0.1, which have no checksum."""
    settings = {**SETTINGS, 'format': 1, **changes}
    known = {name: x for name, x in settings.items() if x is not ...}
    (folder / FILE).write_text(json.dumps(known))


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text_of(SETTINGS))
    assert read_settings(tmp_path) == SETTINGS
    write(tmp_path)
    assert read_settings(tmp_path) == {**SETTINGS, 'format': 1}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model': ...}, "it has no 'model'"),
        ({'fingerprint': 7}, "'fingerprint' must be a text, got 7"),
        ({'source': 'x.pth'}, "'source' must be null, or a model"),
        ({'source': [1, None]}, "'source' must be"),
        ({'source': ['x.pth']}, "'source' must be"),
        ({'root': ['/crops']}, "'root' must be a folder or null"),
        ({'embedding_size': 0}, "'embedding_size' must be a whole number"),
        ({'embedding_size': 10**12}, "'embedding_size' must be"),
        ({'embedding_size': True}, "'embedding_size' must be"),
        ({'embedding_size': '8'}, "'embedding_size' must be"),
        ({'index': {}}, "'index' must be one of auto, exact"),
        ({'engine': []}, "'engine' must be one of embedded, milvus"),
        ({'engine': 'milvus'}, "it has no 'uri'"),
        ({'engine': 'milvus', 'uri': 'x.db', 'collection': 3}, "'collection' must be"),
        ({'format': '1'}, "a gallery of format '1'"),
        ({'format': 3}, 'a gallery of format 3'),
        ({'format': ...}, 'a gallery of format None'),
        ({'format': 2}, 'edited or damaged'),
    ],
)
def test_keys_that_are_wrong(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    'data',
    [
        b'[1, 2]',
        b'null',
        b'"text"',
        b'',
        b'{',
        b'\xff\xfe{}',
        b'[' * 100_000,
        b'{"format": ' + b'1' * 6000 + b'}',
        b' ' * (1 << 21),
    ],
)
def test_what_is_no_description(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(DamagedGalleryError, match=r'damaged .*new gallery'):
        read_settings(tmp_path)


@pytest.mark.parametrize('name', sorted(set(SETTINGS) - {'source', 'format'}))
def test_an_edit_is_noticed(tmp_path: Path, name: str) -> None:
    known = json.loads(text_of(SETTINGS))
    known[name] = {'root': '/other', 'embedding_size': 9}.get(name, f'{known[name]}x')
    (tmp_path / FILE).write_text(json.dumps(known))
    with pytest.raises(DamagedGalleryError, match='edited or damaged'):
        read_settings(tmp_path)


def test_the_place_of_the_model_may_be_edited(tmp_path: Path) -> None:
    known = json.loads(text_of(SETTINGS))
    known['source'] = ['/moved/checkpoint.pth', None]
    (tmp_path / FILE).write_text(json.dumps(known))
    assert read_settings(tmp_path)['source'] == known['source']


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    rng = random.Random(0)
    text = text_of(SETTINGS).encode()
    for _ in range(500):
        data = bytearray(text)
        data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / FILE).write_bytes(data)
        try:
            found = read_settings(tmp_path)
        except InputError:
            continue
        # only where the model lies may differ: its fingerprint is compared
        assert {**found, 'source': None} == {**SETTINGS, 'source': None}


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert not is_there(tmp_path)
    with pytest.raises(InputError, match='not a regular file'):
        read_settings(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(InputError, match='not a regular file'):
        read_settings(tmp_path)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for folder in (tmp_path, tmp_path / 'none', tmp_path / 'file'):
        assert not is_there(folder)
        with pytest.raises(MissingDataError, match='is no gallery'):
            read_settings(folder)


def test_a_folder_without_the_permission_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the superuser, whom tests may run as, may read whatever a mode says
    def refuse(path: Any, **options: Any) -> Any:
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(os, 'stat', refuse)
    with pytest.raises(InputError, match=r'cannot be read \(Permission denied\)'):
        is_there(tmp_path)
    with pytest.raises(InputError, match=r'cannot be read \(Permission denied\)'):
        read_settings(tmp_path)
