"""Position embeddings of a vision transformer at another image size."""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError


def resize_position_grid(embedding: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize learned position embeddings from a square grid to any other.

    Bicubic, corners not aligned; the class token's position is kept as it is. Computed
    in float32 at least: half precision has no bicubic interpolation everywhere.

    Args:
        embedding: Shape (1 + S², C): the class token's, then S rows of S patches.
        grid: Patches (down, across) afterwards.

    Returns:
        Shape (1 + down · across, C), in the dtype of what came in.

    Raises:
        InputError: If the patches of ``embedding`` are no square.

    Source: Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021, section 3.2.
    """
    side = isqrt(max(len(embedding) - 1, 0))
    if side == 0 or side * side != len(embedding) - 1:
        raise InputError(
            f'position embeddings must be those of a class token and a square of '
            f'patches, got {len(embedding)} rows'
        )
    if grid == (side, side):
        return embedding
    dtype = torch.promote_types(embedding.dtype, torch.float32)
    corner, patches = embedding[:1], embedding[1:].to(dtype)
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode='bicubic', align_corners=False)
    patches = resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)
    return torch.cat((corner, patches.to(embedding.dtype)))
