"""Many strings that the workers of a loader share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """A sequence of strings in one array of bytes.

    To look at a string of a list changes its reference count, and so gives the process
    that looks a copy of its own: with a list, every worker ends up with all of it.

    Args:
        strings: What it holds, in this order.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        encoded = [string.encode('utf-8', 'surrogatepass') for string in strings]
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        self._ends = lengths.cumsum()
        self._bytes = np.frombuffer(b''.join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one string, or a list of several."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        index = range(len(self))[index]  # a negative one, or none at all
        start = self._ends[index - 1] if index else 0
        data = self._bytes[start : self._ends[index]].tobytes()
        return data.decode('utf-8', 'surrogatepass')

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same strings in the same order."""
        if not isinstance(other, PackedStrings | list):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} strings)'
