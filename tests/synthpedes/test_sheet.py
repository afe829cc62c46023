from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.sheet import Sheet, clipped, doubled

RED = (200.0, 0.0, 0.0)


def painted(shape: str, *values: object, **options: object) -> np.ndarray:
    sheet = Sheet(np.zeros((160, 80, 3), np.float32))
    getattr(sheet, shape)(*values, RED, **options)
    return sheet.pixels[:, :, 0] / 200


def test_an_oval_has_the_area_of_an_ellipse() -> None:
    area = painted('oval', 0.5, 0.5, 0.1, 0.2).sum()
    assert area == pytest.approx(np.pi * 16 * 32, rel=0.03)


def test_a_ring_is_open() -> None:
    cover = painted('ring', 0.5, 0.5, 0.2, 0.02)
    assert cover[80, 40] == 0
    assert cover.sum() == pytest.approx(2 * np.pi * 32 * 3.2, rel=0.1)


def test_a_stroke_joins_its_ends() -> None:
    cover = painted('stroke', (0.25, 0.25), (0.75, 0.5), 0.05)
    for share in (0.0, 0.5, 1.0):
        assert cover[int(40 + 40 * share), int(20 + 40 * share)] > 0.9
    assert cover[40, 60] == 0


def test_a_box_covers_whole_pixels_and_alpha_blends() -> None:
    cover = painted('box', 0.25, 0.25, 0.5, 0.5, alpha=0.5)
    assert set(np.unique(cover)) == {0.0, 0.5}
    assert (cover > 0).sum() == 40 * 20


@pytest.mark.parametrize(
    ('shape', 'values'),
    [
        ('oval', (3.0, 0.5, 0.1, 0.1)),
        ('ring', (0.5, -2.0, 0.1, 0.02)),
        ('stroke', ((0.2, 5.0), (0.8, 5.0), 0.05)),
    ],
)
def test_what_is_off_the_sheet_is_left_out(shape: str, values: tuple) -> None:
    assert painted(shape, *values).sum() == 0


def test_mottle_stays_in_its_band() -> None:
    sheet = Sheet(np.full((160, 80, 3), 100, np.float32))
    sheet.mottle(0.5, 1, 4.0, RandomStream('mottle'))
    assert (sheet.pixels[:80] == 100).all()
    assert 1 < sheet.pixels[80:].std() < 8


def test_doubling_interpolates() -> None:
    ramp = np.arange(6, dtype=np.float32)[:, None, None] * np.ones((1, 4, 3), 'f4')
    rows = doubled(ramp)[:, 0, 0]
    assert doubled(ramp).shape == (12, 8, 3)
    np.testing.assert_allclose(rows[1:-1], np.arange(0.25, 5, 0.5))
    assert (rows[0], rows[-1]) == (0, 5)


def test_clipping_is_in_place() -> None:
    share = np.float32([-1, 0.5, 2])
    assert clipped(share) is share
    assert share.tolist() == [0, 0.5, 1]
