"""What an embedding has to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gckd_mm.errors import InputError

#: of the length of an embedding; 16-bit floats round it by less
_TOLERANCE = 1e-3


def lengths_are_one(feats: np.ndarray) -> np.ndarray:
    """Return which vectors, shape (N, D), are finite and of length 1: shape (N,)."""
    # float64: the square of a finite float32 may be none
    squares = np.einsum('nd,nd->n', feats, feats, dtype=np.float64)
    with np.errstate(invalid='ignore'):
        return np.abs(np.sqrt(squares) - 1) <= _TOLERANCE


def check_embeddings(feats: np.ndarray, paths: Sequence[str], size: int) -> None:
    """Refuse embeddings of another shape than (N, D), not finite or not of length 1."""
    if feats.shape != (len(paths), size):
        raise InputError(
            f'the embeddings of {len(paths)} images must have shape '
            f'({len(paths)}, {size}), got {feats.shape}'
        )
    bad = np.flatnonzero(~lengths_are_one(feats))
    if not len(bad):
        return
    first = feats[bad[0]]
    got = 'numbers that are not finite'
    if np.isfinite(first).all():
        got = f'length {np.linalg.norm(first.astype(np.float64)):.3g}'
    raise InputError(
        f'{paths[bad[0]]}: its embedding must be finite and of length 1, got {got} '
        f'({len(bad)} of {len(paths)} images): is the model damaged, or did its '
        f'training diverge?'
    )


def checked_queries(feats: Any, size: int) -> np.ndarray:
    """Return embeddings of queries, shape (Q, D), as contiguous float32.

    None may be zero or not finite.
    """
    try:
        checked = np.ascontiguousarray(feats, np.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: of PyTorch
        raise InputError(
            f'queries must be numbers of shape (Q, {size}), got '
            f'{type(feats).__name__}: {error}'
        ) from error
    if checked.ndim != 2 or checked.shape[1] != size:
        raise InputError(f'queries must have shape (Q, {size}), got {checked.shape}')
    with np.errstate(over='ignore', invalid='ignore'):
        squares = np.einsum('qd,qd->q', checked, checked)
    if np.isfinite(squares).all() and squares.all():
        return checked  # the usual case, in a few microseconds
    finite = np.isfinite(checked).all(axis=1)
    if not finite.all():
        raise InputError(
            f'query {np.argmin(finite)}: its embedding is not finite: is the model '
            f'damaged, or did its training diverge?'
        )
    zero = ~checked.any(axis=1)
    if zero.any():
        raise InputError(
            f'query {np.argmax(zero)}: its embedding is zero, which is similar to '
            f'nothing'
        )
    return checked
