"""Text-to-image person retrieval, as a metric of mmengine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
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

    Every rank of a distributed run embeds a part; the main process ranks all of them
    in the datasets' order, so that the number of ranks changes no number. The
    embeddings of the test sets scored last stay at hand in :attr:`embeddings`.

    Args:
        ks: The k of Rank-k.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: Put before the names of the metrics. Defaults to None: nothing.
        gallery_neck: Config of a :class:`GraphPropagationNeck` without parameters, by
            which each image aggregates its nearest neighbours in the gallery before it
            is ranked. Such a score depends on the whole gallery: report it under a
            ``prefix`` of its own, beside the plain one.
        rerank: Also report ``reranked_R1``, …, of another order of the ``top`` first
            images (128). ``dict(method='matching', top=128, weight=1.0)``, the default
            method: after :attr:`matcher` has compared the tokens of every caption with
            those of its first images; ``weight`` as in
            :func:`gckd_mm.evaluation.reranking.rerank`. ``dict(method='k_reciprocal',
            top=128, …)`` and ``'propagation'``: by the whole gallery, which needs no
            training; their settings are those of
            :class:`gckd_mm.evaluation.k_reciprocal.KReciprocal` and
            :class:`gckd_mm.evaluation.gallery_propagation.GalleryPropagation`.
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
        self.ks = _checked_ks(ks)
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
        self._warned: set[str] = set()
        #: test set -> ``'images'`` and ``'captions'`` -> :class:`Embeddings`; filled on
        #: the main process
        self.embeddings: dict[str, dict[str, Embeddings]] = {}

    @property
    def score_names(self) -> list[str]:
        """The names of the scores, which choose a checkpoint."""
        names = [f'R{k}' for k in self.ks] + ['mAP', 'mINP']
        if self.rerank is not None:
            names += [f'reranked_{name}' for name in names]
        return [f'{self.prefix}/{name}' if self.prefix else name for name in names]

    @property
    def asks_matcher(self) -> bool:
        """Whether :attr:`matcher`, and samples with tokens, are needed."""
        return isinstance(self.rerank, _ByMatching)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep the embeddings of one batch.

        Samples have ``feat`` of shape (D,), ``modality``, ``pid`` and ``sample_idx``;
        where :attr:`asks_matcher`, also ``tokens`` and, of captions, ``token_mask``.
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
        """
        batches = [batch for part in all_gather_object(self.results) for batch in part]
        self.results = []
        scores: list[Any] = [None]
        if is_main_process():
            try:
                scores[0] = self._score(batches, size)
            except InputError as error:  # the other ranks wait for an answer
                scores[0] = error
        broadcast_object_list(scores)
        if isinstance(scores[0], InputError):
            raise scores[0]
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
        _check_finite(images, f'images of {test_set}')
        _check_finite(captions, f'captions of {test_set}')
        self._check_people(images.pids, captions.pids, test_set)
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

    def _check_people(
        self, images: np.ndarray, captions: np.ndarray, test_set: str
    ) -> None:
        """Refuse a test set without any match, and warn once of one with few."""
        unmatched = num_unmatched(images, captions)
        if unmatched == len(captions):
            raise InputError(no_match_message(test_set, images, captions))
        if test_set in self._warned:
            return
        self._warned.add(test_set)
        warnings = []
        if unmatched:
            warnings.append(
                f'{test_set}: {unmatched} of {len(captions)} captions have no image of '
                f'their person in the gallery, and count in no score'
            )
        if len(np.unique(images)) == 1:
            warnings.append(
                f'{test_set}: all {len(images)} images of the gallery have the id '
                f'{images[0]}: every caption of it finds them first, and the scores '
                f'say nothing'
            )
        for warning in warnings:
            print_log(warning, 'current', logging.WARNING)

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
        arrays = [torch.from_numpy(part) for part in tokens if part is not None]
        if matcher is None or len(arrays) < len(tokens):
            raise InputError(
                'PersonRetrievalMetric: rerank needs a matcher and samples with '
                'tokens, which RetrievalTestLoop gets from a model with a matching head'
            )
        image_tokens, caption_tokens, mask = arrays

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


def num_unmatched(images: np.ndarray, captions: np.ndarray) -> int:
    """Return how many captions have no image of their person."""
    return int(np.count_nonzero(~np.isin(captions, images)))


def no_match_message(test_set: str, images: np.ndarray, captions: np.ndarray) -> str:
    """Say that no caption has an image of its person, and what may be the reason."""
    return (
        f'{test_set}: none of the {len(captions)} captions has an image of its person '
        f'in the gallery (ids of captions: {_some(captions)}; of images: '
        f'{_some(images)}). Do gallery and query name the same data_root, ann_file and '
        f'split?'
    )


def _some(pids: np.ndarray, limit: int = 3) -> str:
    found = np.unique(pids)
    return ', '.join(map(str, found[:limit])) + (', …' if len(found) > limit else '')


def _checked_ks(ks: Any) -> tuple[int, ...]:
    is_list = isinstance(ks, Sequence) and not isinstance(ks, str)
    values = tuple(ks) if is_list else (ks,)
    if not values or any(type(k) is not int or k < 1 for k in values):
        raise InputError(
            f'PersonRetrievalMetric: ks must be whole numbers of at least 1, got {ks!r}'
        )
    return values


def _check_finite(embeddings: Embeddings, what: str) -> None:
    """Refuse NaN and infinity, which would be ranked in any order."""
    bad = np.flatnonzero(~np.isfinite(embeddings.feats).all(axis=1))
    if len(bad):
        raise InputError(
            f'PersonRetrievalMetric: {len(bad)} of the {len(embeddings.feats)} '
            f'embeddings of the {what} are NaN or infinite, the first is sample '
            f'{embeddings.indices[bad[0]]}: have the weights diverged, or is the '
            f'precision too low?'
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
    if not batches:
        raise RuntimeError(f'no {modality} were embedded')
    if not chosen:
        found = sorted({str(batch['modality']) for batch in batches})
        raise InputError(
            f'PersonRetrievalMetric: no {modality} were embedded, only '
            f'{", ".join(found)}: it compares captions with a gallery. '
            f"Set test_cfg=dict(type='RetrievalTestLoop') (or val_cfg: "
            f"'RetrievalValLoop') and test_dataloader=dict(NAME=dict(gallery=…, "
            f'query=…)), with samples in each'
        )
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
