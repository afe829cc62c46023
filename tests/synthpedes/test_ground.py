from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.synthpedes.ground import band, joints, lay_ground, stripes
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.sheet import Sheet

SHEET = Sheet(np.zeros((80, 40, 3), np.float32))


@pytest.mark.parametrize('horizon', [0.0, 0.3, 0.6])
def test_what_is_higher_up_is_farther_away_and_smaller(horizon: float) -> None:
    ground = lay_ground(SHEET, horizon, RandomStream('ground'))
    rows = 80 - ground.top
    assert ground.top == round(horizon * 80)
    assert ground.across.shape == (rows, 40)
    assert ground.along.shape == (rows, 1)
    assert (np.diff(ground.along[:, 0]) < 0).all()
    widths = ground.across[:, -1] - ground.across[:, 0]
    assert (np.diff(widths) < 0).all()
    assert widths[-1] == pytest.approx(2 * 39 / 40, rel=0.05)


def test_a_horizon_at_the_bottom_leaves_no_ground() -> None:
    ground = lay_ground(SHEET, 1.0, RandomStream('ground'))
    assert ground.across.shape == (0, 40)
    assert joints(ground, 0.5, 0.05).shape == (0, 40)


def test_stripes_fill_their_share_of_each_period() -> None:
    place = np.arange(0, 20, 0.001, dtype=np.float32)
    assert stripes(place, 2.0, 0.3).mean() == pytest.approx(0.3, abs=0.01)


def test_a_band_lies_between_its_ends() -> None:
    place = np.float32([0, 0.9, 2, 3.1, 9])
    np.testing.assert_allclose(band(place, 1, 3), [0, 0, 1, 0, 0], atol=1e-6)
    assert band(np.float32([1.0]), 1, 3) == pytest.approx(0.5)
