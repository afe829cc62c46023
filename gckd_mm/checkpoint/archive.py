"""Verify the zip files that torch writes: torch's own reader checks no CRC-32."""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, NoReturn

from gckd_mm.errors import CheckpointError

_MAGIC = b'PK\x03\x04'
_LOCAL = struct.Struct('<4s5H3L2H')
_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')
_END_64 = struct.Struct('<4sQ2H2L4Q')
_DESCRIPTOR = b'PK\x07\x08'
_CENTRAL_SIZE = 46
#: what stands in 16 and 32 bits for a number that lies elsewhere
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _WITH_DESCRIPTOR, _UTF_8 = 1, 8, 0x800
_FOLDER = 0x10
#: folders of a TorchScript archive that torch compresses, and that are not read
_UNREAD = ('code/', 'extra/')
_CHUNK = 1 << 20
_THREADS = 8


class Entry(NamedTuple):
    """A file in an archive."""

    start: int  # where its bytes begin in the archive
    size: int
    crc: int  # the CRC-32 that the archive states
    is_compressed: bool  # such a file is not read


class Archive(NamedTuple):
    """A zip file whose structure, and the CRC-32 of all that is read, were checked."""

    entries: dict[str, Entry]
    is_verified: bool  # False if written without, by `set_crc32_options(False)`


def is_archive(file: BinaryIO) -> bool:
    """Return whether a file begins as a zip file, which is torch's own criterion."""
    file.seek(0)
    return file.read(len(_MAGIC)) == _MAGIC


def verify_archive(file: BinaryIO, where: str) -> Archive:
    """Read a zip file strictly, and compare every CRC-32 with the bytes.

    Every byte of the file must belong to exactly one entry, the directory or the
    closing record, and the directory must agree with the entries. Other readers, which
    search for what they understand, then find the same bytes as this one. What is read
    is not compressed, so nothing unpacks to more than the file's own size.
    """
    try:
        entries = _read_entries(file)
    except _FAILURES as error:
        raise _damaged(where, str(error)) from error
    has_checksums = any(entry.crc for entry in entries.values() if entry.size)
    if has_checksums:
        damaged = _first_damaged(file, entries)
        if damaged is not None:
            raise _damaged(
                where, f'the bytes of {damaged} do not have the checksum stored'
            )
    return Archive(entries, has_checksums)


def read_entry(file: BinaryIO, archive: Archive, name: str) -> bytes:
    """Return the bytes of a file in a verified archive."""
    entry = archive.entries[name]
    file.seek(entry.start)
    return file.read(entry.size)


class _DamagedError(Exception):
    """What is wrong with the structure."""


#: what zipfile raises of a damaged directory
_FAILURES = (
    _DamagedError,
    NotImplementedError,
    OSError,
    OverflowError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


def _damaged(where: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f'{where}: truncated, damaged or not a checkpoint of torch ({reason}): copy or '
        f'download it again, or use another checkpoint'
    )


def _refuse(reason: str) -> NoReturn:
    raise _DamagedError(reason)


def _read_entries(file: BinaryIO) -> dict[str, Entry]:
    with zipfile.ZipFile(file) as directory:
        listed = sorted(directory.infolist(), key=lambda info: info.header_offset)
        start = directory.start_dir
    if not listed:
        _refuse('holds no files')
    _check_end(file, listed, start)
    entries: dict[str, Entry] = {}
    folded: set[str] = set()
    position = 0
    for info, end in zip(
        listed, [*(info.header_offset for info in listed[1:]), start], strict=True
    ):
        name = info.orig_filename
        if info.header_offset != position:
            _refuse(f'{name} overlaps another file, or bytes belong to none')
        # torch's reader does not tell upper case from lower case
        if name.lower() in folded:
            _refuse(f'holds two files named {name}')
        folded.add(name.lower())
        entries[name] = _check_local(file, info, end)
        position = end
    if position != start:
        _refuse('bytes belong to no file')
    return entries


def _check_end(file: BinaryIO, listed: list[zipfile.ZipInfo], start: int) -> None:
    """Check that the directory is where other readers than zipfile look for it."""
    size = file.seek(0, os.SEEK_END)
    length = sum(
        _CENTRAL_SIZE + len(_raw_name(info)) + len(info.extra) + len(info.comment)
        for info in listed
    )
    position = start + length
    end = _END.unpack(_read(file, size - _END.size, _END.size))
    if position + _END.size == size:
        found = end[1:7]
    elif position + _END_64.size + _LOCATOR.size + _END.size == size:
        record = _END_64.unpack(_read(file, position, _END_64.size))
        locator = _LOCATOR.unpack(_read(file, position + _END_64.size, _LOCATOR.size))
        if (record[0], *locator[::2]) != (b'PK\x06\x06', b'PK\x06\x07', position):
            _refuse('the zip64 record is not where it is said to be')
        found = record[4:10]
        pairs = zip(end[1:7], found, strict=True)
        if any(a != b and a not in (_MOST_16, _MOST_32) for a, b in pairs):
            _refuse('the zip64 record disagrees with the end of the zip file')
    else:
        _refuse('bytes follow the directory of the zip file')
    expected = (0, 0, len(listed), len(listed), length, start)
    if (end[0], end[7]) != (b'PK\x05\x06', 0) or found != expected:
        _refuse('the directory of the zip file is not where it is said to be')


def _check_local(file: BinaryIO, info: zipfile.ZipInfo, end: int) -> Entry:
    """Compare an entry with the directory; it must end where the next one begins."""
    name = info.orig_filename
    header = _LOCAL.unpack(_read(file, info.header_offset, _LOCAL.size))
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
    start = info.header_offset + _LOCAL.size + name_length + extra_length
    raw_name = _read(file, info.header_offset + _LOCAL.size, name_length)
    if (
        mark != _MAGIC
        or (flags, method) != (info.flag_bits, info.compress_type)
        or raw_name != _raw_name(info)
    ):
        _refuse(f'the directory and the entry of {name} disagree')
    # torch reads nothing where it sees a folder, and leaves memory as it was
    if name.endswith('/') or info.external_attr & _FOLDER:
        _refuse(f'{name} is marked as a folder')
    if flags & _ENCRYPTED or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _refuse(f'{name} is encrypted or packed in an unknown way')
    is_compressed = method != zipfile.ZIP_STORED
    if not is_compressed and info.file_size != info.compress_size:
        _refuse(f'{name} is not compressed, and has two sizes')
    if is_compressed and not name.partition('/')[2].startswith(_UNREAD):
        _refuse(f'{name} is compressed, which torch.save never does')
    rest = end - start - info.compress_size
    if flags & _WITH_DESCRIPTOR:
        if rest not in (12, 16, 20, 24):
            _refuse(f'{name} overlaps another file, or bytes belong to none')
        _check_descriptor(_read(file, end - rest, rest), info)
    else:
        sizes = (size, info.file_size), (packed, info.compress_size)
        if rest or crc != info.CRC or any(a not in (b, _MOST_32) for a, b in sizes):
            _refuse(f'the directory and the entry of {name} disagree')
    return Entry(start, info.file_size, info.CRC, is_compressed)


def _check_descriptor(descriptor: bytes, info: zipfile.ZipInfo) -> None:
    with_mark = len(descriptor) in (16, 24)
    values = descriptor.removeprefix(_DESCRIPTOR) if with_mark else descriptor
    kind = '<LQQ' if len(values) == 20 else '<LLL'
    if struct.unpack(kind, values) != (info.CRC, info.compress_size, info.file_size):
        _refuse(f'what follows {info.orig_filename} disagrees with the directory')


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode('utf-8' if info.flag_bits & _UTF_8 else 'cp437')


def _first_damaged(file: BinaryIO, entries: dict[str, Entry]) -> str | None:
    """Return the first name whose bytes have another CRC-32 than the archive states."""
    read = [(name, one) for name, one in entries.items() if not one.is_compressed]
    lock = threading.Lock()

    def is_whole(named: tuple[str, Entry]) -> bool:
        return _crc32(file, named[1], lock) == named[1].crc

    # zlib works outside of Python's global lock.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        for (name, _), whole in zip(read, threads.map(is_whole, read), strict=True):
            if not whole:
                threads.shutdown(wait=False, cancel_futures=True)
                return name
    return None


def _crc32(file: BinaryIO, entry: Entry, lock: threading.Lock) -> int:
    buffer = memoryview(bytearray(min(_CHUNK, entry.size)))
    crc, position, end = 0, entry.start, entry.start + entry.size
    while position < end:
        with lock:
            file.seek(position)
            part = buffer[: min(end - position, len(buffer))]
            count = file.readinto(part)  # type: ignore[attr-defined]
        if not count:
            break
        crc = zlib.crc32(part[:count], crc)
        position += count
    return crc


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    data = file.read(length)
    if len(data) != length:
        _refuse('cut off')
    return data
