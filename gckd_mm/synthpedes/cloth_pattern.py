"""The patterns of cloth: stripes, checks, dots and two tones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gckd_mm.synthpedes.shading import Cloth
from gckd_mm.synthpedes.wardrobe import Garment

Weave = Callable[[np.ndarray, np.ndarray], np.ndarray]


def pattern_of(garment: Garment, metre: float) -> Cloth | None:
    """Return the pattern of a garment's cloth.

    Args:
        garment: What is worn.
        metre: How many pixels a metre has.

    Returns:
        The second colour and where it shows. None for plain cloth, and for a logo,
        which is not woven in.
    """
    weave = _WEAVES.get(garment.pattern)
    if garment.second is None or weave is None:
        return None
    return Cloth(garment.second.rgb, weave(metre))


def _soft(distance: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(distance + 0.5, 0.0), 1.0)


def _wave(place: np.ndarray, period: float) -> np.ndarray:
    """Return the distance in pixels into every second half period."""
    share = place / period
    return (0.25 - np.abs(share - np.floor(share) - 0.5)) * period


def _stripes(period: float) -> Weave:
    return lambda _, along: _soft(_wave(along, period))


def _checks(period: float) -> Weave:
    def weave(across: np.ndarray, along: np.ndarray) -> np.ndarray:
        first, second = _soft(_wave(along, period)), _soft(_wave(across, period))
        return (first + second) * 0.5

    return weave


def _dots(period: float) -> Weave:
    def weave(across: np.ndarray, along: np.ndarray) -> np.ndarray:
        v = along / period
        row = np.floor(v)
        u = across / period + row * 0.5
        dx, dy = u - np.floor(u) - 0.5, v - row - 0.5
        return _soft((0.3 - np.sqrt(dx * dx + dy * dy)) * period)

    return weave


def _below(edge: float) -> Weave:
    return lambda _, along: _soft(along - edge)


_WEAVES: dict[str, Callable[[float], Weave]] = {
    'striped': lambda metre: _stripes(0.115 * metre),
    'checked': lambda metre: _checks(0.125 * metre),
    'dotted': lambda metre: _dots(0.105 * metre),
    'two-tone': lambda metre: _below(0.26 * metre),
}
