"""``gckd-search index``: make a gallery, or bring one up to date."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import reduce
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from mmengine.registry import DefaultScope

from gckd_mm.errors import InputError, MissingDataError
from gckd_mm.registry import DATASETS
from gckd_mm.search.apis import PersonSearchInferencer
from gckd_mm.search.cli.printing import print_pairs, progress_bar
from gckd_mm.search.gallery import Gallery
from gckd_mm.search.gallery.files import (
    FolderScan,
    ImageFile,
    images_at,
    images_of_dataset,
    named_suffixes,
    read_fields,
    read_list,
    scan_folder,
)
from gckd_mm.search.gallery.gallery_folder import GalleryExistsError
from gckd_mm.search.gallery.indexing import ALL, Share, Update, finish, update

DONE, SOME_UNREADABLE = 0, 3
#: for which ranks wait for the slowest of them, and for the index
_PATIENCE = timedelta(days=7)


def run(options: argparse.Namespace) -> int:
    """Make a gallery, or bring it up to date."""
    share = Share(int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1)))
    images, passed_over = _images(options)
    if share != ALL:
        dist.init_process_group('gloo', timeout=_PATIENCE)
    with ExitStack() as held:
        if share.rank == 0:
            gallery, inferencer = _open(options)
            held.enter_context(gallery)
            held.enter_context(gallery.indexing())
            _check_root(options, gallery)
            gallery.prepare()
        if share != ALL:
            dist.barrier()  # the first one makes the gallery
        if share.rank != 0:
            gallery, inferencer = _open(options)
            held.enter_context(gallery)
        with progress_bar('indexing') as progress:
            done = update(
                gallery,
                inferencer,
                images,
                options.batch_size,
                options.keep_missing,
                share,
                progress if share.rank == 0 else lambda done, total: None,
            )
        if share != ALL:
            parts: list[Any] = [None] * share.world_size
            dist.all_gather_object(parts, done)
            done = reduce(Update.beside, parts)
            if share.rank == 0:
                finish(gallery)
            dist.barrier()
            dist.destroy_process_group()
        if share.rank == 0:
            _report(options, done, len(gallery), passed_over)
    return SOME_UNREADABLE if done.unreadable else DONE


def _images(options: argparse.Namespace) -> FolderScan:
    if options.dataset and (options.list or options.fields):
        raise InputError('--dataset has its own list and fields')
    if options.dataset:
        return FolderScan(images_of_dataset(_dataset(options)), {})
    fields = read_fields(options.fields) if options.fields else None
    if options.list:
        names = read_list(options.list)
        found = FolderScan(images_at(names, options.folder, fields), {})
    else:
        found = scan_folder(options.folder, fields)
    _say_unused(found.images, fields)
    return found


def _say_unused(images: Sequence[ImageFile], fields: Mapping[str, Any] | None) -> None:
    """Say so if there are fields of other images."""
    unused = set(fields or ()) - {image.path for image in images}
    if unused and int(os.environ.get('RANK', 0)) == 0:
        print(
            f'fields of {len(unused)} pictures that are not there, such as '
            f'{min(unused)}: passed over',
            file=sys.stderr,
        )


def _device(options: argparse.Namespace) -> str | None:
    """Return what was named, or else the GPU of this process, if there are some."""
    rank = os.environ.get('LOCAL_RANK')
    if options.device or rank is None or not torch.cuda.is_available():
        return options.device
    return f'cuda:{int(rank) % torch.cuda.device_count()}'


def _dataset(options: argparse.Namespace) -> Any:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        if DATASETS.get(options.dataset) is None:
            raise InputError(
                f'--dataset must be CUHKPEDES, ICFGPEDES or RSTPReid, got '
                f'{options.dataset!r}'
            )
        return DATASETS.build(
            dict(
                type=options.dataset,
                data_root=options.folder,
                split=options.split,
                view='images',
                pipeline=[],
                check_images=False,
            )
        )


def _open(options: argparse.Namespace) -> tuple[Gallery, PersonSearchInferencer]:
    """Open the gallery, or make one; with the model that embeds."""
    inferencer, device = None, _device(options)
    if options.checkpoint:
        model, weights = options.checkpoint, None
        if options.config:
            model, weights = options.config, options.checkpoint
        inferencer = PersonSearchInferencer(model, weights, device, show_progress=False)
    if not Gallery.is_there(options.gallery):
        if inferencer is None:
            raise MissingDataError(
                f'{options.gallery}: is no gallery yet: name the model of a new one '
                f'with --checkpoint'
            )
        root = None if options.dataset else options.folder
        try:
            gallery = inferencer.new_gallery(
                options.gallery, root, options.index, options.milvus
            )
        except GalleryExistsError:
            pass  # another process has just made it
        else:
            return gallery, inferencer
    # not checked: it may be damaged, which this command repairs
    gallery = Gallery.open(options.gallery, check=False)
    if inferencer is None:
        inferencer = PersonSearchInferencer.of_gallery(
            gallery, device, show_progress=False
        )
    gallery.check_model(inferencer.fingerprint, inferencer.encoder.name)
    if options.milvus and not gallery.is_kept_in(options.milvus):
        raise InputError(
            f'{options.gallery}: is there already, and not in {options.milvus}: index '
            f'into another gallery'
        )
    return gallery, inferencer


def _check_root(options: argparse.Namespace, gallery: Gallery) -> None:
    """Refuse another folder than the gallery's, unless that was moved there."""
    root = None if options.dataset else os.path.abspath(options.folder)
    if gallery.root == root:
        return
    if root is None or not _was_moved(gallery, root):
        raise InputError(
            f'{options.gallery}: is the gallery of {gallery.root}, not of {root}: '
            f'give each folder a gallery of its own'
        )
    gallery.follow(root)


def _was_moved(gallery: Gallery, root: str) -> bool:
    """Return whether the gallery's folder is gone, and its images are in this one.

    The first hundred decide. Of another folder all would be dropped.
    """
    if gallery.root is None or os.path.isdir(gallery.root):
        return False
    items = list(islice(gallery.engine.items(), 100))
    there = sum(os.path.isfile(os.path.join(root, item.path)) for item in items)
    return 2 * there > len(items)


def _report(
    options: argparse.Namespace, done: Update, size: int, passed_over: Mapping[str, int]
) -> None:
    for warning in _warnings(done, passed_over):
        print(warning, file=sys.stderr)
    known = {**done._asdict(), 'passed_over': dict(passed_over), 'pictures': size}
    if options.json:
        print(json.dumps(known, indent=2))
        return
    if done.repaired:
        print(
            f'{done.repaired} images whose stored embeddings were damaged: embedded '
            f'again',
            file=sys.stderr,
        )
    for problem in done.unreadable.values():
        print(f'left out: {problem}', file=sys.stderr)
    known['unreadable'] = len(done.unreadable)
    known['passed_over'] = sum(passed_over.values())
    known['seconds'] = f'{done.seconds:.1f}'
    print_pairs(known)


def _warnings(done: Update, passed_over: Mapping[str, int]) -> Iterator[str]:
    count = sum(passed_over.values())
    if count:
        files = 'files that are no images by their'
        if count == 1:
            files = 'file that is no image by its'
        yield f'passed over: {count} {files} suffix ({named_suffixes(passed_over)})'
    if done.wider_than_tall:
        yield (
            f'warning: {done.wider_than_tall} of {done.added + done.changed} images '
            f'are wider than tall: this model expects crops of single persons'
        )
