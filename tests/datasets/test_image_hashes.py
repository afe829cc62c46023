"""Copies are found again, re-encoded or not, and different people told apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from gckd_mm.datasets.image_hashes import (
    ImageHash,
    difference_hash,
    find_overlap,
    hash_image,
    scan_images,
)
from tests.miniature import write_dataset


@pytest.fixture
def rstpreid(tmp_path: Path) -> Path:
    return write_dataset(tmp_path, 'rstpreid')


def reencode(source: Path, target: Path, quality: int) -> None:
    image = cv2.imread(str(source))
    data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    target.write_bytes(data.tobytes())
    assert source.read_bytes() != target.read_bytes()


@pytest.mark.parametrize('workers', [1, 5])
def test_each_image_gets_its_own_hash(workers: int, rstpreid: Path) -> None:
    images = sorted(path.name for path in (rstpreid / 'imgs').iterdir())
    scan = scan_images(rstpreid / 'imgs', images, workers=workers)
    assert list(scan.hashes) == images
    for image in images:
        alone = hash_image(str(rstpreid / 'imgs' / image))
        assert scan.hashes[image].sha256 == alone.sha256
        np.testing.assert_array_equal(scan.hashes[image].difference, alone.difference)


def test_difference_hash_is_a_loop_over_cells() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (24, 27)).astype(np.float64)
    expected = []
    for row in range(8):
        cells = [
            grey[3 * row : 3 * row + 3, 3 * column : 3 * column + 3].mean()
            for column in range(9)
        ]
        expected += [cells[k + 1] > cells[k] for k in range(8)]
    assert difference_hash(grey).tolist() == expected


def test_overlap_is_the_same_as_a_loop_over_all_pairs() -> None:
    rng = np.random.default_rng(0)

    def image_hash() -> ImageHash:
        level = rng.integers(0, 200)
        thumbnail = rng.integers(level, level + 20, (32, 16), dtype=np.uint8)
        return ImageHash(rng.bytes(32), rng.random(64) < 0.5, thumbnail)

    # More images than a block of the search has rows.
    first = {f'a{number}': image_hash() for number in range(600)}
    second = {f'b{number}': image_hash() for number in range(50)}
    # Each threshold lets through pairs that the other holds back.
    radius, tolerance = 28, 30.0
    expected, num_close, num_alike = [], 0, 0
    for a, x in first.items():
        for b, y in second.items():
            close = (x.difference != y.difference).sum() <= radius
            apart = np.abs(x.thumbnail.astype(float) - y.thumbnail).mean()
            num_close += close
            num_alike += apart <= tolerance
            if close and apart <= tolerance:
                expected.append((a, b, False))
    assert 0 < len(expected) < min(num_close, num_alike)
    assert find_overlap(first, second, radius, tolerance) == expected


def test_without_decoding_only_identical_copies_overlap(
    rstpreid: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'copies'
    folder.mkdir()
    shutil.copyfile(rstpreid / 'imgs' / '0000_c0.png', folder / 'same.png')
    reencode(rstpreid / 'imgs' / '0000_c0.png', folder / 'similar.jpg', quality=95)
    names = ['same.png', 'similar.jpg']
    for decode, expected in ((False, names[:1]), (True, names)):
        first = scan_images(rstpreid / 'imgs', ['0000_c0.png'], decode).hashes
        second = scan_images(folder, names, decode).hashes
        assert [match.second for match in find_overlap(first, second)] == expected


def test_real_crops_are_found_again_and_told_apart(store: Path, tmp_path: Path) -> None:
    images = sorted(path.name for path in (store / 'imgs').iterdir())
    for name in images:
        reencode(store / 'imgs' / name, tmp_path / name, quality=75)
    first = scan_images(store / 'imgs', images).hashes
    second = scan_images(tmp_path, images).hashes
    matches = find_overlap(first, second)
    assert {match.first for match in matches if match.first == match.second} == set(
        images
    )
    # A name begins with the person id: frames of one person may look the same.
    assert all(match.first[:4] == match.second[:4] for match in matches)
