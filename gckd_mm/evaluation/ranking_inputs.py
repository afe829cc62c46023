"""What a ranking is given, checked: features, person ids and shortlists."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import torch

from gckd_mm.errors import InputError

Features: TypeAlias = torch.Tensor | np.ndarray
PersonIds: TypeAlias = torch.Tensor | np.ndarray | Sequence[int]
Shortlist: TypeAlias = torch.Tensor | np.ndarray


def positive_int(value: Any, name: str) -> int:
    """Return ``value`` as an int, or raise an error that names it."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f'{name} must be an integer, got {value!r}')
    if value < 1:
        raise ValueError(f'{name} must be at least 1, got {value}')
    return int(value)


def as_features(feats: Features, name: str) -> torch.Tensor:
    """Return ``feats`` as a float32 or float64 CPU tensor, without a copy if it is."""
    if not isinstance(feats, torch.Tensor | np.ndarray):
        raise TypeError(
            f'{name} must be a torch tensor or a numpy array, '
            f'got {type(feats).__name__}'
        )
    if feats.ndim != 2 or 0 in feats.shape:
        raise ValueError(
            f'{name} must have shape (N, D) with N and D at least 1, '
            f'got {tuple(feats.shape)}'
        )
    if isinstance(feats, torch.Tensor):
        is_float = feats.is_floating_point()
    else:
        is_float = np.issubdtype(feats.dtype, np.floating)
    if not is_float:
        raise TypeError(
            f'{name} must be floating-point, got {feats.dtype}: convert it to float32'
        )
    wide = feats.dtype.itemsize > 4
    if isinstance(feats, torch.Tensor):
        return feats.detach().to('cpu', torch.float64 if wide else torch.float32)
    # torch warns of read-only arrays and refuses negative strides.
    return torch.from_numpy(
        np.require(feats, np.float64 if wide else np.float32, ['C', 'W'])
    )


def largest_norm(feats: np.ndarray, name: str) -> float:
    """Return the largest norm of a row, or refuse rows that are not finite."""
    # einsum accumulates in float64 without a float64 copy of the features
    squares = np.einsum('nd,nd->n', feats, feats, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(squares))
    if len(bad):
        raise InputError(
            f'{name}: row {bad[0]} is the first of {len(bad)} with NaN, infinite or '
            f'overflowing values: check the model and its mixed precision'
        )
    return float(np.sqrt(squares.max(initial=0)))


def check_products(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Refuse features whose inner products would be NaN or infinite."""
    norms = [
        largest_norm(query.numpy(), 'query_feats'),
        largest_norm(gallery.numpy(), 'gallery_feats'),
    ]
    # |<q, g>| <= |q| |g| bounds the partial sums of the product too
    if norms[0] * norms[1] > torch.finfo(query.dtype).max:
        raise ValueError(
            f'query_feats and gallery_feats have rows of norm {norms[0]:.3g} and '
            f'{norms[1]:.3g}, whose product overflows {query.dtype}: L2-normalise them'
        )


def as_pids(pids: PersonIds, count: int, name: str, feats_name: str) -> np.ndarray:
    """Return ``pids`` as an int64 array of ``count`` ids."""
    if isinstance(pids, torch.Tensor):
        pids = pids.cpu().numpy()
    array = np.asarray(pids)
    if array.shape != (count,):
        raise ValueError(
            f'{name} must hold one id for each of the {count} rows of {feats_name}, '
            f'got shape {array.shape}'
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f'{name} must be integers, got {array.dtype}')
    return array.astype(np.int64)


def as_shortlist(
    shortlist: Shortlist, num_queries: int, num_gallery: int
) -> np.ndarray:
    """Return ``shortlist`` as an int64 array of different gallery indices in a row."""
    if isinstance(shortlist, torch.Tensor):
        shortlist = shortlist.cpu().numpy()
    if shortlist.ndim != 2 or len(shortlist) != num_queries:
        raise ValueError(
            f'shortlist must have shape (Q, K) with Q = {num_queries}, got '
            f'{shortlist.shape}'
        )
    if not np.issubdtype(shortlist.dtype, np.integer):
        raise TypeError(f'shortlist must be integers, got {shortlist.dtype}')
    ascending = np.sort(shortlist, axis=1)
    if np.any(ascending < 0) or np.any(ascending >= num_gallery):
        raise ValueError(
            f'shortlist must hold indices of the {num_gallery} gallery images, got '
            f'{ascending.min()} to {ascending.max()}'
        )
    if np.any(ascending[:, 1:] == ascending[:, :-1]):
        raise ValueError('shortlist must not name an image twice for one query')
    return shortlist.astype(np.int64)
