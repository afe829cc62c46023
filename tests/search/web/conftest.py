"""A gallery of coloured crops, as a service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from gckd_mm.search.web.service import SearchService

#: shown as text, wherever it stands
SCRIPT = '<script>alert(1)</script>'
COLOURS = {'red': (200, 20, 20), 'green': (20, 160, 40), 'blue': (20, 40, 200)}


def crop(colour: tuple[int, int, int], seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 10, (64, 32, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope='session')
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a gallery of twelve crops: ``gallery`` beside ``crops``."""
    folder = tmp_path_factory.mktemp('coloured')
    crops = folder / 'crops'
    crops.mkdir()
    fields = {}
    for name, colour in COLOURS.items():
        for n in range(4):
            crop(colour, n).save(crops / f'{name}{n}.png')
            fields[f'{name}{n}.png'] = {'camera': str(n), 'time': 86400.0 * n}
    crop((90, 90, 90), 0).save(crops / 'it\'s "<b>".png')
    fields['it\'s "<b>".png'] = {'note': SCRIPT}
    (crops / 'secret.txt').write_text('a secret')
    inferencer = PersonSearchInferencer('gckd_mm://synthclip_tiny_web', device='cpu')
    with inferencer.new_gallery(folder / 'gallery', crops) as gallery:
        update(gallery, inferencer, find_images(crops, fields))
    return folder


@pytest.fixture(scope='session')
def service(coloured: Path) -> Iterator[SearchService]:
    with Gallery.open(coloured / 'gallery') as gallery:
        inferencer = PersonSearchInferencer.of_gallery(gallery, 'cpu')
        yield SearchService(gallery, inferencer)
