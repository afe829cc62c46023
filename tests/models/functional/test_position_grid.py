"""Resized position embeddings, against transformers' own interpolation."""

from __future__ import annotations

import pytest
import torch

from gckd_mm.models.functional.position_grid import (
    grid_of_image,
    resize_position_grid,
    square_grid,
)


@pytest.mark.parametrize('grid', [(12, 4), (3, 9), (5, 5), (1, 1)])
def test_against_transformers(grid: tuple[int, int]) -> None:
    clip = pytest.importorskip('transformers.models.clip.modeling_clip')
    config = clip.CLIPVisionConfig(hidden_size=48, image_size=32, patch_size=8)
    judge = clip.CLIPVisionEmbeddings(config)
    weight = judge.position_embedding.weight.detach()
    tokens = torch.zeros(1, 1 + grid[0] * grid[1], 48)

    expected = judge.interpolate_pos_encoding(tokens, 8 * grid[0], 8 * grid[1])[0]

    torch.testing.assert_close(
        resize_position_grid(weight, grid), expected, rtol=0, atol=0
    )


def test_the_same_grid_is_left_alone() -> None:
    embedding = torch.randn(17, 6)

    assert torch.equal(resize_position_grid(embedding, (4, 4)), embedding)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_and_the_class_token_are_kept(dtype: torch.dtype) -> None:
    embedding = torch.randn(17, 6).to(dtype)

    resized = resize_position_grid(embedding, (6, 2))

    assert resized.dtype == dtype
    assert resized.shape == (13, 6)
    assert torch.equal(resized[0], embedding[0])
    exact = resize_position_grid(embedding.double(), (6, 2))
    tolerance = 2 * torch.finfo(dtype).eps * exact.abs().max()
    assert (resized.double() - exact).abs().max() <= max(tolerance, 1e-12)


def test_rows_stay_above_and_columns_left() -> None:
    # The row number in one channel, the column number in the other.
    down, across = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing='ij')
    patches = torch.stack((down, across), dim=-1).reshape(16, 2)
    embedding = torch.cat((torch.zeros(1, 2), patches))

    resized = resize_position_grid(embedding, (8, 2))[1:].reshape(8, 2, 2)

    assert (resized[1:, :, 0] > resized[:-1, :, 0]).all()
    assert (resized[:, 1, 1] > resized[:, 0, 1]).all()
    torch.testing.assert_close(resized[:, 0, 0], resized[:, 1, 0])


@pytest.mark.parametrize('rows', [0, 1, 3, 16, 193])
def test_what_is_no_square_is_refused(rows: int) -> None:
    with pytest.raises(ValueError, match=f'got {rows} rows'):
        resize_position_grid(torch.zeros(rows, 4), (2, 2))


def test_a_grid_that_is_no_square() -> None:
    # Values depend on the row alone: the columns of the new grid are equal.
    rows = torch.arange(3.0).repeat_interleave(2)
    embedding = torch.cat([torch.zeros(1), rows])[:, None]

    resized = resize_position_grid(embedding, (6, 5), before=(3, 2))[1:].reshape(6, 5)

    torch.testing.assert_close(resized, resized[:, :1].expand(6, 5))
    assert (resized[1:, 0] > resized[:-1, 0]).all()
    back = resize_position_grid(embedding, (3, 2), before=(3, 2))
    assert torch.equal(back, embedding)


def test_a_grid_that_is_not_there() -> None:
    assert square_grid(torch.zeros(197, 1)) == (14, 14)
    assert square_grid(torch.zeros(193, 1)) is None
    with pytest.raises(ValueError, match='a 14 × 14 grid of patches, got 193 rows'):
        resize_position_grid(torch.zeros(193, 1), (24, 8), before=(14, 14))


@pytest.mark.parametrize('size', [(380, 128), (384, 8), (0, 128), (-16, 16)])
def test_an_image_that_patches_do_not_fill(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match='take multiples of 16'):
        grid_of_image(size, 16)
    assert grid_of_image((384, 128), 16) == (24, 8)
