"""Hard negatives: for each item the candidate that is easily mistaken for a match."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def hard_negatives(
    similarity: Tensor,
    forbidden: Tensor,
    generator: torch.Generator | None = None,
    temperature: float = 0.05,
    sample: bool = True,
) -> Tensor:
    """Choose for each row one column that is not forbidden, preferably a similar one.

    Args:
        similarity: Cosine similarities, shape (N, M), M at least 1; compared in
            float32. No gradient flows back.
        forbidden: Shape (N, M), bool. A column is never chosen where it is True.
        generator: Of the draws, on the device of ``similarity``. Defaults to torch's
            own.
        temperature: Columns are sampled with probability softmax(similarity /
            temperature) over those permitted. Defaults to 0.05.
        sample: Whether to draw; if not, the most similar column is taken. Defaults to
            True.

    Returns:
        Column of each row, shape (N,), int64; -1 where all columns are forbidden.

    Source: Li et al., *Align before Fuse* (ALBEF), NeurIPS 2021, §3.2. The mask of
    forbidden pairs and the temperature of its own are ours.
    """
    scores = similarity.float()
    if sample:
        # The Gumbel-max trick draws from the softmax. The mask is applied last, so that
        # no rounding or underflow can let a forbidden column win.
        noise = torch.empty_like(scores).exponential_(generator=generator)
        scores = scores / temperature - noise.log()
    chosen = scores.masked_fill(forbidden, float('-inf')).argmax(dim=1)
    return chosen.masked_fill(forbidden.all(dim=1), -1)
