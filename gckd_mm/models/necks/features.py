"""What necks take and give: a tensor, or the tuple of a backbone's stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

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
