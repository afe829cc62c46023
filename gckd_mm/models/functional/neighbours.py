"""Exact nearest neighbours by cosine similarity, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Neighbours(NamedTuple):
    """The K nearest neighbours of N rows, the most similar first.

    Attributes:
        index: The neighbours' rows, shape (N, K), int64; -1 where there is none.
        similarity: Their cosine similarities, shape (N, K), float32; -inf where there
            is none.
    """

    index: Tensor  # type: ignore[assignment] # not what tuple.index is
    similarity: Tensor


def nearest_neighbours(
    queries: Tensor,
    keys: Tensor,
    k: int,
    exclude: Tensor | None = None,
    chunk_size: int = 4096,
) -> Neighbours:
    """Find the k keys most similar to each query, by brute force.

    Computed in float32, under autocast too, and without a gradient. The order of equal
    similarities is left open.

    Args:
        queries: L2-normalised, shape (N, D).
        keys: L2-normalised, shape (M, D).
        k: Neighbours a query; those that M keys cannot give are padded.
        exclude: The key that each query must not find (itself, as a rule), shape (N,),
            int64; -1 for none. Defaults to none for all.
        chunk_size: Queries compared at a time: the largest intermediate tensor takes
            4 · chunk_size · M bytes, which is 1.07 GB for M = 65,536 and the default.
            Defaults to 4096.

    Returns:
        Shapes (N, k).

    Source: ours.
    """
    index = queries.new_full((len(queries), k), -1, dtype=torch.int64)
    best = queries.new_full((len(queries), k), -torch.inf, dtype=torch.float32)
    found = min(k, len(keys))
    if found == 0:
        return Neighbours(index, best)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        transposed = keys.float().t()
        for start in range(0, len(queries), chunk_size):
            chunk = slice(start, start + chunk_size)
            similarity = queries[chunk].float() @ transposed
            if exclude is not None:
                _exclude(similarity, exclude[chunk, None])
            torch.topk(
                similarity, found, out=(best[chunk, :found], index[chunk, :found])
            )
    return Neighbours(index.masked_fill(best == -torch.inf, -1), best)


def _exclude(similarity: Tensor, columns: Tensor) -> None:
    # A masked scatter instead of the index of the rows concerned, which would make an
    # accelerator wait.
    inside = columns.clamp(min=0)
    values = similarity.gather(1, inside).masked_fill(columns >= 0, -torch.inf)
    similarity.scatter_(1, inside, values)
