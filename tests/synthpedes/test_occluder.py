from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.occluder import render_occluder
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.scene import SCENES

HEIGHT, WIDTH = 160, 80


def occluded(scene: str, *path: str | int) -> np.ndarray:
    """Return which pixels an occluder changes, (H, W) bool."""
    canvas = Canvas(HEIGHT, WIDTH)
    canvas.pixels[...] = -1000
    render_occluder(canvas, scene, RandomStream(*path))
    return np.abs(canvas.pixels + 1000).max(axis=2) > 0.5


@pytest.mark.parametrize('scene', SCENES)
def test_the_same_path_gives_the_same_occluder(scene: str) -> None:
    np.testing.assert_array_equal(occluded(scene, 'a'), occluded(scene, 'a'))


@pytest.mark.parametrize('scene', SCENES)
def test_an_occluder_covers_a_part_at_the_side_or_the_bottom(scene: str) -> None:
    middle = []
    for number in range(40):
        changed = occluded(scene, 'occluder', number)
        assert 0.05 <= changed.mean() <= 0.35, number
        middle.append(
            changed[HEIGHT // 8 : HEIGHT // 2, 3 * WIDTH // 8 : -3 * WIDTH // 8]
        )
    assert np.mean(middle) < 0.02


@pytest.mark.parametrize('scene', SCENES)
def test_occluders_are_of_several_kinds_and_places(scene: str) -> None:
    shapes = {occluded(scene, 'kind', number).tobytes() for number in range(10)}
    assert len(shapes) == 10


def test_an_unknown_scene_is_refused_with_the_scenes_there_are() -> None:
    with pytest.raises(InputError, match=r"'beach'.*" + ', '.join(SCENES)):
        render_occluder(Canvas(HEIGHT, WIDTH), 'beach', RandomStream('unknown'))
