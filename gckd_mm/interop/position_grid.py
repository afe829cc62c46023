"""Position embeddings of image patches, for another image size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError


def resize_position_grid(
    positions: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]
) -> Tensor:
    """Resize a grid of position embeddings, bicubic; the class token's is kept.

    Args:
        positions: Class token first, then the patches row by row, shape
            (1 + H * W, C).
        grid: H and W.
        new_grid: H' and W'.

    Returns:
        Shape (1 + H' * W', C), dtype kept; the input itself if the grids are equal.

    Raises:
        InputError: If there are not H * W patches.

    Source: what transformers' ``interpolate_pos_encoding`` does in every forward pass.
    """
    if len(positions) != 1 + grid[0] * grid[1]:
        raise InputError(
            f'{len(positions)} position embeddings are not a class token and a grid of '
            f'{grid[0]} × {grid[1]} patches'
        )
    if grid == new_grid:
        return positions
    patches = positions[1:].float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, new_grid, mode='bicubic', align_corners=False)
    rows = resized.permute(0, 2, 3, 1).reshape(new_grid[0] * new_grid[1], -1)
    return torch.cat([positions[:1], rows.to(positions.dtype)])


def square_grid(positions: Tensor) -> tuple[int, int] | None:
    """Return the square grid that position embeddings fill; None if they do not."""
    side = round((len(positions) - 1) ** 0.5)
    return (side, side) if 1 + side * side == len(positions) else None


def grid_of_image(image_size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return how many patches an image has.

    Args:
        image_size: Height and width, in pixels.
        patch: Side of a patch, in pixels.

    Raises:
        InputError: If the patches do not divide the image.
    """
    height, width = image_size
    if height < patch or width < patch or height % patch or width % patch:
        raise InputError(
            f'an image of {height} × {width} pixels is not made of patches of '
            f'{patch} × {patch}: take multiples of {patch}'
        )
    return height // patch, width // patch
