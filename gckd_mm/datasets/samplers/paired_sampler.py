"""Draws of labelled (image, caption) pairs."""

from __future__ import annotations

from gckd_mm.datasets.person_text import PersonTextDataset
from gckd_mm.datasets.samplers.draw_sampler import DrawSampler
from gckd_mm.datasets.samplers.streams import (
    IdentityStream,
    IndexStream,
    ShuffledStream,
)
from gckd_mm.errors import InputError
from gckd_mm.registry import DATA_SAMPLERS

_SOURCE = 1  # name of the stream; the target's are 2 and 3


def source_stream(
    dataset: PersonTextDataset, seed: int, num_instances: int | None
) -> IndexStream:
    """Build the stream of labelled pairs: P × K if ``num_instances`` (K) is set.

    Raises:
        InputError: If the dataset has no person ids to build runs of one person from.
    """
    if num_instances is not None and not hasattr(dataset, 'pids'):
        raise InputError(
            f'num_instances needs a dataset with person ids, got '
            f'{type(dataset).__name__}; for two domains use CrossDomainSampler'
        )
    if num_instances is None:
        return ShuffledStream(len(dataset), seed, _SOURCE)
    return IdentityStream(dataset.pids, num_instances, seed, _SOURCE)


@DATA_SAMPLERS.register_module()
class PairedSampler(DrawSampler):
    """Endless draws from the pairs of a :class:`PersonTextDataset`.

    Args:
        dataset: The dataset.
        seed: Seed, equal on all ranks. Defaults to None: drawn once and shared.
        num_instances: If set, batches of P × K: runs of this many (K) pairs of one
            person. Defaults to None: plain shuffling.
    """

    def __init__(
        self,
        dataset: PersonTextDataset,
        seed: int | None = None,
        num_instances: int | None = None,
    ) -> None:
        super().__init__(dataset, seed)
        self._stream = source_stream(dataset, self.seed, num_instances)

    def index_at(self, position: int) -> int:
        """Return the index of the pair at ``position`` of the global stream."""
        return self._stream[position]
