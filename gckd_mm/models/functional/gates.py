"""Gates: which queries of a batch have labels that are worth learning from."""

from __future__ import annotations

import torch
from torch import Tensor


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
