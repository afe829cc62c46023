"""Position embeddings of a vision transformer at another image size."""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError


def resize_position_grid(
    embedding: Tensor, grid: tuple[int, int], before: tuple[int, int] | None = None
) -> Tensor:
    """Resize learned position embeddings from one grid to another.

    Bicubic, corners not aligned; the class token's position is kept as it is. Computed
    in float32 at least: half precision has no bicubic interpolation everywhere.

    Args:
        embedding: Shape (1 + P, C): the class token's, then P patches row by row.
        grid: Patches (down, across) afterwards.
        before: Patches (down, across) of ``embedding``. Defaults to as many down as
            across.

    Returns:
        Shape (1 + down · across, C), in the dtype of what came in.

    Raises:
        InputError: If ``embedding`` has not as many patches, or is no square.

    Source: Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021, section 3.2.
    """
    before = before or square_grid(embedding)
    if before is None or 1 + before[0] * before[1] != len(embedding):
        shape = 'square' if before is None else f'{before[0]} × {before[1]} grid'
        raise InputError(
            f'position embeddings must be those of a class token and a {shape} of '
            f'patches, got {len(embedding)} rows'
        )
    if grid == before:
        return embedding
    dtype = torch.promote_types(embedding.dtype, torch.float32)
    corner, patches = embedding[:1], embedding[1:].to(dtype)
    patches = patches.reshape(1, *before, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(patches, size=grid, mode='bicubic', align_corners=False)
    patches = resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)
    return torch.cat((corner, patches.to(embedding.dtype)))


def square_grid(embedding: Tensor) -> tuple[int, int] | None:
    """Return the square of patches that position embeddings fill, if they do.

    Args:
        embedding: Shape (1 + P, C), with the class token's first.

    Returns:
        Patches (down, across); None where P is no square.
    """
    side = isqrt(max(len(embedding) - 1, 0))
    return (side, side) if side and 1 + side * side == len(embedding) else None


def grid_of_image(image_size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return how many patches an image has.

    Args:
        image_size: Height and width, in pixels.
        patch: Side of a patch, in pixels.

    Returns:
        Patches (down, across).

    Raises:
        InputError: If the patches do not fill the image.
    """
    height, width = image_size
    if min(image_size) < 1 or height % patch or width % patch:
        raise InputError(
            f'an image of {height} × {width} pixels (height × width) is not made of '
            f'patches of {patch} × {patch}: take multiples of {patch}'
        )
    return height // patch, width // patch
