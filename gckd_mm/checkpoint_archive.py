"""Verify the zip files that torch writes: torch's own reader checks no CRC-32."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, NoReturn

from gckd_mm.errors import CheckpointError

_MAGIC = b'PK\x03\x04'
_LOCAL = struct.Struct('<4s5H3L2H')
_CENTRAL = struct.Struct('<4s6H3L5H2L')
_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')
_END_64 = struct.Struct('<4sQ2H2L4Q')
_DESCRIPTOR = b'PK\x07\x08'
#: what stands in 16 and 32 bits for a number that the zip64 record holds
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _WITH_DESCRIPTOR = 1, 8
_STORED, _DEFLATED = 0, 8
_FOLDER = 0x10
#: folders of a TorchScript archive that torch compresses, and that are not read
_UNREAD = ('code/', 'extra/')
_CHUNK = 1 << 20
_THREADS = 8


class Entry(NamedTuple):
    """A file in an archive.

    Attributes:
        start: Where its bytes begin in the archive.
        size: How many there are.
        crc: The CRC-32 that the archive states.
        is_compressed: Whether they are compressed; such a file is not read.
    """

    start: int
    size: int
    crc: int
    is_compressed: bool


class Archive(NamedTuple):
    """A zip file whose structure, and the CRC-32 of all that is read, were checked.

    Attributes:
        entries: Name -> where its bytes lie.
        is_verified: False if it was written without checksums
            (``torch.serialization.set_crc32_options(False)``).
    """

    entries: dict[str, Entry]
    is_verified: bool


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

    Args:
        file: Open for reading, and seekable.
        where: The file, for messages.

    Raises:
        CheckpointError: If the file is damaged, ambiguous, encrypted or compressed.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        start, end, count = _directory_of(file, size)
        entries = _read_entries(file, start, end, count)
    except (_DamagedError, struct.error) as error:
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
    """Return the bytes of a file in a verified archive.

    Raises:
        KeyError: If there is none of this name.
    """
    entry = archive.entries[name]
    file.seek(entry.start)
    return file.read(entry.size)


class _DamagedError(Exception):
    """What is wrong with the structure."""


def _damaged(where: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f'{where}: truncated, damaged or not a checkpoint of torch ({reason}): copy or '
        f'download it again, or use another checkpoint'
    )


def _refuse(reason: str) -> NoReturn:
    raise _DamagedError(reason)


def _directory_of(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where the directory begins and ends, and how many entries it lists."""
    position = size - _END.size
    if position < 0:
        _refuse('too short')
    mark, disk, first_disk, here, count, length, start, comment = _END.unpack(
        _read(file, position, _END.size)
    )
    if mark != b'PK\x05\x06' or comment:
        _refuse('the end of the zip file is missing, or bytes follow it')
    short = (here, count, length, start)
    locator = _read(file, max(0, position - _LOCATOR.size), _LOCATOR.size)
    if position >= _LOCATOR.size and locator.startswith(b'PK\x06\x07'):
        _, locator_disk, found, disks = _LOCATOR.unpack(locator)
        position -= _LOCATOR.size + _END_64.size
        if position < 0 or found != position or locator_disk or disks > 1:
            _refuse('the zip64 record is not where it is said to be')
        mark, record, _, _, disk, first_disk, here, count, length, start = (
            _END_64.unpack(_read(file, position, _END_64.size))
        )
        if mark != b'PK\x06\x06' or record != _END_64.size - 12:
            _refuse('the zip64 record is damaged')
        most = (_MOST_16, _MOST_16, _MOST_32, _MOST_32)
        for stated, limit, value in zip(
            short, most, (here, count, length, start), strict=True
        ):
            if stated not in (limit, value):
                _refuse('the zip64 record disagrees with the end of the zip file')
    if disk or first_disk or here != count or start + length != position:
        _refuse('the directory of the zip file is not where it is said to be')
    return start, position, count


def _read_entries(file: BinaryIO, start: int, end: int, count: int) -> dict[str, Entry]:
    directory = _read(file, start, end - start)
    stated = sorted(_parse_directory(directory), key=lambda entry: entry.offset)
    if len(stated) != count:
        _refuse(f'the directory lists {len(stated)} files, not {count}')
    entries: dict[str, Entry] = {}
    folded: set[str] = set()
    position = 0
    for number, one in enumerate(stated):
        if one.offset != position:
            _refuse(f'{one.name} overlaps another file, or bytes belong to none')
        # torch's reader does not tell upper case from lower case
        if one.name.lower() in folded:
            _refuse(f'holds two files named {one.name}')
        folded.add(one.name.lower())
        last = number + 1 == len(stated)
        position = start if last else stated[number + 1].offset
        entries[one.name] = _check_local(file, one, position)
    if position != start:
        _refuse('bytes belong to no file')
    return entries


class _Stated(NamedTuple):
    """What the directory says of a file."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def _parse_directory(directory: bytes) -> Iterator[_Stated]:
    position = 0
    while position < len(directory):
        fields = _CENTRAL.unpack_from(directory, position)
        mark, _, _, flags, method, _, _, crc, packed, size = fields[:10]
        name_length, extra_length, comment_length, disk = fields[10:14]
        attributes, offset = fields[15:]
        # torch reads nothing where it sees a folder, and leaves memory as it was
        if attributes & _FOLDER:
            _refuse('a file is marked as a folder')
        if mark != b'PK\x01\x02' or disk not in (0, _MOST_16):
            _refuse('the directory of the zip file is damaged')
        position += _CENTRAL.size
        raw_name = directory[position : position + name_length]
        position += name_length
        extra = directory[position : position + extra_length]
        position += extra_length + comment_length
        if position > len(directory):
            _refuse('the directory of the zip file is cut off')
        size, packed, offset = _from_zip64(extra, (size, packed, offset))
        yield _Stated(
            raw_name.decode('utf-8', 'backslashreplace'),
            raw_name,
            flags,
            method,
            crc,
            packed,
            size,
            offset,
        )


def _from_zip64(extra: bytes, values: tuple[int, ...]) -> tuple[int, ...]:
    """Take the numbers that do not fit into 32 bits from the extra field."""
    if _MOST_32 not in values:
        return values
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from('<HH', extra, position)
        position += 4
        if kind == 1:
            found = []
            for value in values:
                if value == _MOST_32:
                    (value,) = struct.unpack_from('<Q', extra, position)
                    position += 8
                found.append(value)
            return tuple(found)
        position += length
    return values


def _check_local(file: BinaryIO, stated: _Stated, end: int) -> Entry:
    """Compare an entry with the directory; it must end where the next one begins."""
    name = stated.name
    header = _LOCAL.unpack(_read(file, stated.offset, _LOCAL.size))
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
    names = _read(file, stated.offset + _LOCAL.size, name_length + extra_length)
    if (
        mark != _MAGIC
        or (flags, method) != (stated.flags, stated.method)
        or names[:name_length] != stated.raw_name
    ):
        _refuse(f'the directory and the entry of {name} disagree')
    if name.endswith('/'):
        _refuse(f'{name} is a folder')
    if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        _refuse(f'{name} is encrypted or packed in an unknown way')
    if method == _STORED and stated.size != stated.packed:
        _refuse(f'{name} is not compressed, and has two sizes')
    if method != _STORED and not _is_unread(name):
        _refuse(f'{name} is compressed, which torch.save never does')
    start = stated.offset + _LOCAL.size + name_length + extra_length
    rest = end - start - stated.packed
    if flags & _WITH_DESCRIPTOR:
        if rest not in (12, 16, 20, 24):
            _refuse(f'{name} overlaps another file, or bytes belong to none')
        _check_descriptor(_read(file, end - rest, rest), stated)
    else:
        size, packed = _from_zip64(names[name_length:], (size, packed))
        if rest or (crc, size, packed) != (stated.crc, stated.size, stated.packed):
            _refuse(f'the directory and the entry of {name} disagree')
    return Entry(start, stated.size, stated.crc, method != _STORED)


def _check_descriptor(descriptor: bytes, stated: _Stated) -> None:
    with_mark = len(descriptor) in (16, 24)
    values = descriptor.removeprefix(_DESCRIPTOR) if with_mark else descriptor
    kind = '<LQQ' if len(values) == 20 else '<LLL'
    if struct.unpack(kind, values) != (stated.crc, stated.packed, stated.size):
        _refuse(f'what follows {stated.name} disagrees with the directory')


def _is_unread(name: str) -> bool:
    return name.partition('/')[2].startswith(_UNREAD)


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
