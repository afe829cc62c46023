"""A folder of person crops: no ids, no captions, no annotation file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from gckd_mm.datasets.person_text import UNKNOWN_PID, PersonTextDataset
from gckd_mm.datasets.records import PersonRecord
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.webp')


@DATASETS.register_module()
class PersonImageFolder(PersonTextDataset):
    """All images below a folder, as an unlabelled target.

    Adaptation to one's own cameras has nothing but crops: this is the ``target`` of a
    :class:`CrossDomainDataset` then, whose caption stream is absent. In the view
    ``'images'``, the ids of its items are −1.

    Args:
        data_root: The folder, searched with its subfolders.
        **kwargs: Further arguments of :class:`PersonTextDataset`.

    Raises:
        MissingDataError: If the folder is not there.
        InputError: If it holds no image.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset': 'person_image_folder'}
    folder = 'crops'
    access = 'any folder of person crops'

    def __init__(self, data_root: str | None = None, **kwargs: Any) -> None:
        kwargs.setdefault('view', 'images')
        super().__init__(data_root, image_folder='', **kwargs)

    def load_all_records(self) -> list[PersonRecord]:
        """List the images below the folder, in the order of their paths."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise self._missing(f'image folder {root}')
        images = sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob('*')
            if path.suffix.lower() in SUFFIXES and not path.name.startswith('.')
        )
        if not images:
            raise InputError(f'{root}: holds no image ({", ".join(SUFFIXES)})')
        return [PersonRecord(UNKNOWN_PID, image, (), 'train') for image in images]

    def image_path(self, record: PersonRecord) -> str:
        """Return the path under which a record's image can be opened."""
        return os.path.join(self.data_root, record.image)
