"""The base of all person-text datasets: records in, one of three views out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from gckd_mm.datasets.draw import Draw, seeded_augmentation
from gckd_mm.datasets.image_hashes import scan_images
from gckd_mm.datasets.records import (
    PersonRecord,
    RecordSchema,
    damaged_images,
    missing_images,
    read_records,
    select_split,
)
from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.registry import DATASETS

VIEWS = ('pairs', 'images', 'captions')
#: id of images of which nobody has said who they show
UNKNOWN_PID = -1


@DATASETS.register_module()
class PersonTextDataset(BaseDataset):
    """Images of people and sentences about them, read from one flat JSON file.

    A dataset shows one of three views of a split:

    - ``'pairs'``: every (image, caption) pair, for training;
    - ``'images'``: every image once, the gallery;
    - ``'captions'``: every caption once, the queries.

    An item is what ``pipeline`` makes of a dict with ``img_path`` and/or ``caption``,
    ``pid`` (person id), ``sample_idx`` (position in the view) and, where asked for,
    ``gt_label``.

    Args:
        data_root: Folder of the dataset. Defaults to ``'data/<name>'``.
        split: ``'train'``, ``'val'`` or ``'test'``.
        view: See above. Defaults to ``'pairs'``.
        ann_file: Annotation file, relative to ``data_root``. Defaults to the first of
            the dataset's usual names that exists.
        image_folder: Folder of the images, relative to ``data_root``. Defaults to
            ``'imgs'``.
        pipeline: Transforms.
        check_images: Whether to look for every image file before training starts, and
            at both ends of each: see :func:`damaged_images`. ``'decode'`` decodes them
            all, too, which takes a minute or more. Defaults to True.
        unreadable: ``'stop'`` if such an image is an error; ``'skip'`` leaves it out of
            training, and says how many those were. Defaults to ``'stop'``.
        schema: Field names of the annotation file that differ from the dataset's own:
            ``dict(image='img_path')``. Defaults to None.
        gt_label: Whether each item has a ``gt_label``, too, from which an mmpretrain
            classifier learns: the place of its ``pid`` among the sorted ids of the
            train split. ``metainfo['classes']`` then holds these ids. Defaults to
            False.
        **kwargs: Further arguments of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        MissingDataError: If the annotation file, the image folder or images are not
            there.
        InputError: If the annotation file is malformed or the split is empty, if an
            argument is none of the above, or if ``gt_label`` is asked for in another
            split than ``'train'`` or of images without ids.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'dataset': 'person_text'}
    #: folder below ``data/``
    folder: ClassVar[str] = 'person_text'
    #: usual names of the annotation file, the official one first
    ann_files: ClassVar[tuple[str, ...]] = ('annotations.json',)
    default_schema: ClassVar[RecordSchema] = RecordSchema()
    #: where the data can be had
    access: ClassVar[str] = 'bring your own files'
    #: split -> (ids, images, captions), as published
    published_counts: ClassVar[dict[str, tuple[int, int, int]]] = {}

    def __init__(
        self,
        data_root: str | None = None,
        split: str = 'train',
        view: str = 'pairs',
        ann_file: str | None = None,
        image_folder: str = 'imgs',
        pipeline: Sequence[dict] = (),
        check_images: bool | Literal['decode'] = True,
        unreadable: str = 'stop',
        schema: dict[str, str] | None = None,
        gt_label: bool = False,
        **kwargs: Any,
    ) -> None:
        for name, value, choices in (
            ('view', view, VIEWS),
            ('check_images', check_images, (True, False, 'decode')),
            ('unreadable', unreadable, ('stop', 'skip')),
            ('gt_label', gt_label, (True, False)),
        ):
            if value not in choices:
                *others, last = map(repr, choices)
                raise InputError(
                    f'{type(self).__name__}: {name} must be {", ".join(others)} or '
                    f'{last}, got {value!r}'
                )
        self.split = split
        self.view = view
        self.check_images = check_images
        if unreadable == 'skip' and (split != 'train' or not check_images):
            raise InputError(
                f"{type(self).__name__}: unreadable='skip' is for split='train' with "
                f'check_images=True: scores on fewer images could not be compared'
            )
        self.unreadable = unreadable
        self._skipped: dict[str, str] | None = None
        if gt_label and split != 'train':
            raise InputError(
                f'{type(self).__name__}: gt_label numbers the people of the split '
                f"'train', got split={split!r}, whose people are others: remove it"
            )
        self.gt_label = gt_label
        self.schema = self._checked_schema(schema)
        data_root = self._local(data_root, 'data_root')
        ann_file = self._local(ann_file, 'ann_file')
        image_folder = self._local(image_folder, 'image_folder') or ''
        data_root = data_root or os.path.join('data', self.folder)
        super().__init__(
            ann_file=ann_file or self._find_ann_file(data_root),
            data_root=data_root,
            data_prefix={'img_path': image_folder},
            pipeline=list(pipeline),
            **kwargs,
        )

    def _checked_schema(self, schema: Any) -> RecordSchema:
        fields = RecordSchema._fields
        if schema is None:
            return self.default_schema
        if not isinstance(schema, dict):
            raise InputError(
                f"{type(self).__name__}: schema must be a dict such as dict(image='"
                f"img_path'), of the fields {fields}, got {schema!r}"
            )
        unknown = [field for field in schema if field not in fields]
        if unknown:
            raise InputError(
                f'{type(self).__name__}: schema names the fields {fields}, got '
                f'{sorted(map(str, unknown))}'
            )
        for field, name in schema.items():
            if not isinstance(name, str):
                raise InputError(
                    f'{type(self).__name__}: schema.{field} must be the name of a '
                    f'field of the annotation file, got {name!r}'
                )
        return self.default_schema._replace(**schema)

    def _local(self, path: Any, name: str) -> str | None:
        """Return a path as text; refuse addresses, which only look like one."""
        if path is None:
            return None
        if not isinstance(path, str | os.PathLike):
            raise InputError(
                f'{type(self).__name__}: {name} must be a path, got {path!r}'
            )
        path = os.fspath(path)
        if '://' in path or '\0' in path:
            raise InputError(
                f'{type(self).__name__}: {name} must be a local path, got {path!r}: '
                f'download or mount what is there'
            )
        return path

    def load_records(self) -> list[PersonRecord]:
        """Read the split's records; :meth:`image_path` tells where an image lies.

        Raises:
            MissingDataError: See the class.
            InputError: See the class.
        """
        return self._with_images(self._records_of_split())

    def _records_of_split(self) -> list[PersonRecord]:
        return select_split(self.load_all_records(), self.split, self.ann_file)

    def _with_images(self, records: list[PersonRecord]) -> list[PersonRecord]:
        """Look for the images of records; leave out what may be skipped."""
        image_root = self.data_prefix['img_path']
        if not self.check_images or self.view == 'captions':
            return records
        if self.unreadable == 'skip':
            return self._readable(records)
        missing = missing_images(image_root, (record.image for record in records))
        if missing:
            raise self._missing(
                f'{len(missing)} images of split {self.split!r} below '
                f'{image_root}, the first is {missing[0]}'
            )
        damaged = self._damaged([record.image for record in records])
        if damaged:
            raise InputError(
                f'{type(self).__name__}: {len(damaged)} images of split '
                f'{self.split!r} cannot be read, the first: {_first(damaged)}. '
                f"unreadable='skip' trains without them"
            )
        return records

    def _readable(self, records: list[PersonRecord]) -> list[PersonRecord]:
        """Leave out the records whose images cannot be read, and say so once."""
        if self._skipped is None:
            root, images = self.data_prefix['img_path'], [r.image for r in records]
            skipped = dict.fromkeys(missing_images(root, images), 'is missing')
            present = [image for image in images if image not in skipped]
            self._skipped = {**skipped, **self._damaged(present)}
            if self._skipped:
                print_log(
                    f'{type(self).__name__}: {len(self._skipped)} of '
                    f'{len(set(images))} images of split {self.split!r} cannot be '
                    f'read and are skipped, the first: {_first(self._skipped)}',
                    'current',
                    logging.WARNING,
                )
        kept = [record for record in records if record.image not in self._skipped]
        if not kept:
            raise InputError(
                f'{type(self).__name__}: none of the images of split {self.split!r} '
                f'below {self.data_prefix["img_path"]} can be read'
            )
        return kept

    def _damaged(self, images: Sequence[str]) -> dict[str, str]:
        """Return the images that cannot be read, with what is wrong with each."""
        root = self.data_prefix['img_path']
        if self.check_images == 'decode':
            return scan_images(root, list(dict.fromkeys(images))).unreadable
        return damaged_images(root, images)

    def load_all_records(self) -> list[PersonRecord]:
        """Read the records of every split, without a look at the images.

        Raises:
            MissingDataError: If the annotation file or the image folder is not there.
            InputError: If the annotation file is malformed.
        """
        image_root = self.data_prefix['img_path']
        if not os.path.isfile(self.ann_file):
            raise self._missing(f'annotation file {self.ann_file}')
        if not os.path.isdir(image_root):
            raise self._missing(f'image folder {image_root}')
        return read_records(self.ann_file, self.schema)

    def image_path(self, record: PersonRecord) -> str:
        """Return the path under which a record's image can be opened."""
        return os.path.join(self.data_prefix['img_path'], record.image)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lay the records out as the view shows them."""
        in_split = self._records_of_split()
        labels = self._number_people(in_split) if self.gt_label else {}
        items: list[dict[str, Any]] = []
        for record in self._with_images(in_split):
            common: dict[str, Any] = {'pid': record.pid}
            if self.view != 'captions':
                common['img_path'] = self.image_path(record)
            if self.gt_label:
                common['gt_label'] = labels[record.pid]
            if self.view == 'images':
                items.append(common)
            else:
                items += [common | {'caption': caption} for caption in record.captions]
        self._warn_of_one_person(items)
        return items

    def _number_people(self, records: list[PersonRecord]) -> dict[int, int]:
        """Number the ids of a split from 0 on, images that are skipped included."""
        pids = sorted({record.pid for record in records})
        if UNKNOWN_PID in pids:
            raise InputError(
                f'{type(self).__name__}: gt_label needs to know who is on each image, '
                f'but some have the id {UNKNOWN_PID}, which is nobody: {self.ann_file}'
            )
        self._metainfo['classes'] = tuple(map(str, pids))
        return {pid: label for label, pid in enumerate(pids)}

    def _warn_of_one_person(self, items: list[dict[str, Any]]) -> None:
        """Warn of ids that tell nobody apart, as of a column that was mixed up."""
        pids = {item['pid'] for item in items}
        if self.view == 'captions' or len(items) < 2 or len(pids) > 1:
            return
        (pid,) = pids
        if pid != UNKNOWN_PID:
            print_log(
                f'{self.ann_file}: all {len(items)} items of split {self.split!r} have '
                f'the id {pid}: there is nobody to tell apart. Does '
                f'schema.pid={self.schema.pid!r} name the right field?',
                'current',
                logging.WARNING,
            )

    @property
    def pids(self) -> np.ndarray:
        """Person id of every item, shape (N,), int64; read anew each time."""
        self.full_init()
        pids = [self.get_data_info(index)['pid'] for index in range(len(self))]
        return np.array(pids, dtype=np.int64)

    @property
    def num_classes(self) -> int:
        """Number of people that ``gt_label`` tells apart: 0 … ``num_classes`` − 1.

        Raises:
            InputError: If the dataset was built without ``gt_label``.
        """
        self.full_init()
        if not self.gt_label:
            raise InputError(
                f'{type(self).__name__}: has no classes without gt_label=True'
            )
        return len(self._metainfo['classes'])

    def captions(self) -> list[str]:
        """Return every caption of the split, in the order of the annotation file."""
        return [
            caption for record in self.load_records() for caption in record.captions
        ]

    def __getitem__(self, index: int | Draw) -> Any:
        """Return one item; a :class:`Draw` also fixes its augmentation."""
        if not self._fully_initialized:
            self.full_init()
        if isinstance(index, Draw):
            with seeded_augmentation(index.seed):
                return self.prepare_data(index.index)
        return self.prepare_data(index)

    def _find_ann_file(self, data_root: str) -> str:
        for name in self.ann_files:
            if os.path.isfile(os.path.join(data_root, name)):
                return name
        return self.ann_files[0]

    def _missing(self, what: str) -> MissingDataError:
        names = ' or '.join(self.ann_files)
        return MissingDataError(
            f'{type(self).__name__}: missing {what}.\n'
            f'  where to get it: {self.access}\n'
            f'  where it belongs: {self.data_root}/ with {names} and the images '
            f'below {self.data_prefix["img_path"]}/ '
            f'(another place: set data_root)\n'
            f'  what runs meanwhile, with no download: '
            f'configs/baselines/source_only_street2mall.py, on what '
            f'`python tools/make_synthpedes.py` draws (make demo does both)'
        )


def as_dataset(dataset: dict | PersonTextDataset, **kwargs: Any) -> PersonTextDataset:
    """Build a dataset from its config and further arguments; leave a built one."""
    if isinstance(dataset, PersonTextDataset):
        return dataset
    return DATASETS.build({**dataset, **kwargs})


def _first(flaws: dict[str, str]) -> str:
    image, flaw = next(iter(flaws.items()))
    return flaw if image in flaw else f'{image} {flaw}'
