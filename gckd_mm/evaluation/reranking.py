"""Re-rank the head of a ranking with a slower, finer score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gckd_mm.errors import InputError

#: gallery rows of Q queries and their similarities, both of shape (Q, K), best first ->
#: other scores of them (Q, K)
Scorer: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def rerank(
    order: Tensor,
    scorer: Callable[[Tensor, Tensor], Tensor],
    weight: float,
    similarity: Tensor,
    chunk_size: int = 1024,
) -> Tensor:
    """Reorder the K best gallery items of each query by similarity and match score.

    The new score is similarity + weight · sigmoid(logit), in float32. Equal scores keep
    their first order, so that a weight of 0 changes nothing.

    Args:
        order: Gallery rows of Q queries, best first, shape (Q, K), int64.
        scorer: Takes query rows and gallery rows of n pairs, each of shape (n,), int64,
            on the device of ``order``; gives the logits of a match, shape (n,).
        weight: How much a certain match adds to the similarity, not negative.
        similarity: Cosine similarities of the items of ``order``, shape (Q, K),
            descending.
        chunk_size: Pairs a call of ``scorer``.

    Returns:
        The same gallery rows in their new order, shape (Q, K), int64.

    Source: ours; the retrieval code of Li et al., *BLIP*, ICML 2022, adds the logit
    itself, which is without bound and so needs a weight of another size for each head.
    """
    if weight < 0:
        raise InputError(f'weight must not be negative, got {weight}')
    if chunk_size < 1:
        raise InputError(f'chunk_size must be at least 1, got {chunk_size}')
    if order.shape != similarity.shape:
        raise ValueError(
            'order and similarity must have the same shape (Q, K), got '
            f'{tuple(order.shape)} and {tuple(similarity.shape)}'
        )
    query_rows = torch.arange(len(order), device=order.device)[:, None].expand_as(order)
    pairs = zip(
        query_rows.flatten().split(chunk_size),
        order.flatten().split(chunk_size),
        strict=True,
    )
    logits = torch.cat([scorer(query, gallery).float() for query, gallery in pairs])
    if logits.isnan().any():
        raise ValueError('the scorer gave NaN: check the model and its mixed precision')
    matches = logits.to(similarity.device).view_as(similarity).sigmoid()
    return reordered(order, similarity.float() + weight * matches)


def reordered(order: Tensor, scores: Tensor) -> Tensor:
    """Sort shortlists (Q, K) by other scores (Q, K); equal ones keep their order."""
    best_first = scores.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, best_first.to(order.device))


def relative_similarity(similarity: Tensor) -> Tensor:
    """Scale the similarities of each shortlist: its best to 1, its last to 0.

    Captions are less similar to images than images are to each other, by how much
    depends on the model and the caption. Of a shortlist so scaled, nothing of that is
    left. It has shape (Q, K), descends, and becomes 1 where all of it is equal.
    """
    best, last = similarity[:, :1], similarity[:, -1:]
    spread = best - last
    return torch.where(spread > 0, (similarity - last) / spread, 1)


def seed_weights(similarity: Tensor, seeds: int, temperature: float) -> Tensor:
    """Weigh the first images of each query: what it is thought to be.

    A softmax over their :func:`relative_similarity`, of ``similarity`` (Q, K),
    descending; shape (Q, min(seeds, K)).
    """
    relative = relative_similarity(similarity)[:, :seeds]
    return torch.softmax(relative / temperature, dim=1)


def check_seeds(method: str, seeds: int, temperature: float) -> None:
    """Refuse what :func:`seed_weights` cannot take."""
    if seeds < 1 or not temperature > 0:
        raise InputError(
            f'{method}: needs seeds of at least 1 and a positive temperature, got '
            f'{seeds} and {temperature}'
        )
