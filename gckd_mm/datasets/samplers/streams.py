"""Endless index streams with random access: what makes resuming exact and cheap.

A stream is a pure function of its seed: entry ``position`` can be asked for without
the entries before it, on any rank and after any restart.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class IndexStream(Protocol):
    """An endless sequence of indices with random access."""

    def __getitem__(self, position: int) -> int:
        """Return entry ``position`` >= 0."""


class ShuffledStream:
    """All of ``0 … size − 1`` in a new seeded order each pass.

    Args:
        size: Number of indices, at least 1.
        seed: Seed.
        name: Number that tells independent streams of one seed apart.
        shuffle: False gives the natural order each pass. Defaults to True.
    """

    def __init__(self, size: int, seed: int, name: int, shuffle: bool = True) -> None:
        if size < 1:
            raise ValueError(f'a stream needs at least one index, got size {size}')
        self._size = size
        self._seed = seed
        self._name = name
        self._shuffle = shuffle
        self._pass = -1
        self._order = np.arange(size)

    def __getitem__(self, position: int) -> int:
        """Return entry ``position`` >= 0."""
        number, offset = divmod(position, self._size)
        if self._shuffle and number != self._pass:
            rng = np.random.default_rng([self._seed, self._name, number])
            self._order = rng.permutation(self._size)
            self._pass = number
        return int(self._order[offset])


class IdentityStream:
    """Runs of ``num_instances`` indices of one person, people in a new order each pass.

    A batch of P × K entries then holds P people with K samples each. A person with
    fewer than K samples has all of them repeated as evenly as possible.

    Args:
        pids: Person id of every index, shape (N,).
        num_instances: K.
        seed: Seed.
        name: Number that tells independent streams of one seed apart.

    Source: the P × K batches of Hermans et al., *In Defense of the Triplet Loss for
    Person Re-Identification*, arXiv 1703.07737.
    """

    def __init__(
        self, pids: np.ndarray, num_instances: int, seed: int, name: int
    ) -> None:
        if num_instances < 1:
            raise ValueError(f'num_instances must be at least 1, got {num_instances}')
        order = np.argsort(pids, kind='stable')
        _, starts = np.unique(pids[order], return_index=True)
        self._groups = np.split(order, starts[1:])
        self._people = ShuffledStream(len(self._groups), seed, name)
        self._num_instances = num_instances
        self._seed = seed
        self._name = name

    def __getitem__(self, position: int) -> int:
        """Return entry ``position`` >= 0."""
        turn, instance = divmod(position, self._num_instances)
        group = self._groups[self._people[turn]]
        rounds, offset = divmod(instance, len(group))
        # The last number keeps these apart from the people's: to a seed sequence,
        # trailing zeros are nothing.
        rng = np.random.default_rng([self._seed, self._name, turn, rounds, 1])
        return int(group[rng.permutation(len(group))[offset]])
