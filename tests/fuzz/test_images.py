"""Damaged image files, alone and in folders that are indexed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.cli import search as cli
from tests.fuzz.conftest import Cases
from tests.fuzz.damage import Rng, damage_bytes, odd_files, odd_texts
from tests.fuzz.judge import Judge, must_be_refused

Record = Callable[[str, object], None]
FORMATS = ('png', 'jpeg', 'bmp', 'gif', 'webp', 'tiff', 'ppm')
_MODES = {'png': ('RGB', 'RGBA', 'L', 'P', 'I;16', '1'), 'jpeg': ('RGB', 'L', 'CMYK')}
_END_MARKED = ('png', 'jpeg')
MODEL = 'gckd_mm://synthclip_tiny_web'


def encoded(kind: str, rng: Rng) -> bytes:
    """Return an image file of random pixels, size and mode."""
    height, width = (int(x) for x in rng.integers(1, 80, 2))
    modes = _MODES.get(kind, ('RGB', 'L'))
    mode = modes[int(rng.integers(len(modes)))]
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = (
        image.convert('L').convert('I;16') if mode == 'I;16' else image.convert(mode)
    )
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _no_image(found: object) -> str | None:
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8:
        return f'{type(found).__name__}'
    if found.ndim != 3 or found.shape[2] != 3 or 0 in found.shape:
        return f'shape {found.shape}'
    return None


@pytest.mark.parametrize('kind', FORMATS)
def test_image_files(
    kind: str, tmp_path: Path, cases: Cases, record_property: Record
) -> None:
    inferencer = PersonSearchInferencer(MODEL, device='cpu', show_progress=False)
    judge = Judge()
    path = str(tmp_path / f'image.{kind}')
    for case, rng in cases(60, kind):
        good = encoded(kind, rng)
        how, data = damage_bytes(good, rng) if case % 4 else ('whole', good)
        Path(path).write_bytes(data)
        cut_short = data != good and good.startswith(data) and kind in _END_MARKED
        name = f'{kind} {how} {cases.label(case)}'
        judge.case(
            name,
            partial(read_image, path),
            must_be_refused if cut_short else _no_image,
        )
        judge.case(name, partial(inferencer.encode_images, [path]))
        if how == 'whole':
            assert _no_image(read_image(path)) is None
    judge.finish(record_property)


def test_what_is_no_image(tmp_path: Path, record_property: Record) -> None:
    huge = _png_of_size(60_000, 60_000)
    judge = Judge()
    for suffix in ('.png', '.jpg', '.tif', '.gif'):
        paths = dict(odd_files(tmp_path, suffix))
        for name, data in {**odd_texts(b'text'), 'huge': huge}.items():
            paths[name] = tmp_path / f'{len(paths)}{suffix}'
            paths[name].write_bytes(data)
        for name, path in paths.items():
            judge.case(
                f'{name}{suffix}',
                partial(read_image, str(path)),
                must_be_refused,
            )
    judge.finish(record_property)


def test_a_folder_of_everything_is_indexed(
    tmp_path: Path,
    cases: Cases,
    capsys: pytest.CaptureFixture[str],
    record_property: Record,
) -> None:
    """What is whole is indexed, what is not is listed, and nothing hangs."""
    root = tmp_path / 'crops'
    root.mkdir()
    odd_files(root, '.png')
    odd_files(root, '.heic')
    whole = set()
    for case, rng in cases(60, 'folder'):
        kind = FORMATS[case % len(FORMATS)]
        data = encoded(kind, rng)
        if case % 2:
            _, data = damage_bytes(data, rng)
        else:
            whole.add(f'{case}.{kind}')
        (root / f'{case}.{kind}').write_bytes(data)
    (root / '60000.png').write_bytes(_png_of_size(60_000, 60_000))
    arguments = ['index', str(root), '--gallery', str(tmp_path / 'gallery')]
    judge = Judge()
    judge.case(
        f'a folder (--fuzz-seed {cases.seed})',
        partial(cli.main, [*arguments, '--checkpoint', MODEL, '--json']),
        lambda code: None if code == 3 else f'exit code {code}',
    )
    judge.finish(record_property)
    unreadable = json.loads(capsys.readouterr().out)['unreadable']
    assert {'fifo.png', 'loop.png', 'device.png', '60000.png'} <= unreadable.keys()
    assert not whole & unreadable.keys()


def _png_of_size(width: int, height: int) -> bytes:
    """Return a PNG that says that it has so many pixels, and has none."""
    buffer = io.BytesIO()
    Image.new('1', (1, 1)).save(buffer, 'png')
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
    return bytes(data)
