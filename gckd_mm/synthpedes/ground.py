"""The ground of a scene, in perspective."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.sheet import Sheet, clipped


class Ground(NamedTuple):
    """The ground as seen: where on it each pixel below the horizon lies.

    Attributes:
        top: First row of the ground.
        across: Ground distance to the right of the middle, (rows, W) float32; the
            image's lower edge is 2 long.
        along: Ground distance from the camera, (rows, 1) float32, in the same unit.
    """

    top: int
    across: np.ndarray
    along: np.ndarray


def lay_ground(sheet: Sheet, horizon: float, stream: RandomStream) -> Ground:
    """Lay the ground out in perspective.

    Args:
        sheet: Whose pixels are asked for.
        horizon: Share of the height above the ground.
        stream: Where one stands and how high the eye is.

    Returns:
        The ground below the horizon; no rows of it if ``horizon`` is 1.
    """
    top = sheet.row(horizon)
    # eye height is above the foot of the wall, the more so the lower the camera looks
    rise = stream.uniform(0.15, 0.4) + max(0.0, 0.5 - horizon) * 0.8
    vanish = np.float32((horizon - rise) * sheet.height)
    depth = (np.float32(sheet.height) - vanish) / (sheet.rows[top:] - vanish)
    middle = np.float32(sheet.width * stream.uniform(0.2, 0.8))
    sideways = (sheet.columns - middle) / np.float32(0.5 * sheet.width)
    scale = np.float32(2.0 + 2.0 * rise)
    return Ground(top, sideways[None, :] * depth[:, None], depth[:, None] * scale)


def stripes(place: np.ndarray, period: float, share: float) -> np.ndarray:
    """Return 1 on stripes that fill a share of each period, 0 off, soft between."""
    turns = place / np.float32(period)
    turns -= np.floor(turns)
    distance = np.abs(turns - np.float32(0.5))
    return clipped(
        (np.float32(share / 2) - distance) * np.float32(12) + np.float32(0.5)
    )


def joints(ground: Ground, size: float, share: float) -> np.ndarray:
    """Return 1 on the lines between square tiles, 0 off, soft between."""
    return np.maximum(
        stripes(ground.across, size, share), stripes(ground.along, size, share)
    )


def band(place: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 1 between two ground distances, 0 outside, soft between."""
    half, middle = np.float32((high - low) / 2), np.float32((high + low) / 2)
    inside = half - np.abs(place - middle)
    return clipped(inside * np.float32(12) + np.float32(0.5))
