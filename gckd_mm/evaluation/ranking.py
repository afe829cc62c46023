"""Exact retrieval metrics from embeddings, without sorting the gallery.

The rank of a positive is one plus the number of gallery items placed before it, so
ranks are found by counting: memory stays at one chunk of similarities, whatever the
number of queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

from gckd_mm.evaluation.ranking_inputs import (
    Features,
    PersonIds,
    Shortlist,
    as_features,
    as_pids,
    as_shortlist,
    check_products,
    largest_norm,
    positive_int,
)

# Large enough for the matrix product to run at full speed, small beside the features.
_CHUNK_BYTES = 64 * 2**20
# Similarities compared at a time: few enough to stay in cache, and enough of them to
# outweigh the cost of a numpy call. Measured: 2**17 is 20 % slower, 2**19 no faster
# when the cache is shared.
_BLOCK_SIZE = 2**18


def rank_metrics(
    query_feats: Features,
    gallery_feats: Features,
    query_pids: PersonIds,
    gallery_pids: PersonIds,
    ks: Sequence[int] = (1, 5, 10),
    chunk_size: int | None = None,
    shortlist: Shortlist | None = None,
) -> dict[str, float]:
    """Compute Rank-k, mAP and mINP of a text-to-image person search.

    A gallery image is relevant to a query when their person ids are equal; there is no
    camera filter. With ``P`` relevant images at ranks ``r_1 < ... < r_P``, a query
    scores Rank-k ``r_1 <= k``, ``AP = mean_i(i / r_i)`` and ``INP = P / r_P``. A query
    with no relevant image is counted in ``num_unmatched`` and left out of the means.

    Features are used as they are: pass L2-normalised embeddings for cosine similarity.
    Ties and rounding are described in :func:`rank_of_positives`.

    Args:
        query_feats: Caption embeddings, shape ``(Q, D)``, any floating-point dtype.
        gallery_feats: Image embeddings, shape ``(G, D)``, any floating-point dtype.
        query_pids: Person ids, shape ``(Q,)``.
        gallery_pids: Person ids, shape ``(G,)``.
        ks: The ``k`` of each Rank-k.
        chunk_size: Queries scored at a time. Defaults to as many as fill 64 MiB of
            similarities.
        shortlist: Another order of the head of each ranking, shape ``(Q, K)``: see
            :func:`rank_of_positives`.

    Returns:
        ``R<k>`` for each ``k``, ``mAP`` and ``mINP``, in percent (``nan`` when no query
        has a match); ``num_queries``, all the queries, and ``num_unmatched``, as ints.

    Raises:
        TypeError: Features that are not floating-point arrays, or ids, ``ks``,
            ``chunk_size`` or a ``shortlist`` that are not integers.
        ValueError: Empty inputs, shapes that do not fit, features that are NaN,
            infinite or too large to multiply, a ``k`` or ``chunk_size`` below 1, or a
            ``shortlist`` that repeats an image or names one that is not there.

    Example:
        >>> import numpy as np
        >>> gallery = np.eye(3, dtype=np.float32)
        >>> query = np.array([[0.6, 0.8, 0.0]], dtype=np.float32)
        >>> metrics = rank_metrics(query, gallery, [7], [7, 8, 7], ks=(1, 2))
        >>> {name: round(value, 2) for name, value in metrics.items()}
        {'R1': 0.0, 'R2': 100.0, 'mAP': 58.33, 'mINP': 66.67, \
'num_queries': 1, 'num_unmatched': 0}

    Source: Zheng et al., *Scalable Person Re-identification: A Benchmark*, ICCV 2015
    (AP); Ye et al., *Deep Learning for Person Re-identification: A Survey and Outlook*,
    TPAMI 2021 (INP). Leaving out and reporting unmatched queries is ours.
    """
    ks = [positive_int(k, 'each of ks') for k in ks]
    blocks = rank_of_positives(
        query_feats, gallery_feats, query_pids, gallery_pids, chunk_size, shortlist
    )
    num_queries = len(query_feats)
    best_rank = np.full(num_queries, np.nan)
    average_precision = np.full(num_queries, np.nan)
    inverse_negative_penalty = np.full(num_queries, np.nan)
    for queries, ranks in blocks:
        num_positives = ranks.shape[1]
        precision = np.arange(1, num_positives + 1) / ranks
        best_rank[queries] = ranks[:, 0]
        average_precision[queries] = precision.mean(axis=1)
        inverse_negative_penalty[queries] = precision[:, -1]

    matched = ~np.isnan(best_rank)
    metrics = {f'R{k}': _mean_percent(best_rank[matched] <= k) for k in ks}
    metrics['mAP'] = _mean_percent(average_precision[matched])
    metrics['mINP'] = _mean_percent(inverse_negative_penalty[matched])
    metrics['num_queries'] = num_queries
    metrics['num_unmatched'] = num_queries - int(np.count_nonzero(matched))
    return metrics


def rank_of_positives(
    query_feats: Features,
    gallery_feats: Features,
    query_pids: PersonIds,
    gallery_pids: PersonIds,
    chunk_size: int | None = None,
    shortlist: Shortlist | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find the rank of every positive of every query.

    The gallery is ordered by descending similarity, equal similarities by ascending
    gallery index. Similarities are inner products in float32, or float64 if either
    input is wider than float32. Inputs whose products are exact (small integers) give
    the same ranks for every ``chunk_size``; others may swap items whose similarities
    differ by rounding (about 1e-7 for normalised float32).

    Time is one comparison per query, positive and gallery item, and a stable sort of
    the gallery for a query with hundreds of positives, where sorting is cheaper.

    Args:
        query_feats: As those of :func:`rank_metrics`, and so are the next four.
        gallery_feats: Shape ``(G, D)``.
        query_pids: Shape ``(Q,)``.
        gallery_pids: Shape ``(G,)``.
        chunk_size: Queries scored at a time.
        shortlist: Gallery indices that come first, in this order and whatever their
            similarity, shape ``(Q, K)``; all others follow by similarity. Where it
            holds the K most similar images, as a re-ranker gives them, every other
            image keeps its rank.

    Returns:
        Blocks of ``B`` queries of one person: query indices ``(B,)`` and the 1-based
        ranks of their ``P`` positives ``(B, P)``, ascending along each row, both int64.
        Blocks come in ascending order of person id, and queries without a positive in
        no block.

    Raises:
        TypeError, ValueError: As :func:`rank_metrics`, at the call and not at the first
            block.
    """
    query = as_features(query_feats, 'query_feats')
    gallery = as_features(gallery_feats, 'gallery_feats')
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            'query_feats and gallery_feats must have the same dimension, got shapes '
            f'{tuple(query.shape)} and {tuple(gallery.shape)}: '
            'encode both with the same model'
        )
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    query, gallery = query.to(dtype), gallery.to(dtype)
    check_products(query, gallery)
    query_ids = as_pids(query_pids, len(query), 'query_pids', 'query_feats')
    gallery_ids = as_pids(gallery_pids, len(gallery), 'gallery_pids', 'gallery_feats')
    if chunk_size is None:
        chunk_size = max(1, _CHUNK_BYTES // (len(gallery) * gallery.element_size()))
    chunk_size = positive_int(chunk_size, 'chunk_size')
    if shortlist is not None:
        shortlist = as_shortlist(shortlist, len(query), len(gallery))
    return _iterate_ranks(query, gallery, query_ids, gallery_ids, chunk_size, shortlist)


def top_matches(
    query_feats: np.ndarray,
    gallery_feats: np.ndarray,
    k: int,
    chunk_size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best gallery indices of each query, and their scores.

    Args:
        query_feats: Shape (Q, D).
        gallery_feats: Shape (G, D).
        k: At most G are returned.
        chunk_size: Queries sorted at a time, by default 64 MiB of similarities.

    Returns:
        Indices and scores, each of shape (Q, min(k, G)), best first; among equal scores
        the lower index comes first.
    """
    largest_norm(query_feats, 'query_feats')
    largest_norm(gallery_feats, 'gallery_feats')
    if chunk_size is None:
        row_bytes = len(gallery_feats) * gallery_feats.itemsize
        chunk_size = max(1, _CHUNK_BYTES // row_bytes)
    orders, best = [], []
    for start in range(0, len(query_feats), chunk_size):
        scores = query_feats[start : start + chunk_size] @ gallery_feats.T
        order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
        orders.append(order)
        best.append(np.take_along_axis(scores, order, axis=1))
    return np.concatenate(orders), np.concatenate(best)


def _iterate_ranks(
    query: torch.Tensor,
    gallery: torch.Tensor,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    chunk_size: int,
    shortlist: np.ndarray | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the blocks of :func:`rank_of_positives` from checked inputs."""
    gallery_order = np.argsort(gallery_pids, kind='stable')
    sorted_pids = gallery_pids[gallery_order]
    first_positive = np.searchsorted(sorted_pids, query_pids, side='left')
    last_positive = np.searchsorted(sorted_pids, query_pids, side='right')
    # Queries of one person share their positives, hence one comparison for all of them.
    queries = np.argsort(query_pids, kind='stable')
    queries = queries[first_positive[queries] < last_positive[queries]]
    block_size = max(1, _BLOCK_SIZE // len(gallery))
    buffer = query.new_empty(min(chunk_size, len(queries)), len(gallery))
    for start in range(0, len(queries), chunk_size):
        chunk = queries[start : start + chunk_size]
        similarity = buffer[: len(chunk)]
        torch.mm(query[torch.from_numpy(chunk)], gallery.T, out=similarity)
        scores = similarity.numpy()
        if shortlist is not None:
            _put_first(scores, shortlist[chunk])
        for rows in _same_pid_blocks(query_pids[chunk], block_size):
            query_index = chunk[rows.start]
            positives = gallery_order[
                first_positive[query_index] : last_positive[query_index]
            ]
            yield chunk[rows], _block_ranks(scores[rows], positives)


def _put_first(scores: np.ndarray, shortlist: np.ndarray) -> None:
    """Raise the items of ``shortlist`` ``(B, K)`` above all of ``scores``."""
    limits = np.finfo(scores.dtype)
    # Two representable steps apart and just below the largest number of the dtype,
    # which no similarity of features of any use comes near.
    places = np.arange(shortlist.shape[1], dtype=scores.dtype)
    np.put_along_axis(scores, shortlist, limits.max * (1 - places * limits.eps), axis=1)


def _same_pid_blocks(pids: np.ndarray, block_size: int) -> Iterator[slice]:
    """Cut sorted ``pids`` into slices of one pid and at most ``block_size`` rows."""
    bounds = [0, *(np.flatnonzero(np.diff(pids)) + 1).tolist(), len(pids)]
    for first, last in pairwise(bounds):
        for start in range(first, last, block_size):
            yield slice(start, min(start + block_size, last))


def _block_ranks(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the ascending ranks ``(B, P)`` of ``positives`` in ``scores`` ``(B, G)``.

    ``positives`` are ascending gallery indices, shape ``(P,)``.
    """
    # Measured: a stable sort of a row costs about as much as 32 log2(G) counts of it.
    if len(positives) > 32 * scores.shape[1].bit_length():
        return _ranks_by_sorting(scores, positives)
    return _ranks_by_counting(scores, positives)


def _ranks_by_counting(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Count, for each positive, the items before it: O(P G), as fast as memory."""
    num_rows, num_gallery = scores.shape
    ranks = np.empty((num_rows, len(positives)), dtype=np.int64)
    # the padding stays false: _count_true wants whole words
    before = np.zeros((num_rows, -(-num_gallery // 8) * 8), dtype=np.bool_)
    for column, positive in enumerate(positives.tolist()):
        own = scores[:, positive : positive + 1]
        # A tie goes to the smaller index; the positive itself is never before itself.
        np.greater_equal(scores[:, :positive], own, out=before[:, :positive])
        np.greater(scores[:, positive:], own, out=before[:, positive:num_gallery])
        ranks[:, column] = _count_true(before)
    ranks += 1
    ranks.sort(axis=1)
    return ranks


def _count_true(mask: np.ndarray) -> np.ndarray:
    """Count the true values of each row of ``mask`` ``(B, W)``, 8 a divisor of W."""
    # Eight booleans are added at a time as the bytes of a word, and a byte holds 255
    # ones before it carries. count_nonzero(axis=1) is several times slower.
    words = mask.view(np.uint64)
    sums = np.add.reduceat(words, np.arange(0, words.shape[1], 255), axis=1)
    return sums.view(np.uint8).sum(axis=1, dtype=np.int64)


def _ranks_by_sorting(scores: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Read the ranks off a stable sort: O(G log G), for very many positives."""
    order = np.argsort(-scores, axis=1, kind='stable')
    is_positive = np.zeros(scores.shape[1], dtype=np.bool_)
    is_positive[positives] = True
    columns = np.nonzero(is_positive[order])[1]
    return columns.reshape(len(scores), len(positives)) + 1


def _mean_percent(values: np.ndarray) -> float:
    """Return the mean in percent, or nan of nothing (without numpy's warning)."""
    return 100.0 * float(values.mean()) if len(values) else float('nan')
