"""Zip files of torch are read strictly, and their checksums verified."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.checkpoint.archive import read_entry, verify_archive
from gckd_mm.checkpoint.unverifiable import say_not_verifiable
from gckd_mm.errors import CheckpointError

STATE = {f'layer{n}.weight': torch.randn(40, 40) for n in range(3)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / 'model.pth'
    torch.save({'state_dict': STATE, 'meta': {'iter': 3}}, path)
    return path


def rewritten(
    path: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]
) -> Path:
    """Write the archive anew, with ``change`` to write each of its files."""
    out = path.with_name('changed.pth')
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, 'w') as new:
        for name in old.namelist():
            change(new, name, old.read(name))
    return out


def test_entries_are_where_zipfile_finds_them(checkpoint: Path) -> None:
    with open(checkpoint, 'rb') as file, zipfile.ZipFile(checkpoint) as expected:
        archive = verify_archive(file, 'it')
        assert archive.is_verified
        assert archive.entries.keys() == set(expected.namelist())
        for name in expected.namelist():
            assert read_entry(file, archive, name) == expected.read(name)


@pytest.mark.parametrize('force_zip64', [False, True])
def test_archives_of_other_writers_are_read(
    checkpoint: Path, force_zip64: bool
) -> None:
    def copy(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        with new.open(name, 'w', force_zip64=force_zip64) as file:
            file.write(data)

    found = read_checkpoint(rewritten(checkpoint, copy))
    assert all(torch.equal(found['state_dict'][k], v) for k, v in STATE.items())


@pytest.mark.parametrize('count', [1, 8, 64])
def test_flipped_bytes_are_refused_or_change_nothing(
    checkpoint: Path, count: int
) -> None:
    data = checkpoint.read_bytes()
    random_ = random.Random(count)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        start = random_.randrange(len(data) - count)
        for position in range(start, start + count):
            damaged[position] ^= random_.randrange(1, 256)
        checkpoint.write_bytes(damaged)
        try:
            found = read_checkpoint(checkpoint)
        except CheckpointError:
            refused += 1
            continue
        assert found['meta'] == {'iter': 3}
        assert all(torch.equal(found['state_dict'][k], v) for k, v in STATE.items())
    assert refused > 100


def test_a_flipped_bit_of_a_weight_is_named(checkpoint: Path) -> None:
    with open(checkpoint, 'rb') as file:
        entry = verify_archive(file, 'it').entries['model/data/1']
    data = bytearray(checkpoint.read_bytes())
    data[entry.start + 8] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(CheckpointError, match=r'bytes of model/data/1 .*checksum'):
        read_checkpoint(checkpoint)


def test_a_file_that_is_marked_as_a_folder_is_refused(checkpoint: Path) -> None:
    # torch's reader would hand out memory that it has not written to.
    data = bytearray(checkpoint.read_bytes())
    position = data.index(b'PK\x01\x02')
    data[position + 38] |= 0x10
    checkpoint.write_bytes(data)
    with pytest.raises(CheckpointError, match='marked as a folder'):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize('part', ['data.pkl', 'data/0', 'byteorder'])
def test_compressed_parts_are_refused(checkpoint: Path, part: str) -> None:
    def compress(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        kind = zipfile.ZIP_DEFLATED if name.endswith(part) else zipfile.ZIP_STORED
        new.writestr(name, data, compress_type=kind)

    with pytest.raises(CheckpointError, match=f'{part} is compressed'):
        read_checkpoint(rewritten(checkpoint, compress))


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / 'bomb.pth'
    with (
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as new,
        new.open('bomb/data.pkl', 'w') as file,
    ):
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(CheckpointError, match='is compressed'):
        read_checkpoint(path)


def test_code_that_is_not_read_may_be_compressed(checkpoint: Path) -> None:
    def add(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        new.writestr(name, data)
        if name.endswith('data.pkl'):
            code = f'{name.partition("/")[0]}/code/__torch__.py'
            new.writestr(code, 'pass', compress_type=zipfile.ZIP_DEFLATED)

    assert read_checkpoint(rewritten(checkpoint, add))['meta'] == {'iter': 3}


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('twin', [str, str.upper])
def test_two_files_of_one_name_are_refused(
    checkpoint: Path, twin: Callable[[str], str]
) -> None:
    def twice(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        new.writestr(name, data)
        if name.endswith('data/0'):
            new.writestr(twin(name), bytes(len(data)))

    with pytest.raises(CheckpointError, match='two files named'):
        read_checkpoint(rewritten(checkpoint, twice))


def _with_trailing_bytes(data: bytes) -> bytes:
    return data + b'more'


def _with_leading_bytes(data: bytes) -> bytes:
    return b'PK\x03\x04' + data


def _with_a_comment(data: bytes) -> bytes:
    return data[:-2] + struct.pack('<H', 4) + b'text'


def _with_the_length_of_a_comment(data: bytes) -> bytes:
    return data[:-2] + struct.pack('<H', 1)


def _with_another_count(data: bytes) -> bytes:
    return data[:-12] + struct.pack('<H', 1) + data[-10:]


def _with_a_hole(data: bytes) -> bytes:
    # Of the first entry's data the directory forgets the last byte.
    position = data.index(b'PK\x01\x02')
    sizes = struct.unpack_from('<LL', data, position + 20)
    less = struct.pack('<LL', *(size - 1 for size in sizes))
    return data[: position + 20] + less + data[position + 28 :]


def _with_another_local_name(data: bytes) -> bytes:
    return data.replace(b'model/data/0', b'model/data/9', 1)


def _with_an_overlap(data: bytes) -> bytes:
    second = data.index(b'PK\x01\x02', data.index(b'PK\x01\x02') + 1)
    return data[: second + 42] + struct.pack('<L', 0) + data[second + 46 :]


@pytest.mark.parametrize(
    'change',
    [
        _with_trailing_bytes,
        _with_leading_bytes,
        _with_a_comment,
        _with_the_length_of_a_comment,
        _with_another_count,
        _with_a_hole,
        _with_another_local_name,
        _with_an_overlap,
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: data[-22:],
        lambda data: b'PK\x03\x04',
        lambda data: b'PK\x03\x04' + data[-22:],
    ],
)
def test_what_readers_could_read_differently_is_refused(
    checkpoint: Path, change: Callable[[bytes], bytes]
) -> None:
    checkpoint.write_bytes(change(checkpoint.read_bytes()))
    with pytest.raises(CheckpointError, match=f'{checkpoint}: truncated'):
        read_checkpoint(checkpoint)


def test_a_file_without_checksums_is_read_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_not_verifiable.cache_clear()
    path = tmp_path / 'plain.pth'
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'state_dict': STATE}, path)
    finally:
        torch.serialization.set_crc32_options(True)

    for _ in range(2):
        assert read_checkpoint(path)['state_dict'].keys() == STATE.keys()

    said = [record for record in caplog.records if 'not verifiable' in record.message]
    assert len(said) == 1


def test_a_legacy_file_is_read_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    say_not_verifiable.cache_clear()
    path = tmp_path / 'old.pth'
    torch.save({'state_dict': STATE}, path, _use_new_zipfile_serialization=False)

    for _ in range(2):
        assert read_checkpoint(path)['state_dict'].keys() == STATE.keys()

    said = [record for record in caplog.records if 'not verifiable' in record.message]
    assert len(said) == 1


def test_an_archive_may_be_large_in_number() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as new:  # more than 16 bits count: zip64
        for number in range(70_000):
            new.writestr(zipfile.ZipInfo(f'a/{number}'), b'')
    assert len(verify_archive(buffer, 'it').entries) == 70_000


def test_the_zip64_record_is_the_one_that_other_readers_find() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as new:
        for number in range(70_000):
            new.writestr(zipfile.ZipInfo(f'a/{number}'), b'')
    data = bytearray(buffer.getvalue())
    struct.pack_into('<Q', data, data.rindex(b'PK\x06\x07') + 8, 17)
    with pytest.raises(CheckpointError, match='zip64 record is not where'):
        verify_archive(io.BytesIO(data), 'it')
