"""Random numbers that are the same on every machine and in every version."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

Option = TypeVar('Option')


class RandomStream:
    """An independent stream of random numbers, named by a path.

    ``RandomStream('world', 3, 'street', 'person', 17)`` gives the same numbers wherever
    and in whatever order streams are opened: images can be split over processes, or
    resumed. It builds on the two things that Python and NumPy promise never to change,
    :meth:`random.Random.random` under a string seed and the raw output of
    :class:`numpy.random.PCG64`, and on arithmetic that rounds alike everywhere.

    Args:
        *path: Names and numbers.
    """

    def __init__(self, *path: str | int) -> None:
        self.path = path
        self._next = random.Random('/'.join(map(str, path))).random

    def child(self, *path: str | int) -> RandomStream:
        """Return the stream below this one; it takes no number from this one."""
        return RandomStream(*self.path, *path)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._next()

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> float:
        """Return a nearly normal number, at most 6 ``sd`` from ``mean``."""
        total = -6.0
        for _ in range(12):  # not sum(): Python 3.12 rounds it in another way
            total += self._next()
        return mean + sd * total

    def integer(self, low: int, high: int) -> int:
        """Return a whole number in [low, high], both included."""
        return low + int((high - low + 1) * self._next())

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self._next() < probability

    def choice(self, options: Sequence[Option]) -> Option:
        """Return one of the options."""
        return options[int(len(options) * self._next())]

    def weighted(self, weights: Mapping[Option, float]) -> Option:
        """Return a key with a probability in proportion to its weight."""
        total = 0.0
        for weight in weights.values():
            total += weight
        mark = self._next() * total
        last = None
        for option, weight in weights.items():
            if weight > 0:
                last = option
            mark -= weight
            if mark < 0:
                break
        if last is None:
            raise ValueError('no option has a positive weight')
        return last

    def shuffled(self, options: Sequence[Option]) -> list[Option]:
        """Return the options in a random order."""
        order = list(options)
        for last in range(len(order) - 1, 0, -1):
            other = self.integer(0, last)
            order[last], order[other] = order[other], order[last]
        return order

    def noise(self, *shape: int) -> np.ndarray:
        """Return nearly normal noise of mean 0 and deviation 1, float32."""
        count = int(np.prod(shape))
        seed = int(self._next() * 2**53)
        words = np.random.PCG64(seed).random_raw((count + 1) // 2)
        octets = words.view(np.uint8)[: 4 * count].astype(np.int16)
        total = octets[0::4] + octets[1::4] + octets[2::4] + octets[3::4] - 510
        # the sum of four has the deviation 147.80
        return (total.astype(np.float32) / np.float32(147.8)).reshape(shape)
