"""The folder of a gallery: whether one can be made there, and what keeps its data."""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path
from typing import Any

from gckd_mm.errors import InputError
from gckd_mm.search.gallery import settings as gallery_settings
from gckd_mm.search.gallery.damage import NEW_GALLERY, DamagedGalleryError
from gckd_mm.search.gallery.embedded_engine import EMPTY_FILES, ITEMS, EmbeddedEngine
from gckd_mm.search.gallery.engine import Engine
from gckd_mm.search.gallery.milvus_connection import is_file
from gckd_mm.search.gallery.milvus_engine import MilvusEngine

#: held by whoever makes or changes a gallery
LOCK = 'index.lock'
#: what a kill while making one leaves
_LEFT_BEHIND = (
    *EMPTY_FILES,
    LOCK,
    f'{LOCK}.owner',
    f'.{gallery_settings.FILE}.partial',
)


class GalleryExistsError(InputError):
    """A gallery that was to be made is there already."""


def check_is_free(folder: Path) -> None:
    """Refuse a folder that has more than what a kill while making one leaves."""
    if not folder.exists():
        return
    if gallery_settings.is_there(folder):
        raise GalleryExistsError(f'{folder}: is a gallery already')
    if not folder.is_dir() or any(x.name not in _LEFT_BEHIND for x in folder.iterdir()):
        raise InputError(f'{folder}: exists, and is neither empty nor a gallery')


def remembered_uri(uri: str, folder: Path) -> str:
    """Return the URI to remember: of a file in the folder, where it lies in there."""
    if not is_file(uri):
        return uri
    file = os.path.abspath(uri)
    inside = os.path.relpath(file, folder)
    return file if inside.startswith(os.pardir) else inside


def new_collection(fingerprint: str) -> str:
    """Return a name that no gallery of a server has yet, of letters that it takes."""
    name = re.sub('[^0-9A-Za-z]', '_', fingerprint)
    return f'gckd_{name}_{uuid.uuid4().hex[:12]}'


def open_engine(
    folder: Path, settings: dict[str, Any], token: str | None, new: bool = False
) -> Engine:
    """Open what keeps the data of a gallery, as its settings say, or make it."""
    size, index = settings['embedding_size'], settings['index']
    if settings.get('engine', 'embedded') == 'embedded':
        engine = EmbeddedEngine(folder, size, index, new, settings['fingerprint'])
        if settings['format'] > 1 and not engine.has_checksums:
            engine.close()
            raise DamagedGalleryError(
                f'{folder / ITEMS}: damaged: it has no checksums, or is of another '
                f'gallery: {NEW_GALLERY}'
            )
        return engine
    uri = settings['uri']
    if is_file(uri):
        uri = os.path.join(folder, uri)
    token = token or os.environ.get('MILVUS_TOKEN')
    return MilvusEngine(uri, settings['collection'], size, index, token, new)
