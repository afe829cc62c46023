"""Propagation of embeddings and labels to neighbours in a graph, without parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.gckd.neighbours import Neighbours

#: numbers that are gathered at once: 64 MB in float32
_CHUNK = 1 << 24


def neighbour_weights(neighbours: Neighbours, temperature: float) -> Tensor:
    """Return how much each neighbour counts: a softmax over those that there are.

    Args:
        neighbours: Of N rows, K each.
        temperature: Divides the similarities.

    Returns:
        Shape (N, K), float32, or float64 if the similarities are. Rows sum to 1; where
        there is no neighbour, the weight is 0.
    """
    with torch.autocast(neighbours.similarity.device.type, enabled=False):
        there = neighbours.index >= 0
        logits = _at_least_float32(neighbours.similarity) / temperature
        # Finite, since a row of -inf has no softmax and no gradient.
        logits = logits.masked_fill(~there, torch.finfo(logits.dtype).min)
        return F.softmax(logits, dim=1) * there


def neighbour_average(
    feats: Tensor, neighbours: Neighbours, temperature: float
) -> Tensor:
    """Average what each row's neighbours say, the more similar the louder.

    Differentiable in ``feats``. Takes O(N·K·D) time and memory, whatever M is, and
    computes in float32 at least, under autocast too.

    Args:
        feats: The senders, shape (M, D).
        neighbours: Of N receivers; their indices are rows of ``feats``.
        temperature: Divides the similarities; see :func:`neighbour_weights`.

    Returns:
        Shape (N, D), float32, or float64 if ``feats`` are: Σ_k softmax_k(s_k / τ) x_k,
        and 0 for a row without neighbours.

    Source: ours; the sum in DESIGN §7, item 4.
    """
    feats = _at_least_float32(feats)
    if not len(feats):
        return feats.new_zeros(len(neighbours.index), feats.shape[1])
    with torch.autocast(feats.device.type, enabled=False):
        weights = neighbour_weights(neighbours, temperature).to(feats.dtype)
        index = neighbours.index.clamp(min=0)
        rows = max(1, _CHUNK // max(1, index.shape[1] * feats.shape[1]))
        return torch.cat(
            [
                torch.einsum('nk,nkd->nd', part, F.embedding(heard, feats))
                for part, heard in zip(
                    weights.split(rows), index.split(rows), strict=True
                )
            ]
        )


def has_neighbours(neighbours: Neighbours) -> Tensor:
    """Return which rows have at least one neighbour: shape (N,), bool."""
    return (neighbours.index >= 0).any(dim=1)


class Transitions(NamedTuple):
    """A sparse transition matrix over N rows.

    Attributes:
        index: The row itself, then its neighbours, shape (N, 1 + K), int64.
        probability: Of going there, shape (N, 1 + K), float32; where there is no
            neighbour, 0, and the index is the row itself.
    """

    index: Tensor  # type: ignore[assignment] # not what tuple.index is
    probability: Tensor


@torch.no_grad()
def transition_matrix(
    neighbours: Neighbours, alpha: float, temperature: float
) -> Transitions:
    """Return (1 − α) I + α W, W being the softmax of the similarities.

    Args:
        neighbours: Of N rows, among these same rows, K each.
        alpha: α, from 0 to 1. A row without neighbours keeps the probability 1.
        temperature: Divides the similarities: see :func:`neighbour_weights`.

    Returns:
        Shapes (N, 1 + K).

    Source: ours. (Zhou et al., *Learning with Local and Global Consistency*, NeurIPS
    2003, propagate labels until they converge; this is one step.)
    """
    rows = torch.arange(len(neighbours.index), device=neighbours.index.device)[:, None]
    moves = alpha * neighbour_weights(neighbours, temperature)
    stays = 1 - moves.sum(dim=1, keepdim=True)
    index = torch.where(neighbours.index < 0, rows, neighbours.index)
    return Transitions(
        torch.cat([rows, index], dim=1), torch.cat([stays, moves], dim=1)
    )


@torch.no_grad()
def propagate_labels_once(
    labels: Tensor, index: Tensor, transitions: Transitions
) -> tuple[Tensor, Tensor]:
    """Multiply sparse labels by a transition matrix from the right.

    Args:
        labels: Of N queries, shape (N, C), not negative.
        index: Their columns, shape (N, C), int64.
        transitions: Over all columns.

    Returns:
        Labels and columns, shapes (N, C · (1 + K)); a column may come several times,
        and its labels add up. The sum of a query's labels is unchanged.
    """
    moved = labels[..., None] * transitions.probability[index]
    return moved.flatten(1), transitions.index[index].flatten(1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
