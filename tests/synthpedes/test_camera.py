from __future__ import annotations

import math

import numpy as np
import pytest

from gckd_mm.errors import InputError
from gckd_mm.synthpedes.camera import (
    Camera,
    CameraRange,
    blur,
    photograph,
    reduce_by_area,
    sample_camera,
)
from gckd_mm.synthpedes.random_stream import RandomStream

HEIGHT, WIDTH = 160, 80

WIDE = CameraRange(
    scene=('street', 'mall'),
    pitch=(0.0, 40.0),
    gains=((0.8, 0.9), (0.9, 1.0), (1.0, 1.2)),
    brightness=(0.6, 1.3),
    contrast=(0.7, 1.3),
    gamma=(0.8, 1.3),
    saturation=(0.3, 1.2),
    blur=(0.1, 2.0),
    resolution=(0.3, 0.9),
    noise=(1.0, 15.0),
    vignette=(0.1, 0.7),
    framing=(0.01, 0.1),
    occlusion=(0.05, 0.3),
    lighting=(0.01, 0.2),
    quality=(40, 60),
)


def light(name: str = 'light') -> np.ndarray:
    """Return an image with detail, colour and no value near 0 or 255."""
    noise = RandomStream(name).noise(HEIGHT, WIDTH, 3)
    return np.clip(128 + 25 * noise, 40, 215)


def flat(*levels: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), levels, np.float32)


def taken(pixels: np.ndarray, **fields: object) -> np.ndarray:
    """Photograph with a camera that is neutral but for some fields."""
    camera = Camera()._replace(**fields)
    return photograph(pixels, camera, RandomStream('picture')).astype(np.float64)


def detail(image: np.ndarray) -> float:
    """Return the mean square difference between neighbours."""
    across = np.diff(image.astype(np.float64), axis=1)
    return float((across**2).mean())


def naive_area_average(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average by cutting each pixel into parts that fall into one new pixel each."""
    parts = pixels.astype(np.float64).repeat(height, axis=0).repeat(width, axis=1)
    reduced = np.zeros((height, width, pixels.shape[2]))
    down, across = pixels.shape[:2]
    for row in range(height):
        for column in range(width):
            part = parts[
                row * down : (row + 1) * down, column * across : (column + 1) * across
            ]
            reduced[row, column] = part.mean(axis=(0, 1))
    return reduced


def test_the_neutral_camera_only_rounds() -> None:
    pixels = np.abs(light() * 3 - 250)  # also beyond 255
    image = photograph(pixels, Camera(), RandomStream('any'))
    assert image.dtype == np.uint8
    assert image.shape == pixels.shape
    np.testing.assert_array_equal(image, np.clip(np.rint(pixels), 0, 255))


def test_the_light_is_left_as_it_was() -> None:
    pixels = light()
    before = pixels.copy()
    taken(pixels, brightness=2.0, noise=4.0, contrast=2.0, vignette=0.5)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize('size', [(160, 80), (37, 23), (1, 1)])
def test_any_size_is_kept_by_a_camera_that_changes_everything(
    size: tuple[int, int],
) -> None:
    camera = sample_camera(WIDE, RandomStream('camera'))
    pixels = RandomStream('size').noise(*size, 3) * 40 + 128
    image = photograph(pixels, camera, RandomStream('picture'))
    assert image.dtype == np.uint8
    assert image.shape == (*size, 3)


def test_the_same_path_gives_the_same_bytes_and_another_one_others() -> None:
    camera = sample_camera(WIDE, RandomStream('camera'))
    first, second, other = (
        photograph(light(), camera, RandomStream('picture', number)).tobytes()
        for number in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_gains_scale_the_means_of_the_colours() -> None:
    pixels = light()
    means = taken(pixels, gains=(1.1, 1.0, 0.7)).mean(axis=(0, 1))
    expected = pixels.mean(axis=(0, 1)) * [1.1, 1.0, 0.7]
    np.testing.assert_allclose(means, expected, rtol=0.01)


def test_brightness_scales_all() -> None:
    assert taken(flat(100, 60, 20), brightness=1.5)[5, 5].tolist() == [150, 90, 30]


def test_contrast_spreads_about_mid_grey() -> None:
    image = taken(flat(27.5, 127.5, 227.5), contrast=0.5)
    np.testing.assert_allclose(image[0, 0], [77.5, 127.5, 177.5], atol=0.51)
    assert taken(light(), contrast=1.3).std() > 1.2 * taken(light()).std()


def test_gamma_bends_the_middle_and_keeps_the_ends() -> None:
    image = taken(flat(0, 127.5, 255), gamma=2.0)
    np.testing.assert_allclose(image[0, 0], [0, 63.75, 255], atol=0.51)


def test_saturation_0_gives_the_luma_and_above_1_strengthens_colour() -> None:
    grey = taken(light(), saturation=0.0)
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(
        grey[..., 0], light() @ np.array([0.299, 0.587, 0.114]), atol=0.51
    )
    strong = taken(flat(140, 110, 110), saturation=2.0)[0, 0]
    assert strong[0] - strong[1] == pytest.approx(60, abs=1)


def test_blur_smooths_and_keeps_the_mean() -> None:
    pixels = light()
    soft = taken(pixels, blur=1.5)
    assert detail(soft) < 0.1 * detail(pixels)
    assert soft.mean() == pytest.approx(pixels.mean(), abs=0.5)


def test_blur_has_the_stated_deviation() -> None:
    point = np.zeros((61, 61, 1), np.float32)
    point[30, 30] = 1000
    spread = blur(point, 2.0)[..., 0].astype(np.float64)
    offsets = np.arange(61) - 30.0
    assert spread.sum() == pytest.approx(1000, rel=1e-5)
    for axis in (0, 1):
        variance = (spread.sum(axis=axis) * offsets**2).sum() / 1000
        # the kernel ends at 2.5 deviations
        assert variance**0.5 == pytest.approx(2.0, rel=0.06)


def test_blur_equals_a_naive_loop() -> None:
    pixels = RandomStream('blur').noise(9, 12, 2)
    sd, reach = 1.3, 4  # the first whole number beyond 2.5 deviations
    offsets = range(-reach, reach + 1)
    weights = [math.exp(-(offset**2) / (2 * sd**2)) for offset in offsets]
    expected = np.zeros((9, 12, 2))
    for row, column in np.ndindex(9, 12):
        for down, down_weight in zip(offsets, weights, strict=True):
            for across, across_weight in zip(offsets, weights, strict=True):
                y, x = min(max(row + down, 0), 8), min(max(column + across, 0), 11)
                share = down_weight * across_weight / sum(weights) ** 2
                expected[row, column] += share * pixels[y, x]
    np.testing.assert_allclose(blur(pixels, sd), expected, atol=1e-6)


def test_blur_is_relative_to_the_height() -> None:
    edge = np.zeros((320, 40, 3), np.float32)
    edge[:, 20:] = 200
    tall, half = taken(edge, blur=1.0), taken(edge[:160], blur=1.0)
    assert (tall[9, :, 0] % 200 > 0).sum() > (half[9, :, 0] % 200 > 0).sum()


def test_resolution_removes_detail_and_keeps_size_and_mean() -> None:
    stripes = flat(60, 60, 60)
    stripes[:, ::2] = 200
    coarse = taken(stripes, resolution=0.5)
    assert coarse.shape == stripes.shape
    np.testing.assert_array_equal(coarse, 130)
    details = [detail(taken(light(), resolution=share)) for share in (1, 0.7, 0.4)]
    assert details[0] > details[1] > details[2]


@pytest.mark.parametrize('size', [(8, 8), (5, 7), (13, 3), (17, 11), (1, 1), (19, 12)])
def test_area_averaging_equals_a_naive_loop(size: tuple[int, int]) -> None:
    pixels = RandomStream('area').noise(19, 12, 3) * 50 + 100
    np.testing.assert_allclose(
        reduce_by_area(pixels, *size), naive_area_average(pixels, *size), rtol=1e-5
    )


def test_noise_has_the_stated_deviation_on_grey() -> None:
    noisy = taken(flat(128, 128, 128), noise=9.0)
    for channel in range(3):
        # rounding adds a variance of 1/12
        assert noisy[..., channel].std() == pytest.approx(9.0, rel=0.03)
        assert noisy[..., channel].mean() == pytest.approx(128, abs=0.4)


def test_neighbours_and_colours_share_a_part_of_the_noise_but_not_all() -> None:
    noisy = taken(flat(128, 128, 128), noise=20.0) - 128
    colours = np.corrcoef(noisy[..., 0].ravel(), noisy[..., 2].ravel())[0, 1]
    across = np.corrcoef(noisy[:, :-1, 0].ravel(), noisy[:, 1:, 0].ravel())[0, 1]
    assert 0.4 < colours < 0.9
    assert 0.1 < across < 0.5


def test_the_vignette_darkens_the_corners_only() -> None:
    image = taken(flat(200, 200, 200), vignette=0.6)
    # the outermost pixel's centre is a little inside the corner
    assert 80 <= image[0, 0, 0] < 90
    assert len({image[row, column, 0] for row in (0, -1) for column in (0, -1)}) == 1
    inner = image[HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4]
    np.testing.assert_array_equal(inner, 200)
    assert image[0, WIDTH // 2, 0] > 185


def test_lighting_varies_from_image_to_image_by_the_stated_share() -> None:
    camera = Camera(lighting=0.1)
    levels = [
        photograph(flat(100, 100, 100)[:2, :2], camera, RandomStream('hour', number))
        for number in range(400)
    ]
    means = np.array([level.mean() for level in levels])
    assert means.mean() == pytest.approx(100, abs=2)
    assert means.std() == pytest.approx(10, rel=0.15)
    assert all(np.ptp(level) == 0 for level in levels)


@pytest.mark.parametrize('field', ['scene', 'pitch', 'framing', 'occlusion', 'quality'])
def test_fields_for_others_leave_the_image(field: str) -> None:
    value = 'park' if field == 'scene' else 30
    np.testing.assert_array_equal(taken(light(), **{field: value}), taken(light()))


@pytest.mark.parametrize('resolution', [0.0, -1.0, 1.5])
def test_a_resolution_that_is_no_share_is_refused(resolution: float) -> None:
    with pytest.raises(InputError, match='resolution'):
        taken(light(), resolution=resolution)


def test_pixels_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r'\(H, W, 3\)'):
        taken(light()[..., 0])


def test_drawn_cameras_are_in_range_and_fill_it() -> None:
    cameras = [
        sample_camera(WIDE, RandomStream('draw', number)) for number in range(300)
    ]
    assert all(WIDE.contains(camera) for camera in cameras)
    assert {camera.scene for camera in cameras} == {'street', 'mall'}
    assert {camera.quality for camera in cameras} == set(range(40, 61))
    for field in set(Camera._fields) - {'scene', 'gains', 'quality'}:
        low, high = getattr(WIDE, field)
        values = [(getattr(camera, field) - low) / (high - low) for camera in cameras]
        assert min(values) < 0.05, field
        assert max(values) > 0.95, field


def test_a_range_of_one_point_gives_that_camera() -> None:
    assert sample_camera(CameraRange(), RandomStream('draw')) == Camera()


@pytest.mark.parametrize('field', Camera._fields)
def test_a_camera_with_one_field_out_of_range_is_not_contained(field: str) -> None:
    camera = sample_camera(WIDE, RandomStream('draw'))
    if field == 'scene':
        outside: object = 'park'
    elif field == 'gains':
        outside = (0.85, 0.95, 1.3)
    else:
        outside = getattr(WIDE, field)[1] + 1
    assert not WIDE.contains(camera._replace(**{field: outside}))


@pytest.mark.parametrize(
    ('field', 'span'),
    [
        ('blur', (2.0, 1.0)),
        ('quality', (90, 80)),
        ('scene', ()),
        ('gains', ((1.0, 1.0), (1.0, 0.5), (1.0, 1.0))),
    ],
)
def test_an_empty_range_is_refused(field: str, span: object) -> None:
    with pytest.raises(InputError, match=field):
        sample_camera(CameraRange()._replace(**{field: span}), RandomStream('draw'))
