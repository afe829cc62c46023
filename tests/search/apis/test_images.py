from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gckd_mm.errors import InputError
from gckd_mm.search.apis.images import (
    as_input,
    prepare_with_size,
    read_ahead,
    reading_threads,
)

RGB = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)


@pytest.mark.parametrize(
    'picture',
    [
        RGB,
        np.dstack([RGB, np.zeros((4, 3), np.uint8)]),
        Image.fromarray(RGB),
        Image.fromarray(RGB).convert('RGBA'),
    ],
)
def test_alpha_is_left_out(picture: Any) -> None:
    np.testing.assert_array_equal(as_input(picture), RGB)


@pytest.mark.parametrize(
    'picture', [RGB[..., 0], RGB[..., :1], Image.fromarray(RGB[..., 0].copy())]
)
def test_grey_becomes_three_equal_channels(picture: Any) -> None:
    np.testing.assert_array_equal(as_input(picture), np.dstack([RGB[..., 0]] * 3))


def test_an_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(RGB).save(tmp_path / 'turned.png', exif=exif)
    with Image.open(tmp_path / 'turned.png') as picture:
        np.testing.assert_array_equal(as_input(picture), np.rot90(RGB, -1))


def test_a_path_stays_one(tmp_path: Path) -> None:
    assert as_input(tmp_path / 'a.jpg') == str(tmp_path / 'a.jpg')


@pytest.mark.parametrize(
    ('picture', 'message'),
    [
        (7, 'must be a path, an array or a Pillow image, got int'),
        (RGB.astype(float), r'array of uint8, .* got float64 of shape \(4, 3, 3\)'),
        (RGB[None], 'must be an array of uint8, shape'),
        (RGB[:0], 'must be an array of uint8, shape'),
        (RGB[..., :2], r'1, 3 or 4 channels last, got shape \(4, 3, 2\)'),
        (np.zeros((10_000, 10_000), np.uint8), '10000 × 10000 is too large'),
        (Image.new('L', (10_000, 10_000)), '10000 × 10000 is too large'),
    ],
)
def test_what_is_no_picture(picture: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_input(picture)


@pytest.mark.filterwarnings('ignore:Image size')  # Pillow says it as well
@pytest.mark.parametrize('size', [(10_000, 10_000), (20_000, 20_000)])
def test_a_file_that_would_fill_the_memory(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / 'large.png'
    Image.new('1', size).save(path)
    assert path.stat().st_size < 1e6
    with pytest.raises(InputError, match=r'large\.png: .*(too large|exceeds limit)'):
        prepare_with_size(lambda image: image, str(path))


def test_order_is_kept_and_errors_are_handed_over() -> None:
    second = threading.Event()

    def prepare(image: Any) -> Any:
        if image == '0':  # the first is ready last
            second.wait(10)
        if image == '1':
            second.set()
        if image == '3':
            raise InputError('3: bad')
        return int(image)

    found = list(read_ahead('01234567', prepare, num_threads=2, ahead=4))
    assert [str(x) for x in found] == ['0', '1', '2', '3: bad', '4', '5', '6', '7']
    assert isinstance(found[3], InputError)


def test_without_threads_the_caller_reads() -> None:
    threads = []

    def prepare(image: Any) -> Any:
        threads.append(threading.current_thread())
        if image == '1':
            raise InputError('1: bad')
        return image

    found = list(read_ahead('012', prepare, ahead=4, num_threads=0))
    assert [str(x) for x in found] == ['0', '1: bad', '2']
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize(
    ('processors', 'threads'), [(None, 0), (1, 0), (2, 0), (4, 2), (64, 4)]
)
def test_two_processors_have_none_to_spare_for_reading(
    monkeypatch: pytest.MonkeyPatch, processors: int | None, threads: int
) -> None:
    monkeypatch.setattr('os.cpu_count', lambda: processors)
    assert reading_threads() == threads


def test_no_more_than_asked_for_is_read_ahead() -> None:
    given: list[str] = []

    def pictures() -> Any:
        for n in range(100):
            given.append(str(n))
            yield str(n)

    results = read_ahead(pictures(), lambda image: image, num_threads=2, ahead=5)
    for done in range(1, 11):
        next(results)
        assert len(given) <= done + 5
    results.close()


def test_sixteen_bits_of_pillow_are_scaled_to_eight() -> None:
    wide = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(as_input(wide), np.dstack([RGB[..., 0]] * 3))
    for mode in ('I', 'F'):
        with pytest.raises(InputError, match=f'mode {mode} has no known range'):
            as_input(Image.new(mode, (2, 3)))


def test_a_picture_of_pillow_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'cut.png'
    noise = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with (
        Image.open(path) as picture,
        pytest.raises(InputError, match=r'cut\.png: damaged or truncated'),
    ):
        as_input(picture)
    with pytest.raises(InputError, match='has no pixels'):
        as_input(Image.new('RGB', (0, 3)))


def test_a_picture_is_prepared_with_its_shape(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    Image.new('RGB', (70, 30)).save(path)
    assert prepare_with_size(str.upper, str(path)) == (str(path).upper(), True)
    assert not prepare_with_size(len, RGB).is_wide
    # whoever reads it tells what is wrong with it
    (tmp_path / 'b.png').write_text('a text')
    assert not prepare_with_size(str.upper, str(tmp_path / 'b.png')).is_wide
    os.mkfifo(tmp_path / 'c.png')
    with pytest.raises(InputError, match='not a regular file'):
        prepare_with_size(str.upper, str(tmp_path / 'c.png'))
