"""An export appears whole or not at all, and what is damaged is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gckd_mm
from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.errors import InputError
from gckd_mm.search.apis.export_folder import (
    ExportSettings,
    ImageInput,
    TextInput,
    new_folder,
    read_settings,
    write_settings,
)

SETTINGS = ExportSettings(
    name='small',
    precision='float32',
    fingerprint='0123456789abcdef',
    embedding_size=8,
    image=ImageInput(64, 32, 'area', 'cv2'),
    text=TextInput(max_length=77, padding_id=3, vocab_size=100),
)
FILES = ('image.onnx', 'text.onnx', 'text.onnx.data', 'tokenizer.json')


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / 'export'
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(f'this is {name}')
    write_settings(folder, SETTINGS)
    return folder


def test_what_is_written_is_read(export: Path) -> None:
    assert read_settings(export) == SETTINGS
    found = json.loads((export / 'export.json').read_text())
    assert len(found.pop('sha256')) == 64
    assert found == {
        'format': 1,
        'gckd_mm': gckd_mm.__version__,
        'name': 'small',
        'precision': 'float32',
        'fingerprint': '0123456789abcdef',
        'embedding_size': 8,
        'image': {'height': 64, 'width': 32, 'interpolation': 'area', 'backend': 'cv2'},
        'text': {'max_length': 77, 'padding_id': 3, 'vocab_size': 100},
        'files': {
            name: hashlib.sha256(f'this is {name}'.encode()).hexdigest()
            for name in FILES
        },
    }


def test_other_files_beside_it_do_not_matter(export: Path) -> None:
    (export / 'README.md').write_text('notes')
    assert read_settings(export) == SETTINGS


def without(key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = json.loads((folder / 'export.json').read_text())
        found.pop(key)
        (folder / 'export.json').write_text(json.dumps(found))

    return damage


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (gone('export.json'), r'is no exported model \(it has no export\.json\)'),
        (text('export.json', '{"format": 1'), r'export\.json: damaged'),
        (text('export.json', '\x00'), r'export\.json: damaged'),
        (text('export.json', '[]'), 'an export of format None, this version reads 1'),
        (text('export.json', '{"format": 2}'), 'of format 2, this version reads 1'),
        (without('fingerprint'), r"damaged \(KeyError: 'fingerprint'\)"),
        (without('image'), r"damaged \(KeyError: 'image'\)"),
        (without('files'), r"damaged \(KeyError: 'files'\)"),
        (gone('image.onnx'), r'lacks image\.onnx: export the model anew'),
        (gone('text.onnx.data'), r'lacks text\.onnx\.data'),
        (gone('tokenizer.json'), r'lacks tokenizer\.json'),
        (text('text.onnx', 'this is tExt.onnx'), r'text\.onnx: damaged'),
        (text('tokenizer.json', 'short'), r'tokenizer\.json: damaged'),
    ],
)
def test_damage_is_noticed(
    export: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(export)
    with pytest.raises(InputError, match=message):
        read_settings(export)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('"name": "small"', '"name": "smell"'),
        ('0123456789abcdef', '0123456789abcdee'),
        ('"height": 64', '"height": 65'),
        ('"area"', '"cubic"'),
        ('"padding_id": 3', '"padding_id": 2'),
        ('"sha256"', '"sha257"'),
    ],
)
def test_a_changed_setting_is_noticed(export: Path, old: str, new: str) -> None:
    path = export / 'export.json'
    found = path.read_text()
    assert old in found
    path.write_text(found.replace(old, new))
    with pytest.raises(InputError, match=r'json: damaged .*(as it was|unknown)'):
        read_settings(export)


def test_an_export_of_version_0_1_is_not_verifiable(
    export: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_not_verifiable.cache_clear()
    without('sha256')(export)
    for _ in range(2):
        assert read_settings(export) == SETTINGS
    assert [x.message for x in caplog.records if 'not verifiable' in x.message] == [
        f'{export}/export.json: not verifiable: it was written without a hash of '
        'itself. '
        'Damaged numbers would not be noticed'
    ]


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('embedding_size', 'x'),
        ('embedding_size', 0),
        ('fingerprint', 3),
        ('image', dict(height=1.5, width=1, interpolation='area', backend='cv2')),
        ('image', dict(height=1 << 40, width=1, interpolation='area', backend='cv2')),
        ('image', [1]),
        ('text', dict(max_length=7, padding_id=-1, vocab_size=3)),
        ('files', {'../x': 'y', **dict.fromkeys(FILES, 'z')}),
        ('files', [1]),
    ],
)
def test_values_of_other_kinds_are_refused(export: Path, key: str, value: Any) -> None:
    path = export / 'export.json'
    without('sha256')(export)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError):
        read_settings(export)


def test_a_fifo_is_no_export(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'export.json')
    with pytest.raises(InputError, match='is no exported model'):
        read_settings(tmp_path)


def test_a_folder_is_there_when_all_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / 'deep' / 'export'
    for _ in range(2):
        with new_folder(target) as partial:
            (partial / 'a').write_text('a')
            assert not target.exists() or not any(target.iterdir())
        assert [path.name for path in target.iterdir()] == ['a']
        assert list(target.parent.iterdir()) == [target]
        (target / 'a').unlink()  # an empty folder is taken, too


@pytest.mark.parametrize('error', [InputError('bad'), KeyboardInterrupt()])
def test_a_folder_that_is_not_finished_is_not_there(
    tmp_path: Path, error: BaseException
) -> None:
    def fill() -> None:
        with new_folder(tmp_path / 'export') as partial:
            (partial / 'a').write_text('a')
            raise error

    with pytest.raises(type(error)):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_has_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / '.export.partial').mkdir()
    (tmp_path / '.export.partial' / 'old').write_text('old')
    with new_folder(tmp_path / 'export') as partial:
        (partial / 'new').write_text('new')
    assert [path.name for path in (tmp_path / 'export').iterdir()] == ['new']


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'mine').write_text('mine')
    (tmp_path / 'file').write_text('mine')
    for name in ('full', 'file'):
        with (
            pytest.raises(InputError, match=f'{name}: exists and is not empty'),
            new_folder(tmp_path / name),
        ):
            pytest.fail('nothing may be written')
    assert (tmp_path / 'full' / 'mine').read_text() == 'mine'


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('mine')
    with (
        pytest.raises(InputError, match='cannot be written to'),
        new_folder(tmp_path / 'file' / 'export'),
    ):
        pytest.fail('nothing may be written')
