"""Images against Pillow, and every file that is not one."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps

from gckd_mm.datasets.transforms import LoadPersonImage
from gckd_mm.datasets.transforms.load_person_image import check_image, read_image
from gckd_mm.errors import InputError


def picture(mode: str = 'RGB', size: tuple[int, int] = (33, 70)) -> Image.Image:
    """A smooth picture with some noise, width 33 and height 70."""
    channels = len(mode)
    width, height = size
    y, x = np.mgrid[:height, :width]
    values = np.stack([(y * (c + 1) + x * 2) % 256 for c in range(channels)], -1)
    noise = np.random.default_rng(0).integers(0, 9, values.shape)
    values = (values * 0.9 + noise).astype(np.uint8)
    return Image.fromarray(values.squeeze(-1) if channels == 1 else values)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(folder: Path, data: bytes, name: str = 'x.png') -> dict:
    path = folder / name
    path.write_bytes(data)
    return LoadPersonImage()({'img_path': str(path), 'pid': 3})


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P', '1'])
def test_a_png_is_pillows_to_the_bit(tmp_path: Path, mode: str) -> None:
    image = picture(mode) if mode in ('L', 'RGBA') else picture().convert(mode)
    data = encode(image, 'PNG')

    loaded = load(tmp_path, data)['img']

    assert loaded.dtype == np.uint8
    assert loaded.shape == (70, 33, 3)
    np.testing.assert_array_equal(loaded, by_pillow(data))


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': 0}])
def test_a_jpeg_is_close_to_pillows(tmp_path: Path, mode: str, options: dict) -> None:
    data = encode(picture(mode), 'JPEG', quality=90, **options)

    loaded = load(tmp_path, data)['img'].astype(int)

    # Decoders may differ in rounding and in the upsampling of the colours.
    assert loaded.shape == (70, 33, 3)
    assert np.abs(loaded - by_pillow(data)).mean() < 1
    # Red and blue in each other's place would be far off.
    if mode == 'RGB':
        assert np.abs(loaded[..., ::-1] - by_pillow(data)).mean() > 20


def test_other_formats_are_read_too(tmp_path: Path) -> None:
    data = encode(picture(), 'BMP')

    np.testing.assert_array_equal(load(tmp_path, data)['img'], by_pillow(data))


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_what_is_transparent_keeps_its_colour(tmp_path: Path, mode: str) -> None:
    values = np.array(picture().convert(mode))
    values[:30, :, -1] = 0
    data = encode(Image.fromarray(values), 'PNG')

    np.testing.assert_array_equal(load(tmp_path, data)['img'], by_pillow(data))


def test_a_cmyk_jpeg_is_close_to_pillows(tmp_path: Path) -> None:
    data = encode(picture().convert('CMYK'), 'JPEG', quality=95)

    loaded = load(tmp_path, data)['img'].astype(int)

    assert loaded.shape == (70, 33, 3)
    assert np.abs(loaded - by_pillow(data)).mean() < 2
    assert np.abs(loaded - np.asarray(picture())).mean() < 3


@pytest.mark.parametrize('channels', [1, 3])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, channels: int) -> None:
    values = np.asarray(picture())[..., :channels]
    wide = values.astype(np.uint16) * 257
    data = cv2.imencode('.png', wide[..., ::-1])[1].tobytes()

    loaded = load(tmp_path, data)['img']

    np.testing.assert_array_equal(loaded, np.broadcast_to(values, loaded.shape))


@pytest.mark.parametrize('kind', ['PNG', 'WEBP'])
def test_the_exif_orientation_of_other_formats_is_applied(
    tmp_path: Path, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture(), kind, exif=exif, lossless=True)

    loaded = load(tmp_path, data)['img']

    assert loaded.shape == (33, 70, 3)
    np.testing.assert_array_equal(loaded, by_pillow(data))


def test_what_it_adds(tmp_path: Path) -> None:
    results = load(tmp_path, encode(picture(), 'PNG'))

    assert results['img_shape'] == results['ori_shape'] == (70, 33)
    assert results['pid'] == 3


@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture(), 'JPEG', quality=95, exif=exif)

    loaded = load(tmp_path, data)['img'].astype(int)

    assert loaded.shape[:2] == ((70, 33) if orientation < 5 else (33, 70))
    assert np.abs(loaded - by_pillow(data)).mean() < 1


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('share', [0.05, 0.5, 0.9, 0.99])
def test_a_truncated_image_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    data = encode(picture(), kind)

    with pytest.raises(InputError) as error:
        load(tmp_path, data[: int(len(data) * share)])

    assert str(tmp_path / 'x.png') in str(error.value)
    assert 'damaged or truncated image' in str(error.value)


def test_a_truncated_progressive_jpeg_is_refused(tmp_path: Path) -> None:
    data = encode(picture(), 'JPEG', progressive=True)

    with pytest.raises(InputError, match='damaged or truncated image'):
        load(tmp_path, data[: len(data) // 2])


@pytest.mark.parametrize('trailing', [b'\0' * 100, b'\n', b'camera says hello'])
def test_bytes_after_the_end_of_a_jpeg_do_no_harm(
    tmp_path: Path, trailing: bytes
) -> None:
    data = encode(picture(), 'JPEG')

    np.testing.assert_array_equal(
        load(tmp_path, data + trailing)['img'], load(tmp_path, data)['img']
    )


def test_a_png_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    data = bytearray(encode(picture(), 'PNG'))
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)

    with pytest.raises(InputError, match=r'x\.png'):
        load(tmp_path, bytes(data))


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'a man in a red coat',
        b'<html>404</html>',
        b'\xff\xd8\xff\xd9',  # the marks of a JPEG around nothing
        b'\x89PNG\r\n\x1a\nIEND\xaeB`\x82',
    ],
)
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, data)

    assert str(tmp_path / 'x.png') in str(error.value)
    assert 'object at 0x' not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'nowhere.png'

    with pytest.raises(InputError, match=r'nowhere\.png: cannot be read'):
        LoadPersonImage()({'img_path': str(path)})
    with pytest.raises(InputError, match='cannot be read'):
        LoadPersonImage()({'img_path': str(tmp_path)})


@pytest.mark.filterwarnings('ignore:Image size')
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'TIFF', 'BMP'])
@pytest.mark.parametrize('size', [(10_000, 6_000), (40_000, 2)])
def test_what_would_fill_the_memory_is_refused_before_it_is_decoded(
    tmp_path: Path, kind: str, size: tuple[int, int]
) -> None:
    data = encode(Image.new('L', size), kind)

    with pytest.raises(InputError, match=r'x\.png: .* is too large'):
        load(tmp_path, data)


def test_what_pillow_would_hand_to_another_program_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='not an image'):
        load(tmp_path, encode(picture(), 'EPS'))


def test_a_pipe_named_like_an_image_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'x.png')

    for read in (read_image, check_image):
        with pytest.raises(InputError, match='not a regular file, but a pipe'):
            read(str(tmp_path / 'x.png'))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new('L', (20, 40), n % 256) for n in range(2_000)]
    data = encode(frames[0], 'GIF', save_all=True, append_images=frames[1:])

    assert load(tmp_path, data)['img'].shape == (40, 20, 3)


def test_any_mm_config_can_use_it() -> None:
    built = TRANSFORMS.build(dict(type='gckd_mm.LoadPersonImage'))

    assert isinstance(built, LoadPersonImage)
    assert repr(built) == 'LoadPersonImage()'
