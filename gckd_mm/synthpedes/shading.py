"""What makes a flat shape look like a thing: light, outline, creases, a pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

RGB = tuple[float, float, float]


class Cloth(NamedTuple):
    """A second colour and where it shows.

    ``weave`` takes how far a pixel is across and along the shape, both in pixels, and
    returns the share of the second colour there, in [0, 1].
    """

    second: RGB
    weave: Callable[[np.ndarray, np.ndarray], np.ndarray]


class Shading(NamedTuple):
    """What makes a flat shape look like a thing.

    Args:
        roundness: How much darker the rims are, 0 … 1. Defaults to 0.
        light: Where light comes from, -1 (left) … 1 (right). Defaults to 0.
        outline: How dark the outermost pixel is, 0 … 1. Defaults to 0.
        folds: How strong the creases of cloth are, about 0 … 0.2. Defaults to 0.
        grain: Which creases, any whole number. Defaults to 0.
    """

    roundness: float = 0.0
    light: float = 0.0
    outline: float = 0.0
    folds: float = 0.0
    grain: int = 0


FLAT = Shading()
