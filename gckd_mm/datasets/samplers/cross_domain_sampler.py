"""Draws of a source pair, a target image and a target caption, independently."""

from __future__ import annotations

from gckd_mm.datasets.cross_domain import CrossDomainDataset
from gckd_mm.datasets.samplers.draw_sampler import DrawSampler
from gckd_mm.datasets.samplers.paired_sampler import source_stream
from gckd_mm.datasets.samplers.streams import ShuffledStream
from gckd_mm.errors import InputError
from gckd_mm.registry import DATA_SAMPLERS

_TARGET_IMAGES, _TARGET_CAPTIONS = 2, 3  # names of the streams


@DATA_SAMPLERS.register_module()
class CrossDomainSampler(DrawSampler):
    """Endless triples (source pair, target image, target caption).

    The three streams are seeded permutations that know nothing of each other, each
    reshuffled when its own pass ends. The last entry is None where the target has no
    captions.

    A run may begin with a source stage, in which both target entries are None. The
    source's stream does not notice; the target's begin with the adaptation.

    Args:
        dataset: The dataset.
        seed: Seed, equal on all ranks. Defaults to None: drawn once and shared.
        num_instances: See :class:`PairedSampler`; concerns the source alone.
        source_iters: Iterations of the source stage, from
            :class:`gckd_mm.engine.loops.TwoStageTrainLoop`. Defaults to 0: none.
        batch_size: The loader's, of each rank; needed with ``source_iters``, because a
            sampler counts draws.

    Raises:
        InputError: If the dataset has no target, if ``source_iters`` is negative, or
            positive without a ``batch_size``.
    """

    def __init__(
        self,
        dataset: CrossDomainDataset,
        seed: int | None = None,
        num_instances: int | None = None,
        source_iters: int = 0,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(dataset, seed)
        if not hasattr(dataset, 'num_target_images'):
            raise InputError(
                f'CrossDomainSampler needs a CrossDomainDataset, got '
                f'{type(dataset).__name__}; for one domain use PairedSampler'
            )
        if source_iters < 0:
            raise InputError(f'source_iters must not be negative, got {source_iters}')
        if source_iters > 0 and (batch_size is None or batch_size < 1):
            raise InputError(
                f'source_iters={source_iters} needs the batch_size of the loader, too: '
                f'a sampler counts draws, not batches; got {batch_size}'
            )
        self.source_iters = source_iters
        self.batch_size = batch_size
        self._target_begin = source_iters * (batch_size or 0) * self.world_size
        self._source = source_stream(dataset.source, self.seed, num_instances)
        self._images = ShuffledStream(
            dataset.num_target_images, self.seed, _TARGET_IMAGES
        )
        self._captions = (
            ShuffledStream(dataset.num_target_captions, self.seed, _TARGET_CAPTIONS)
            if dataset.num_target_captions
            else None
        )

    def index_at(self, position: int) -> tuple[int, int | None, int | None]:
        """Return the triple at ``position`` of the global stream."""
        if position < self._target_begin:
            return self._source[position], None, None
        target_position = position - self._target_begin
        return (
            self._source[position],
            self._images[target_position],
            None if self._captions is None else self._captions[target_position],
        )
