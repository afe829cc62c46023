"""Text-to-image person retrieval, as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric

from gckd_mm.errors import InputError
from gckd_mm.evaluation.ranking import rank_metrics
from gckd_mm.registry import METRICS, MODELS


class Embeddings(NamedTuple):
    """The embeddings of one modality of a test set, in the dataset's order."""

    feats: np.ndarray  # (N, D), float32, L2-normalised
    pids: np.ndarray  # (N,), int64
    indices: np.ndarray  # (N,), int64, position in the dataset


@METRICS.register_module()
class PersonRetrievalMetric(BaseMetric):
    """Rank-k, mAP and mINP of captions (queries) against images (gallery), in percent.

    Every rank of a distributed run embeds its share; the main process ranks all of them
    in the datasets' order, so that the number of ranks changes no number. The
    embeddings of the test sets scored last stay at hand in :attr:`embeddings`.

    Args:
        ks: The k of Rank-k. Defaults to (1, 5, 10).
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: Put before the names of the metrics. Defaults to None: nothing.
        gallery_neck: Config of a :class:`GraphPropagationNeck` without parameters, by
            which each image hears its nearest neighbours in the gallery before it is
            ranked. Such a score looks at the whole gallery at once: report it under a
            ``prefix`` of its own, beside the plain one. Defaults to None.

    Raises:
        InputError: If ``gallery_neck`` has weights, which nobody has trained.
    """

    default_prefix = ''  # None would make mmengine warn

    def __init__(
        self,
        ks: Sequence[int] = (1, 5, 10),
        collect_device: str = 'cpu',
        prefix: str | None = None,
        gallery_neck: dict | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.ks = tuple(ks)
        self.gallery_neck = gallery_neck and MODELS.build(gallery_neck)
        if self.gallery_neck and any(True for _ in self.gallery_neck.parameters()):
            raise InputError(
                "PersonRetrievalMetric: gallery_neck needs layer='parameter_free', got "
                f'{gallery_neck}'
            )
        self.results: list[dict[str, Any]] = []
        #: test set -> ``'images'`` and ``'captions'`` -> :class:`Embeddings`; filled on
        #: the main process
        self.embeddings: dict[str, dict[str, Embeddings]] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the embeddings of one batch.

        Args:
            data_batch: Unused.
            data_samples: Each with ``feat`` of shape (D,), ``modality``, ``pid`` and
                ``sample_idx``.
        """
        feats = torch.stack([sample['feat'] for sample in data_samples])
        self.results.append(
            {
                'modality': data_samples[0]['modality'],
                'feats': feats.float().cpu().numpy(),
                'pids': np.array([sample['pid'] for sample in data_samples]),
                'indices': np.array([sample['sample_idx'] for sample in data_samples]),
            }
        )

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather all ranks' embeddings and score them.

        Args:
            size: Number of images and captions together.

        Returns:
            ``R1``, … in percent, ``num_queries`` and ``num_unmatched``; equal on all
            ranks.

        Raises:
            RuntimeError: If some images or captions were not embedded.
        """
        batches = [batch for part in all_gather_object(self.results) for batch in part]
        self.results = []
        scores: list[Any] = [None]
        if is_main_process():
            scores[0] = self._score(batches, size)
        broadcast_object_list(scores)
        prefix = f'{self.prefix}/' if self.prefix else ''
        return {f'{prefix}{name}': value for name, value in scores[0].items()}

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Score batches of one process, as :meth:`process` kept them."""
        return self._score(results, size=None)

    def _score(
        self, batches: list[dict[str, Any]], size: int | None
    ) -> dict[str, float]:
        images, captions = (_merge(batches, role) for role in ('images', 'captions'))
        found = len(images.pids) + len(captions.pids)
        if size is not None and found != size:
            raise RuntimeError(
                f'{found} of {size} images and captions were embedded: the samplers of '
                f'a test set must visit every sample (DefaultSampler, round_up=True)'
            )
        test_set = (self.dataset_meta or {}).get('test_set', 'test')
        self.embeddings[test_set] = {'images': images, 'captions': captions}
        gallery = images.feats
        if self.gallery_neck:
            gallery = self.gallery_neck(torch.from_numpy(gallery)).numpy()
        return rank_metrics(
            captions.feats, gallery, captions.pids, images.pids, ks=self.ks
        )


def _merge(batches: list[dict[str, Any]], modality: str) -> Embeddings:
    """Concatenate a modality's batches, once per sample, in the dataset's order."""
    chosen = [batch for batch in batches if batch['modality'] == modality]
    if not chosen:
        raise RuntimeError(f'no {modality} were embedded')
    merged = {
        key: np.concatenate([batch[key] for batch in chosen])
        for key in ('feats', 'pids', 'indices')
    }
    # Samplers repeat samples to give every rank as many.
    indices, first = np.unique(merged['indices'], return_index=True)
    return Embeddings(merged['feats'][first], merged['pids'][first], indices)
