"""A gallery to try the search on: synthetic pedestrians, indexed on the spot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import gckd_mm
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import find_images
from gckd_mm.search.gallery.indexing import update
from gckd_mm.synthpedes.domain import Sizes, SynthDomain
from gckd_mm.synthpedes.writer import write_domain

#: GCKD, adapted to the `mall` of world 0
MODEL = 'gckd_mm://gckd_street2mall'
#: whose `mall` it is adapted to; those of its test split it has never seen
WORLD = 0
_SIZES = Sizes(train=2, val=2, test=150)


def demo_gallery(inferencer: PersonSearchInferencer, folder: Path) -> Gallery:
    """Render pedestrians of the domain ``mall`` and index them, unless that is done."""
    people, place = folder / 'mall', folder / 'gallery'
    write_domain(SynthDomain('mall', WORLD, _SIZES), people)
    if not Gallery.is_there(place):
        shutil.rmtree(place, ignore_errors=True)  # of a call that was interrupted
    else:
        gallery = Gallery.open(place)
        if gallery.settings['fingerprint'] != inferencer.fingerprint:
            gallery.close()
            shutil.rmtree(place)
    if not Gallery.is_there(place):
        gallery = inferencer.new_gallery(place, people / 'imgs')
    update(gallery, inferencer, find_images(people / 'imgs'))
    return gallery


def demo_folder() -> Path:
    """Return where the demo is kept between two calls: below the user's cache."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(cache) / f'gckd_mm-{gckd_mm.__version__}' / 'search_demo'
