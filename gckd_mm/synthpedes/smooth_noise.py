"""Noise that changes slowly from pixel to pixel."""

from __future__ import annotations

import numpy as np

from gckd_mm.synthpedes.random_stream import RandomStream


def smooth_noise(
    stream: RandomStream, height: int, width: int, cells: int | tuple[int, int]
) -> np.ndarray:
    """Return noise that changes slowly: normal values on a grid, blended between.

    Args:
        stream: It gives one number.
        height: In pixels.
        width: In pixels.
        cells: Cells of the grid down and across; a single number counts for both.

    Returns:
        Noise ``(height, width)``, float32, of mean about 0 and deviation about 0.7.
    """
    down, across = (cells, cells) if isinstance(cells, int) else cells
    knots = stream.noise(down + 1, across + 1)
    row, row_share = _cells_of(height, down)
    column, column_share = _cells_of(width, across)
    share = row_share[:, None]
    lines = knots[row] * (1.0 - share) + knots[row + 1] * share
    return lines[:, column] * (1.0 - column_share) + lines[:, column + 1] * column_share


def _cells_of(size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each pixel along an edge and the eased place in that cell."""
    place = (np.arange(size, dtype=np.float32) + 0.5) * (cells / size)
    cell = np.minimum(place.astype(np.intp), cells - 1)
    share = place - cell.astype(np.float32)
    return cell, share * share * (3.0 - 2.0 * share)
