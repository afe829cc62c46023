"""Which embeddings a gallery takes."""

from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.search.gallery.embeddings import (
    check_embeddings,
    checked_queries,
    lengths_are_one,
)
from tests.search.gallery.engines import SIZE, feats_of

PATHS = ['a.jpg', 'b.jpg', 'c.jpg']


def with_row(row: np.ndarray | float) -> np.ndarray:
    feats = feats_of(3)
    feats[1] = row
    return feats


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    feats = feats_of(3)
    feats[1, 5] = value
    with pytest.raises(InputError, match=r'^b\.jpg: .*not finite \(1 of 3 images\)'):
        check_embeddings(feats, PATHS, SIZE)
    with pytest.raises(InputError, match=r'^query 1: its embedding is not finite'):
        checked_queries(feats, SIZE)


@pytest.mark.parametrize('length', [0, 1e-30, 0.998, 1.002, 1e30])
def test_another_length_than_one(length: float) -> None:
    feats = with_row(feats_of(1)[0] * np.float32(length))
    with pytest.raises(InputError, match=r'^b\.jpg: .*of length 1, got length'):
        check_embeddings(feats, PATHS, SIZE)


def test_what_rounds_to_sixteen_bits_is_taken() -> None:
    for dtype in (np.float16, np.float32):
        feats = feats_of(200).astype(dtype).astype(np.float32)
        assert lengths_are_one(feats).all()


def test_a_query_may_have_any_length_but_none() -> None:
    checked_queries(with_row(feats_of(1)[0] * 7), SIZE)
    with pytest.raises(InputError, match=r'^query 1: its embedding is zero'):
        checked_queries(with_row(0.0), SIZE)


@pytest.mark.parametrize('shape', [(2, SIZE), (3, SIZE + 1), (3, SIZE, 1)])
def test_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf'must have shape \(3, {SIZE}\), got'):
        check_embeddings(np.zeros(shape, np.float32), PATHS, SIZE)


def test_no_images_have_no_embeddings() -> None:
    check_embeddings(np.empty((0, SIZE), np.float32), [], SIZE)
