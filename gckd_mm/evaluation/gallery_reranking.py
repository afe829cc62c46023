"""Re-ranking by what images of a gallery have in common, without any training."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation.gallery_propagation import GalleryPropagation
from gckd_mm.evaluation.k_reciprocal import KReciprocal
from gckd_mm.evaluation.ranking import top_matches
from gckd_mm.evaluation.reranking import Scorer, reordered


class GalleryReranker(Protocol):
    """Settings of a method."""

    def over(self, gallery: Tensor) -> Scorer:
        """Look at a gallery (N, D) once; give what scores shortlists of it."""


METHODS: dict[str, type[KReciprocal] | type[GalleryPropagation]] = {
    'k_reciprocal': KReciprocal,
    'propagation': GalleryPropagation,
}


def build_reranker(method: str, **settings: Any) -> GalleryReranker:
    """Return a method with its settings.

    Args:
        method: Key of ``METHODS``.
        **settings: See :class:`KReciprocal` and :class:`GalleryPropagation`.
    """
    if method not in METHODS:
        raise InputError(
            f'rerank: method must be one of {", ".join(METHODS)}, got {method!r}'
        )
    known = [field.name for field in fields(METHODS[method])]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InputError(
            f'rerank: {method} has no setting {", ".join(unknown)}: its settings are '
            f'{", ".join(known)}'
        )
    return METHODS[method](**settings)


@torch.no_grad()
def rerank_with_gallery(
    reranker: GalleryReranker, queries: np.ndarray, gallery: np.ndarray, top: int
) -> np.ndarray:
    """Reorder the first images of each query by the whole gallery.

    Args:
        reranker: See :func:`build_reranker`.
        queries: L2-normalised, shape (Q, D).
        gallery: L2-normalised, shape (N, D).
        top: How many are reordered, K; all where there are fewer.

    Returns:
        Gallery rows, best first, shape (Q, min(K, N)), int64.
    """
    if top < 1:
        raise InputError(f'rerank: top must be at least 1, got {top}')
    order, similarity = map(torch.from_numpy, top_matches(queries, gallery, top))
    scores = reranker.over(torch.from_numpy(gallery))(order, similarity)
    return reordered(order, scores).numpy()


@torch.no_grad()
def rerank_candidates(
    query: np.ndarray,
    candidates: np.ndarray,
    method: str = 'k_reciprocal',
    **settings: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Reorder what a search has found by that alone.

    The candidates are taken for the whole gallery: it may be of any size and behind any
    index, as long as the embeddings of the found are there. With 200 of them or so, the
    neighbours of the best are among them as a rule.

    Args:
        query: L2-normalised, shape (D,).
        candidates: L2-normalised, in any order, shape (C, D).
        method: Key of ``METHODS``.
        **settings: See :func:`build_reranker`.

    Returns:
        Rows of ``candidates``, best first, shape (C,), int64, and their scores, shape
        (C,), float32, descending. Scores of different queries cannot be compared.
    """
    reranker = build_reranker(method, **settings)
    query, candidates = (np.asarray(x, np.float32) for x in (query, candidates))
    if candidates.ndim != 2 or query.shape != candidates.shape[1:]:
        raise InputError(
            'rerank: expected a query (D,) and candidates (C, D), got '
            f'{query.shape} and {candidates.shape}'
        )
    if not len(candidates):
        return np.empty(0, np.int64), np.empty(0, np.float32)
    order, similarity = map(
        torch.from_numpy, top_matches(query[None], candidates, len(candidates))
    )
    scores = reranker.over(torch.from_numpy(candidates))(order, similarity)
    best_first = scores.argsort(dim=1, descending=True, stable=True)
    return (
        order.gather(1, best_first)[0].numpy(),
        scores.gather(1, best_first)[0].float().numpy(),
    )
