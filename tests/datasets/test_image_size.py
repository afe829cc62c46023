"""Sizes from the first bytes, against Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from gckd_mm.datasets.image_size import (
    MAX_SIDE,
    check_size,
    checked_size_of_file,
    size_from_head,
)
from gckd_mm.errors import InputError


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM'])
@pytest.mark.parametrize('size', [(30, 70), (70, 30), (1, 1)])
def test_the_size_of_a_file(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    path = tmp_path / 'x.png'
    Image.new('RGB', size).save(path, kind)
    assert checked_size_of_file(str(path)) == size
    if kind in ('PNG', 'JPEG'):
        assert size_from_head(path.read_bytes()) == size


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_turned_image_counts_as_it_is_shown(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'x.png'
    Image.new('RGB', (70, 30)).save(path, kind, exif=exif)
    expected = (70, 30) if orientation < 5 else (30, 70)
    assert checked_size_of_file(str(path)) == expected


def test_what_cannot_be_told_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / 'x.png').write_bytes(b'\xff\xd8\xff')
    assert checked_size_of_file(str(tmp_path / 'x.png')) is None
    assert size_from_head(b'') is None


@pytest.mark.parametrize('size', [(10_000, 10_000), (MAX_SIDE + 1, 1), (1, 10**6)])
def test_too_large(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf'x: {size[0]} × {size[1]} is too large'):
        check_size(size, 'x')
    buffer = io.BytesIO()
    Image.new('1', size).save(buffer, 'PNG')
    (tmp_path / 'x.png').write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match='is too large'):
        checked_size_of_file(str(tmp_path / 'x.png'))
