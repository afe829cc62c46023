from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.canvas import Canvas
from gckd_mm.synthpedes.random_stream import RandomStream
from gckd_mm.synthpedes.scene import SCENES, render_scene

HEIGHT, WIDTH = 160, 80


def drawn(
    scene: str, horizon: float, *path: str | int, size: tuple[int, int] = (160, 80)
) -> np.ndarray:
    canvas = Canvas(*size)
    canvas.pixels[...] = -1000  # what is not overdrawn stays out of range
    render_scene(canvas, scene, horizon, RandomStream(*path))
    return canvas.pixels


@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('horizon', [-0.5, 0.0, 0.01, 0.3, 0.6, 1.0])
def test_a_scene_fills_the_canvas_in_range(scene: str, horizon: float) -> None:
    for number in range(6):
        pixels = drawn(scene, horizon, 'fill', number)
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert pixels.min() >= 0
        assert pixels.max() <= 255
        assert pixels.mean() > 40


@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('size', [(160, 80), (61, 33), (384, 128)])
def test_a_scene_fits_any_size(scene: str, size: tuple[int, int]) -> None:
    pixels = drawn(scene, 0.35, 'size', size=size)
    assert pixels.shape == (*size, 3)
    assert pixels.min() >= 0


@pytest.mark.parametrize('scene', SCENES)
def test_the_same_path_gives_the_same_scene(scene: str) -> None:
    assert drawn(scene, 0.3, 'a').tobytes() == drawn(scene, 0.3, 'a').tobytes()


@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('horizon', [0.0, 0.4])
def test_a_scene_differs_from_call_to_call(scene: str, horizon: float) -> None:
    images = [drawn(scene, horizon, 'call', number) for number in range(6)]
    for first, second in combinations(images, 2):
        assert np.abs(first - second).mean() > 3


def test_scenes_differ_from_one_another() -> None:
    means = {
        scene: np.mean([drawn(scene, 0.4, 'mean', n) for n in range(20)], axis=0)
        for scene in SCENES
    }
    for first, second in combinations(SCENES, 2):
        assert np.abs(means[first] - means[second]).mean() > 8, (first, second)


@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('horizon', [0.3, 0.5])
def test_the_image_changes_where_the_ground_begins(scene: str, horizon: float) -> None:
    steps = np.zeros(HEIGHT - 4)
    for number in range(12):
        profile = drawn(scene, horizon, 'ground', number).mean(axis=1)
        steps += np.abs(profile[4:] - profile[:-4]).mean(axis=1)
    foot = round(horizon * HEIGHT) - 2
    ground = steps[foot + HEIGHT // 5 :]
    assert steps[foot - 3 : foot + 4].max() > 2 * np.median(ground)


def test_an_unknown_scene_is_refused_with_the_scenes_there_are() -> None:
    with pytest.raises(InputError, match=r"'beach'.*" + ', '.join(SCENES)):
        render_scene(Canvas(HEIGHT, WIDTH), 'beach', 0.3, RandomStream('unknown'))
