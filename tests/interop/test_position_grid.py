"""Resized position grids against transformers' own."""

from __future__ import annotations

import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.interop.position_grid import (
    grid_of_image,
    resize_position_grid,
    square_grid,
)
from tests.interop.hf_model import random_hf_clip


@pytest.mark.parametrize('image_size', [(48, 16), (16, 40), (32, 32)])
def test_transformers_interpolates_the_same(image_size: tuple[int, int]) -> None:
    embeddings = random_hf_clip().vision_model.embeddings
    height, width = image_size
    new_grid = grid_of_image(image_size, 8)
    patches = torch.zeros(1, 1 + new_grid[0] * new_grid[1], 32)

    found = resize_position_grid(embeddings.position_embedding.weight, (2, 2), new_grid)

    expected = embeddings.interpolate_pos_encoding(patches, height, width)[0]
    torch.testing.assert_close(found, expected)


def test_the_class_token_and_the_dtype_are_kept() -> None:
    positions = torch.randn(5, 3, dtype=torch.float16)

    found = resize_position_grid(positions, (2, 2), (3, 4))

    assert found.dtype == torch.float16
    assert found.shape == (13, 3)
    assert torch.equal(found[0], positions[0])
    assert resize_position_grid(positions, (2, 2), (2, 2)) is positions


def test_rows_and_columns_are_told_apart() -> None:
    # A grid whose values depend on the row alone: columns of the new one are equal.
    rows = torch.arange(3.0).repeat_interleave(2)
    positions = torch.cat([torch.zeros(1), rows])[:, None]

    found = resize_position_grid(positions, (3, 2), (6, 5))[1:].reshape(6, 5)

    assert torch.allclose(found, found[:, :1].expand(6, 5))
    assert not torch.allclose(found[0], found[-1])


def test_a_grid_that_is_not_there() -> None:
    assert square_grid(torch.zeros(197, 1)) == (14, 14)
    assert square_grid(torch.zeros(193, 1)) is None
    with pytest.raises(InputError, match='193 position embeddings are not'):
        resize_position_grid(torch.zeros(193, 1), (14, 14), (24, 8))


@pytest.mark.parametrize('size', [(380, 128), (384, 8), (0, 128), (-16, 16)])
def test_an_image_that_patches_do_not_fill(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match='take multiples of 16'):
        grid_of_image(size, 16)
