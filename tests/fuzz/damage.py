"""Seeded damage: of bytes, and of nested values."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator


def rng_of(seed: int, *case: int | str) -> Rng:
    """Return the random numbers of one case, whatever ran before it."""
    numbers = [x if isinstance(x, int) else int.from_bytes(x.encode()) for x in case]
    return np.random.default_rng([seed, *numbers])


def damage_bytes(data: bytes, rng: Rng) -> tuple[str, bytes]:
    """Damage a file's contents in one place; return how, and the new contents."""
    kind = str(rng.choice(['flip', 'flip', 'flip', 'zero', 'cut', 'drop', 'twice']))
    start = int(rng.integers(0, max(1, len(data))))
    length = int(rng.integers(8, 65))
    part = data[start : start + length]
    if kind == 'flip':
        noise = rng.integers(1, 256, len(part), dtype=np.uint8)
        flipped = np.frombuffer(part, np.uint8) ^ noise
        changed = data[:start] + flipped.tobytes() + data[start + len(part) :]
    elif kind == 'zero':
        changed = data[:start] + bytes(len(part)) + data[start + len(part) :]
    elif kind == 'cut':
        changed = data[:start]
    elif kind == 'drop':
        changed = data[:start] + data[start + length :]
    else:
        changed = data[: start + length] + data[start:]
    return f'{kind} {start}+{length}', changed


def odd_texts(good: bytes) -> dict[str, bytes]:
    """Return what a text file may also hold: name -> contents."""
    text = good.decode()
    return {
        'empty': b'',
        'white space': b' \n\t',
        'UTF-16': text.encode('utf-16'),
        'byte order mark': text.encode('utf-8-sig'),
        'Latin-1': 'é'.encode('latin-1') + good,
        'NUL': bytes(1000),
        'deep': b'[' * 200_000,
        'long number': b'[' + b'9' * 10_000 + b']',
        'lone surrogate': b'["\\ud800"]',
        'not a number': b'[NaN, Infinity]',
        'twice': good + good,
        'a PNG': b'\x89PNG\r\n\x1a\n' + bytes(100),
        'a zip file': b'PK\x05\x06' + bytes(18),
    }


def odd_files(folder: Path, suffix: str) -> dict[str, Path]:
    """Make what is no regular file: name -> path."""
    fifo, loop = folder / f'fifo{suffix}', folder / f'loop{suffix}'
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    (folder / f'folder{suffix}').mkdir()
    (folder / f'device{suffix}').symlink_to('/dev/zero')
    (folder / f'full{suffix}').symlink_to('/dev/full')
    (folder / f'nowhere{suffix}').symlink_to(folder / 'nothing')
    names = ('fifo', 'loop', 'folder', 'device', 'full', 'nowhere', 'missing')
    return {name: folder / f'{name}{suffix}' for name in names}


def nested_lists(depth: int = 3000) -> list:
    """Return lists within lists."""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def odd_values() -> list[Any]:
    """Return values that few programs expect, all of which JSON can hold."""
    return [
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        10**400,
        0.5,
        1e308,
        math.nan,
        math.inf,
        '',
        ' ',
        'a',
        'x' * 100_000,
        '\ud800',
        'a\x00b',
        '../../etc/passwd',
        '/dev/zero',
        '全部',
        [],
        {},
        [[]],
        [None],
        {'a': {}},
        {'path': '/etc/passwd', 'meta': {'_type': 'gradio.FileData'}},
        nested_lists(60),
        list(range(2000)),
    ]


def damage_value(value: Any, rng: Rng, odd: Sequence[Any]) -> Any:
    """Return a copy of dicts and lists with one to three places changed."""
    changed = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 4))):
        changed = _damage_once(changed, rng, odd)
    return changed


def _damage_once(value: Any, rng: Rng, odd: Sequence[Any]) -> Any:
    parent: Any = None
    place: Any = None
    node = value
    # as deep as it goes, or less
    while isinstance(node, dict | list) and node and rng.random() < 0.8:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        parent, place = node, keys[int(rng.integers(len(keys)))]
        node = node[place]
    new = copy.deepcopy(odd[int(rng.integers(len(odd)))])
    if parent is None:
        return new
    kind = rng.random()
    if kind < 0.6:
        parent[place] = new
    elif kind < 0.75:
        del parent[place]
    elif isinstance(parent, dict):
        parent[f'{place}_'] = parent.pop(place)
    else:
        parent.insert(place, new)
    return value
