"""One step of a lazy random walk over a graph of neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gckd_mm.models.functional.neighbours import Neighbours
from gckd_mm.models.functional.propagation import neighbour_weights


class Walk(NamedTuple):
    """Where one step leads from each of N rows, and how likely.

    Attributes:
        ends: The row itself, then its neighbours, shape (N, 1 + K), int64.
        chances: Their probabilities, shape (N, 1 + K), float32; where there is no
            neighbour, 0, and the end is the row itself.
    """

    ends: Tensor
    chances: Tensor


@torch.no_grad()
def lazy_walk(neighbours: Neighbours, share: float, temperature: float) -> Walk:
    """Return the step that stays with 1 − ``share``, or else goes to a neighbour.

    Args:
        neighbours: Of N rows, among these same rows, K each.
        share: From 0 (nobody moves) to 1. A row without neighbours stays.
        temperature: Divides the similarities in the softmax that chooses among the
            neighbours.

    Returns:
        Shapes (N, 1 + K).

    Source: ours. (Zhou et al., *Learning with Local and Global Consistency*, NeurIPS
    2003, let labels walk until they come to rest; this is one step.)
    """
    rows = torch.arange(len(neighbours.index), device=neighbours.index.device)[:, None]
    moves = share * neighbour_weights(neighbours, temperature)
    stays = 1 - moves.sum(dim=1, keepdim=True)
    ends = torch.where(neighbours.index < 0, rows, neighbours.index)
    return Walk(torch.cat([rows, ends], dim=1), torch.cat([stays, moves], dim=1))


@torch.no_grad()
def walked(labels: Tensor, index: Tensor, walk: Walk) -> tuple[Tensor, Tensor]:
    """Let labels walk one step, each from its own row.

    Args:
        labels: Of N queries, shape (N, C), not negative.
        index: Their rows, shape (N, C), int64.
        walk: Over all rows.

    Returns:
        Labels and rows after the step, shapes (N, C · (1 + K)); the same row may come
        several times, and its labels add up. The sum of a query's labels is unchanged.
    """
    moved = labels[..., None] * walk.chances[index]
    return moved.flatten(1), walk.ends[index].flatten(1)
