"""Text-to-image person retrieval, as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation import reranking
from gckd_mm.evaluation.gallery_reranking import (
    METHODS,
    GalleryReranker,
    build_reranker,
    rerank_with_gallery,
)
from gckd_mm.evaluation.ranking import rank_metrics, top_matches
from gckd_mm.registry import METRICS, MODELS

_TOKEN_KEYS = ('tokens', 'token_mask')


class Embeddings(NamedTuple):
    """The embeddings of one modality of a test set, in the dataset's order."""

    feats: np.ndarray  # (N, D), float32, L2-normalised
    pids: np.ndarray  # (N,), int64
    indices: np.ndarray  # (N,), int64, position in the dataset
    tokens: np.ndarray | None = None  # (N, L, C), float16, of models that keep them
    token_mask: np.ndarray | None = None  # (N, L), bool, of captions; False on padding


class _ByMatching(NamedTuple):
    """How many images of each ranking are compared anew, and what a match counts."""

    top: int = 128
    weight: float = 1.0


class _ByGallery(NamedTuple):
    """How many images of each ranking are scored anew, and by what."""

    reranker: GalleryReranker
    top: int


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
        rerank: Also report ``reranked_R1``, …, of another order of the ``top`` first
            images (128). ``dict(method='matching', top=128, weight=1.0)``, the default
            method: after :attr:`matcher` has compared the tokens of every caption with
            those of its first images; ``weight`` as in
            :func:`gckd_mm.evaluation.reranking.rerank`.
            ``dict(method='k_reciprocal', top=128, …)`` and ``'propagation'``: after a
            look at the whole gallery, which needs no training; their settings are those
            of :class:`gckd_mm.evaluation.k_reciprocal.KReciprocal` and
            :class:`gckd_mm.evaluation.gallery_propagation.GalleryPropagation`. Defaults
            to None.

    Raises:
        InputError: If ``gallery_neck`` has weights, which nobody has trained, or if a
            setting of ``rerank`` is unknown or out of its range.
    """

    default_prefix = ''  # None would make mmengine warn

    def __init__(
        self,
        ks: Sequence[int] = (1, 5, 10),
        collect_device: str = 'cpu',
        prefix: str | None = None,
        gallery_neck: dict | None = None,
        rerank: dict | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.ks = tuple(ks)
        self.gallery_neck = gallery_neck and MODELS.build(gallery_neck)
        if self.gallery_neck and any(True for _ in self.gallery_neck.parameters()):
            raise InputError(
                "PersonRetrievalMetric: gallery_neck needs layer='parameter_free', got "
                f'{gallery_neck}'
            )
        self.rerank = None if rerank is None else _reranking(**rerank)
        #: image tokens (n, T, C), caption tokens (n, L, C), both float32, and the
        #: captions' mask (n, L), all on the CPU -> logits of a match (n,)
        self.matcher: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
        self.results: list[dict[str, Any]] = []
        #: test set -> ``'images'`` and ``'captions'`` -> :class:`Embeddings`; filled on
        #: the main process
        self.embeddings: dict[str, dict[str, Embeddings]] = {}

    @property
    def asks_matcher(self) -> bool:
        """Whether :attr:`matcher`, and samples with tokens, are needed."""
        return isinstance(self.rerank, _ByMatching)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the embeddings of one batch.

        Args:
            data_batch: Unused.
            data_samples: Each with ``feat`` of shape (D,), ``modality``, ``pid`` and
                ``sample_idx``; where :attr:`asks_matcher`, also with ``tokens`` and, if
                it is a caption, ``token_mask``.
        """
        feats = torch.stack([sample['feat'] for sample in data_samples])
        batch = {
            'modality': data_samples[0]['modality'],
            'feats': feats.float().cpu().numpy(),
            'pids': np.array([sample['pid'] for sample in data_samples]),
            'indices': np.array([sample['sample_idx'] for sample in data_samples]),
        }
        for key in _TOKEN_KEYS:
            if self.asks_matcher and key in data_samples[0]:
                values = torch.stack([sample[key] for sample in data_samples])
                batch[key] = values.cpu().numpy()
        self.results.append(batch)

    def evaluate(self, size: int) -> dict[str, float]:
        """Gather all ranks' embeddings and score them.

        Args:
            size: Number of images and captions together.

        Returns:
            ``R1``, … in percent, ``num_queries`` and ``num_unmatched``, and where
            re-ranking is asked for ``reranked_R1``, …; equal on all ranks.

        Raises:
            InputError: If there is nothing to re-rank with: no tokens or no matcher.
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
        ranked = (captions.feats, gallery, captions.pids, images.pids, self.ks)
        scores = rank_metrics(*ranked)
        order = self._reranked(captions, images, gallery)
        if order is not None:
            for name, value in rank_metrics(*ranked, shortlist=order).items():
                if not name.startswith('num_'):
                    scores[f'reranked_{name}'] = value
        return scores

    def _reranked(
        self, captions: Embeddings, images: Embeddings, gallery: np.ndarray
    ) -> Tensor | np.ndarray | None:
        """Return the first gallery rows of each caption in their new order, if any."""
        if self.rerank is None:
            return None
        if isinstance(self.rerank, _ByMatching):
            return self._matched(self.rerank, captions, images, gallery)
        reranker, top = self.rerank
        return rerank_with_gallery(reranker, captions.feats, gallery, top)

    def _matched(
        self,
        rerank: _ByMatching,
        captions: Embeddings,
        images: Embeddings,
        gallery: np.ndarray,
    ) -> Tensor:
        """Return the order of :attr:`matcher`."""
        matcher = self.matcher
        tokens = (images.tokens, captions.tokens, captions.token_mask)
        if matcher is None or any(part is None for part in tokens):
            raise InputError(
                'PersonRetrievalMetric: rerank needs a matcher and samples with '
                'tokens, which RetrievalTestLoop gets from a model with a matching head'
            )
        image_tokens, caption_tokens, mask = (
            torch.from_numpy(cast(np.ndarray, part)) for part in tokens
        )

        def score(caption_rows: Tensor, image_rows: Tensor) -> Tensor:
            return matcher(
                image_tokens[image_rows].float(),
                caption_tokens[caption_rows].float(),
                mask[caption_rows],
            )

        order, similarity = top_matches(captions.feats, gallery, rerank.top)
        return reranking.rerank(
            torch.from_numpy(order), score, rerank.weight, torch.from_numpy(similarity)
        )


def _reranking(
    method: str = 'matching', top: int = 128, **settings: Any
) -> _ByMatching | _ByGallery:
    """Return what a config of ``rerank`` asks for."""
    if method not in ('matching', *METHODS):
        raise InputError(
            'PersonRetrievalMetric: the method of rerank must be one of matching, '
            f'{", ".join(METHODS)}, got {method!r}'
        )
    if method == 'matching' and settings.keys() - {'weight'}:
        raise InputError(
            'PersonRetrievalMetric: rerank by matching takes top and weight, '
            f'got {dict(top=top, **settings)}'
        )
    if top < 1 or settings.get('weight', 0) < 0:
        raise InputError(
            'PersonRetrievalMetric: rerank needs top of at least 1 and a weight '
            f'that is not negative, got {dict(top=top, **settings)}'
        )
    if method == 'matching':
        return _ByMatching(top, **settings)
    return _ByGallery(build_reranker(method, **settings), top)


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
    tokens = {
        key: _pad_and_join([batch[key] for batch in chosen])[first]
        for key in _TOKEN_KEYS
        if key in chosen[0]
    }
    return Embeddings(merged['feats'][first], merged['pids'][first], indices, **tokens)


def _pad_and_join(parts: list[np.ndarray]) -> np.ndarray:
    """Join (N, L, …) arrays of different lengths L, with zeros behind the shorter."""
    length = max(part.shape[1] for part in parts)
    joined = np.zeros(
        (sum(map(len, parts)), length, *parts[0].shape[2:]), parts[0].dtype
    )
    start = 0
    for part in parts:
        joined[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return joined
