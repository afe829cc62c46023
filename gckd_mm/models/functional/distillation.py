"""Soft labels of a teacher, the gates on them, and the loss that learns from them.

B queries are rows, M candidates are columns. Everything is computed in float32, under
autocast too (float64 stays float64); gradients reach the student's logits alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.gckd.neighbours import Neighbours


@torch.no_grad()
def soft_labels(similarity: Tensor, potentials: Tensor, temperature: float) -> Tensor:
    """Return the teacher's distribution over the candidates of each query.

    Args:
        similarity: The teacher's cosine similarities, shape (B, M).
        potentials: Corrections of the columns, shape (M,) or (B, M), in units of cosine
            similarity; zeros give the plain softmax.
        temperature: Divides the corrected similarities.

    Returns:
        Shape (B, M), rows sum to 1.

    Source: Li et al., *Align before Fuse* (ALBEF), NeurIPS 2021, section 3.3, for the
    momentum teacher's softmax; the potentials are ours.
    """
    corrected = _at_least_float32(similarity) + _at_least_float32(potentials)
    return (corrected / temperature).softmax(dim=1)


@torch.no_grad()
def keep_best(labels: Tensor, k: int) -> Tensor:
    """Keep the k largest labels of each row, and scale them to the sum 1.

    Args:
        labels: Not negative, shape (B, M).
        k: All are kept where M is not larger.

    Returns:
        Shape (B, M), with at most k entries other than 0 in a row. A row of zeros stays
        one.

    Source: ours.
    """
    labels = _at_least_float32(labels)
    best, columns = labels.topk(min(k, labels.shape[1]), dim=1)
    return torch.zeros_like(labels).scatter_(1, columns, F.normalize(best, p=1, dim=1))


def soft_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy from soft labels to the student.

    Args:
        logits: The student's similarities over its temperature, shape (B, M), finite.
        labels: The teacher's distributions, shape (B, M). Receive no gradient.
        weights: Of the rows, shape (B,), not negative; a gate is one too. Receive no
            gradient. Defaults to equal weights.

    Returns:
        Scalar: the weighted mean over the rows of −Σ_j q_j log p_j, in nats. If all
        weights are 0, it is 0 with gradients of 0.

    Source: DESIGN §3, eq. 3 (ours).
    """
    log_p = F.log_softmax(_at_least_float32(logits), dim=1)
    losses = -(labels.detach() * log_p).sum(dim=1)
    if weights is None:
        return losses.mean()
    weights = weights.detach().to(losses.dtype)
    total = weights.sum()
    # Not a tiny number instead of 0: the gradient divides by it, too, and overflows.
    return (weights * losses).sum() / total.where(total > 0, 1)


@torch.no_grad()
def entropy(labels: Tensor) -> Tensor:
    """Return the entropy of each distribution.

    Args:
        labels: Distributions, shape (B, M); 0 log 0 = 0.

    Returns:
        Shape (B,), in nats: from 0 (one candidate has all) to log M (all the same).
    """
    return torch.special.entr(_at_least_float32(labels)).sum(dim=1)


def quantile_gate(confidence: Tensor, threshold: float) -> Tensor:
    """Keep the rows that are confident beside the others of the batch.

    The gate is relative since a teacher's absolute confidence is no sign that it is
    right: on hub images it rises while the accuracy falls.

    Args:
        confidence: Shape (B,), the larger the surer.
        threshold: A quantile, in [0, 1): 0.25 drops about a quarter of the rows, 0
            none. The surest row is always kept.

    Returns:
        bool, shape (B,): the rows at or above that quantile of the batch.

    Source: ours.
    """
    confidence = _at_least_float32(confidence)
    # 'higher' cuts at a row's own confidence: an interpolated one may round to above it
    cut = torch.quantile(confidence, threshold, interpolation='higher')
    return confidence >= cut


def mutual_gate(
    best_column: Tensor, rows: Tensor, best_rows_of_columns: Tensor
) -> Tensor:
    """Keep the queries that their own best candidate would choose too.

    Args:
        best_column: The best candidate of each query, shape (B,), in 0 … M − 1.
        rows: Which query each one is, in the numbering of ``best_rows_of_columns``,
            shape (B,), not negative.
        best_rows_of_columns: The n best queries of each candidate, shape (M, n); −1
            where there is none.

    Returns:
        bool, shape (B,): query k is among the n best of k's best candidate.

    Source: ours; n = 1 gives mutual nearest neighbours.
    """
    return (best_rows_of_columns[best_column] == rows[:, None]).any(dim=1)


@torch.no_grad()
def neighbour_labels(
    neighbours: Neighbours, num_columns: int, temperature: float
) -> Tensor:
    """Return soft labels over the nearest neighbours of each row.

    Args:
        neighbours: Of B rows among M columns, shapes (B, K).
        num_columns: M.
        temperature: Divides the cosine similarities.

    Returns:
        Shape (B, M): softmax of similarity / temperature over the K neighbours, 0
        elsewhere. A row without neighbours is all zero: its sum, 0 or 1, is the weight
        to give to :func:`soft_cross_entropy`.

    Source: ours.
    """
    absent = neighbours.index < 0
    logits = _at_least_float32(neighbours.similarity) / temperature
    # a softmax over no neighbours at all is NaN, which the mask takes away
    weights = logits.softmax(dim=1).masked_fill(absent, 0)
    labels = weights.new_zeros(len(weights), num_columns)
    return labels.scatter_add_(1, neighbours.index.masked_fill(absent, 0), weights)


def agreement(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how often student and teacher have the same best candidate.

    Args:
        logits: The student's, shape (B, M).
        labels: The teacher's, shape (B, M).

    Returns:
        Scalar in [0, 1]: the share of rows.
    """
    return (logits.argmax(dim=1) == labels.argmax(dim=1)).float().mean()


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
