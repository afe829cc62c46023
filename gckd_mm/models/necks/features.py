"""What necks take and give: a tensor, or the tuple of a backbone's stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gckd_mm.errors import InputError

#: the features of one stage, or of several, the last of which is meant
Features: TypeAlias = Tensor | Sequence[Tensor]


def last_of(feats: Features) -> Tensor:
    """Return the features themselves, or those of the last stage."""
    return feats if isinstance(feats, Tensor) else feats[-1]


def with_last(feats: Features, last: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Return ``last`` in the form of ``feats``: alone, or behind the other stages."""
    return last if isinstance(feats, Tensor) else (*feats[:-1], last)


def check_dimensions(
    where: str, feats: Tensor, expected: dict[int, str], hint: str
) -> None:
    """Check how many dimensions features have.

    Args:
        where: The class that takes them.
        feats: Any shape.
        expected: Number of dimensions -> what such features are.
        hint: What takes others.

    Raises:
        InputError: If it is none of the expected.
    """
    if feats.ndim not in expected:
        raise InputError(
            f'{where}: expected {" or ".join(expected.values())}, got features of '
            f'shape {tuple(feats.shape)}: {hint}'
        )


def pool_tokens(tokens: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Pool the tokens of each row, shape (N, C).

    Args:
        tokens: Shape (N, L, C), or (N, C) if they are pooled already.
        mask: Shape (N, L), bool, False on padding; None where there is none.
        pooling: ``'max'`` or ``'mean'`` of all that are no padding, ``'eos'`` (the last
            that is none), ``'cls'`` or ``'first'`` (the first).

    Raises:
        InputError: If the features have another number of dimensions.
    """
    expected = {2: 'pooled features (N, C)', 3: 'tokens (N, L, C)'}
    hint = 'feature maps need an ImageProjection'
    check_dimensions('a projection of tokens', tokens, expected, hint)
    if tokens.ndim == 2:
        return tokens
    if pooling in ('cls', 'first'):
        return tokens[:, 0]
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if pooling == 'eos':
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = (mask * positions).argmax(dim=1)
        return tokens[torch.arange(len(tokens), device=mask.device), last]
    kept = mask[..., None]
    if pooling == 'max':
        return tokens.masked_fill(~kept, float('-inf')).amax(dim=1)
    return tokens.masked_fill(~kept, 0).sum(dim=1) / kept.sum(dim=1)
