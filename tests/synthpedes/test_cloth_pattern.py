from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.synthpedes.cloth_pattern import pattern_of
from gckd_mm.synthpedes.wardrobe import Colour, Garment

RED, WHITE = Colour('red', (202, 36, 42)), Colour('white', (238, 238, 234))
ROWS, COLUMNS = np.float32(np.mgrid[:120, :120])


@pytest.mark.parametrize('pattern', ['striped', 'checked', 'dotted', 'two-tone'])
def test_a_pattern_shows_both_colours(pattern: str) -> None:
    cloth = pattern_of(Garment('shirt', RED, pattern, WHITE), 100.0)
    assert cloth is not None
    assert cloth.second == WHITE.rgb
    share = np.broadcast_to(cloth.weave(COLUMNS, ROWS), (120, 120))
    assert share.min() == 0
    assert share.max() == 1
    assert 0.15 < share.mean() < 0.85


@pytest.mark.parametrize('pattern', ['striped', 'checked', 'dotted'])
def test_a_pattern_is_as_large_as_the_figure(pattern: str) -> None:
    garment = Garment('shirt', RED, pattern, WHITE)
    far, near = pattern_of(garment, 50.0), pattern_of(garment, 100.0)
    assert far is not None
    assert near is not None
    difference = near.weave(2 * COLUMNS, 2 * ROWS) - far.weave(COLUMNS, ROWS)
    assert np.abs(difference).mean() < 0.1  # the colours meet as softly on both


@pytest.mark.parametrize('pattern', ['plain', 'logo'])
def test_what_is_not_woven_in_is_no_pattern(pattern: str) -> None:
    assert pattern_of(Garment('shirt', RED, pattern, WHITE), 100.0) is None
