"""The base of the endless samplers that yield draws."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from gckd_mm.datasets.draw import Draw

_AUGMENTATION = 0  # name of the stream of augmentation seeds


class DrawSampler(Sampler):
    """Endless draws: the same global stream for any number of ranks and workers.

    Rank r of W takes the positions r, r + W, r + 2W, … of one global stream, so that
    the batches of all ranks together are those of a single process with a W times
    larger batch (in another order within the batch).

    Args:
        dataset: The dataset.
        seed: Seed, equal on all ranks. Defaults to None: drawn once and shared.
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()
        self._start = 0

    def index_at(self, position: int) -> Any:
        """Return what the global stream holds at ``position``."""
        raise NotImplementedError

    def skip(self, num_samples: int) -> None:
        """Start after the first ``num_samples`` draws of this rank; costs nothing.

        Args:
            num_samples: Counted from the beginning of the stream, not from the
                current position.

        Raises:
            ValueError: If negative.
        """
        if num_samples < 0:
            raise ValueError(f'num_samples must not be negative, got {num_samples}')
        self._start = num_samples

    def __iter__(self) -> Iterator[Draw]:
        position = self._start * self.world_size + self.rank
        while True:
            seeds = np.random.SeedSequence([self.seed, _AUGMENTATION, position])
            yield Draw(self.index_at(position), int(seeds.generate_state(1)[0]))
            position += self.world_size

    def __len__(self) -> int:
        """Return the size of the dataset: a pass, although the stream never ends."""
        return len(self.dataset)
