import math
from collections.abc import Callable

import numpy as np
import pytest

from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.shading import Cloth, Shading

WHITE = (255.0, 255.0, 255.0)
BLACK = (0.0, 0.0, 0.0)


def area(draw: Callable[[Canvas], None]) -> float:
    canvas = Canvas(60, 70, BLACK)
    draw(canvas)
    return float(canvas.pixels[..., 0].sum(dtype=np.float64)) / 255


def test_capsule_covers_the_area_of_its_stadium() -> None:
    length = math.hypot(29.7, 20.2)
    got = area(lambda c: c.limb([(10.3, 10), (40, 30.2)], [4, 4], WHITE))
    assert got == pytest.approx(math.pi * 16 + 8 * length, rel=0.01)


def test_ellipse_covers_its_area() -> None:
    got = area(lambda c: c.ellipse((33.3, 30.1), (12, 7), WHITE))
    assert got == pytest.approx(math.pi * 84, rel=0.01)


def test_rectangle_and_column_cover_their_areas() -> None:
    sharp = area(lambda c: c.rectangle(10.25, 10, 40, 30.5, WHITE))
    assert sharp == pytest.approx(29.75 * 20.5, rel=1e-3)
    rounded = area(lambda c: c.rectangle(10, 10, 40, 30, WHITE, rounding=5))
    assert rounded == pytest.approx(600 - (4 - math.pi) * 25, rel=0.01)
    rows = [(10, 20, 40), (30, 15, 45), (50, 25, 45)]
    trunk = area(lambda c: c.column(rows, WHITE))
    assert trunk == pytest.approx(20 * 25 + 20 * 25, rel=0.01)


def all_shapes(canvas: Canvas, x: float, y: float) -> None:
    finish = Shading(1.0, 0.5, 0.4, 0.1, 3)
    cloth = Cloth((200, 10, 10), lambda u, v: ((u + v) % 6 < 3).astype(np.float32))
    canvas.limb(
        [(x, y), (x + 9.5, y + 12.25)],
        [3, 5],
        (90, 140, 80),
        shading=finish,
        cloth=cloth,
    )
    canvas.limb(
        [(x, y), (x + 9, y), (x + 4, y + 8)], [2, 3, 2], (9, 9, 99), shading=finish
    )
    canvas.ellipse((x + 9, y + 4), (6, 3), (220, 200, 80), alpha=0.5, shading=finish)
    canvas.rectangle(x, y + 9, x + 7.5, y + 15, (50, 60, 70), shading=finish)
    canvas.column(
        [(y + 2, x, x + 8), (y + 9, x - 2, x + 9)],
        (1, 99, 3),
        sag=2,
        shading=finish,
        cloth=cloth,
    )


def test_a_move_by_whole_pixels_moves_the_image() -> None:
    here, there = Canvas(60, 60), Canvas(60, 60)
    all_shapes(here, 12.25, 15.5)
    all_shapes(there, 29.25, 22.5)
    shifted = there.pixels[14:47, 24:60]
    np.testing.assert_allclose(here.pixels[7:40, 7:43], shifted, atol=1e-3)


def test_edges_are_antialiased() -> None:
    canvas = Canvas(30, 30, BLACK)
    canvas.ellipse((15, 15), (8, 8), WHITE)
    between = (canvas.pixels > 5) & (canvas.pixels < 250)
    assert 20 < between[..., 0].sum() < 100
    assert canvas.pixels[15, 15, 0] == 255


@pytest.mark.parametrize('x', [-200, -8, 25, 300])
@pytest.mark.parametrize('y', [-200, -8, 25, 300])
def test_what_lies_outside_is_left_out(x: float, y: float) -> None:
    small, large = Canvas(32, 32), Canvas(96, 96)
    all_shapes(small, x, y)
    all_shapes(large, x + 32, y + 32)
    np.testing.assert_allclose(small.pixels, large.pixels[32:64, 32:64], atol=1e-3)


def test_alpha_blends() -> None:
    canvas = Canvas(9, 9, (100.0, 100.0, 100.0))
    canvas.rectangle(0, 0, 9, 9, (200.0, 0.0, 100.0), alpha=0.25)
    np.testing.assert_allclose(canvas.pixels[4, 4], [125, 75, 100], atol=1e-3)


def test_a_lit_shape_is_brighter_on_the_lit_side() -> None:
    canvas = Canvas(40, 40, BLACK)
    canvas.limb(
        [(20, 5), (20, 35)], [8, 8], (150, 150, 150), shading=Shading(1.0, light=1.0)
    )
    assert canvas.pixels[20, 24, 0] > canvas.pixels[20, 15, 0] + 20
