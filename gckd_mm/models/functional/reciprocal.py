"""The Jaccard distance of k-reciprocal neighbours, without a matrix of all pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gckd_mm.models.gckd.memory import nearest_neighbours

#: pairs of embeddings multiplied at a time: 64 MB for 128 numbers
_PAIRS = 1 << 17
#: rows of the distance matrix that exist at a time
_ROWS = 64


class ClosePairs(NamedTuple):
    """The pairs of M samples that are within some distance, each in both orders.

    Attributes:
        rows: Shape (E,), int64, ascending. Every sample is paired with itself.
        columns: Shape (E,), int64, ascending within a row.
        distances: Shape (E,), float32, in [0, 1].
    """

    rows: Tensor
    columns: Tensor
    distances: Tensor


class WeightedSets(NamedTuple):
    """M sets of samples: set i holds columns[e] for each e with rows[e] = i.

    Attributes:
        rows: Shape (E,), int64, ascending.
        columns: Shape (E,), int64, ascending within a row.
        weights: Of the members, shape (E,); those of a row sum to 1.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor


@torch.no_grad()
def close_pairs(feats: Tensor, k1: int, k2: int, radius: float) -> ClosePairs:
    """Find all pairs whose k-reciprocal neighbours are much the same.

    R(i, k) are i itself and those of its k nearest neighbours that have i among theirs.
    R(i, k1) grows by each R(j, k1/2), j ∈ R(i, k1), of which it holds two thirds, and
    its members count e^{−‖x_i − x_j‖²}, scaled to the sum 1. These weights are then
    averaged over i and its k2 − 1 nearest neighbours. The distance of i and j is one
    minus the sum of the smaller, over the sum of the larger weights of the two sets.

    Computed in float32, under autocast too. With sets of about s members it takes
    O(M·s²) beside the search for neighbours.

    Args:
        feats: L2-normalised, shape (M, D).
        k1: Neighbours that may be reciprocal, at least 1; M − 1 where there are fewer.
        k2: Samples that are averaged, at least 1, which averages nothing.
        radius: Largest distance, below 1.

    Returns:
        The pairs, symmetric to the bit.

    Source: Zhong et al., *Re-ranking Person Re-identification with k-reciprocal
    Encoding*, CVPR 2017, section 3, with the weights' sum of their code; the squared
    distance of normalised embeddings as in the code of Ge et al., *SpCL*, NeurIPS 2020.
    The sparse computation is ours.
    """
    with torch.autocast(feats.device.type, enabled=False):
        feats = feats.float()
        return _within(reciprocal_sets(feats, k1, k2), len(feats), radius)


@torch.no_grad()
def reciprocal_sets(
    feats: Tensor, k1: int, k2: int, chunk_size: int = 4096
) -> WeightedSets:
    """Return the weighted sets of :func:`close_pairs`, one of each sample.

    Args:
        feats: L2-normalised, shape (M, D), float32.
        k1: Neighbours that may be reciprocal, at least 1; M − 1 where there are fewer.
        k2: Samples that are averaged, at least 1, which averages nothing.
        chunk_size: Samples whose neighbours are searched at a time. Defaults to 4096.
    """
    own = torch.arange(len(feats), device=feats.device)
    k = min(max(k1, k2 - 1), len(feats) - 1)
    nearest = nearest_neighbours(feats, feats, k, exclude=own, chunk_size=chunk_size)
    ranking = torch.cat([own[:, None], nearest.index], dim=1)
    return _averaged(_weighted(feats, _neighbour_sets(ranking, k1)), ranking, k2)


def _reciprocal(ranking: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return each row and its k nearest, and which of them have it among theirs."""
    near, num = ranking[:, : k + 1], len(ranking)
    own = near[:, :1]
    return near, torch.isin(near * num + own, own * num + near)


def _neighbour_sets(ranking: Tensor, k1: int) -> Tensor:
    """Return the pairs of the expanded sets, i · M + j for i and j, ascending."""
    num = len(ranking)
    near, mutual = _reciprocal(ranking, k1)
    near_half, mutual_half = _reciprocal(ranking, round(k1 / 2))
    rows, places = mutual.nonzero(as_tuple=True)
    members = near[rows, places]
    pairs = rows * num + members
    candidates = rows[:, None] * num + near_half[members]
    there = mutual_half[members]
    shared = (torch.isin(candidates, pairs) & there).sum(dim=1)
    joins = 3 * shared >= 2 * there.sum(dim=1)
    return torch.cat([pairs, candidates[there & joins[:, None]]]).unique()


def _weighted(feats: Tensor, pairs: Tensor) -> WeightedSets:
    rows, columns = pairs // len(feats), pairs % len(feats)
    similarity = torch.cat(
        [
            (feats[row] * feats[column]).sum(dim=1)
            for row, column in zip(
                rows.split(_PAIRS), columns.split(_PAIRS), strict=True
            )
        ]
    )
    weights = (2 * similarity - 2).exp()
    return WeightedSets(rows, columns, weights / torch.bincount(rows, weights)[rows])


def _averaged(sets: WeightedSets, ranking: Tensor, k2: int) -> WeightedSets:
    num, nearest = len(ranking), ranking[:, :k2]
    starts, counts = spans(sets.rows, num)
    senders = nearest.flatten()
    sender, entries = concatenated(starts[senders], counts[senders])
    receivers = sender // nearest.shape[1]
    pairs, pair_of_entry = (receivers * num + sets.columns[entries]).unique(
        return_inverse=True
    )
    total = torch.bincount(pair_of_entry, sets.weights[entries])
    return WeightedSets(pairs // num, pairs % num, total / nearest.shape[1])


def _within(sets: WeightedSets, num: int, radius: float) -> ClosePairs:
    by_column = sets.columns.argsort(stable=True)
    holders, held_weights = sets.rows[by_column], sets.weights[by_column]
    starts, counts = spans(sets.columns, num)
    first_entry, entries_of_row = spans(sets.rows, num)
    found = []
    for start in range(0, num, _ROWS):
        rows = min(_ROWS, num - start)
        size = int(entries_of_row[start : start + rows].sum())
        chunk = slice(int(first_entry[start]), int(first_entry[start]) + size)
        columns = sets.columns[chunk]
        entry, place = concatenated(starts[columns], counts[columns])
        smaller = sets.weights[chunk][entry].minimum(held_weights[place])
        pairs = (sets.rows[chunk][entry] - start) * num + holders[place]
        # Both orders of a pair add the same numbers in the same order: the columns'.
        shared = torch.bincount(pairs, smaller, minlength=rows * num)
        distances = (1 - shared / (2 - shared)).clamp_min(0)
        close = (distances <= radius).nonzero().squeeze(1)
        found.append((close // num + start, close % num, distances[close]))
    return ClosePairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def spans(numbers: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return where each of 0 … num − 1 begins among sorted numbers, and how many."""
    counts = torch.bincount(numbers, minlength=num)
    return counts.cumsum(0) - counts, counts


def concatenated(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return which span each place is of, and the places, span after span."""
    span = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    places = torch.arange(len(span), device=counts.device) - before[span]
    return span, starts[span] + places
