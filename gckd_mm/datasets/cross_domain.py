"""Source pairs beside an unlabelled, unpaired target domain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from mmengine.dataset import Compose
from torch.utils.data import Dataset

from gckd_mm.datasets.draw import Draw, seeded_augmentation
from gckd_mm.datasets.packed_strings import PackedStrings
from gckd_mm.datasets.person_text import PersonTextDataset, as_dataset
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS


@DATASETS.register_module()
class CrossDomainDataset(Dataset):
    """One item = one labelled source pair + one target image + one target caption.

    The target's ids and its pairing are dropped while the dataset is built. What stays
    is a list of images and a list of captions, each in the order of the SHA-256 of its
    path or text: an order that the annotation file's order, ids and pairing do not
    touch, and in which neighbours say nothing of each other. An item of the target
    carries neither path nor id, only its position in that order.

    Items are asked for by a :class:`Draw` of :class:`CrossDomainSampler`, and are
    ``dict(inputs=…, data_samples=…, target=dict(inputs=…, image_index=…,
    caption_index=…))``: the first two as the source's pipeline packs them. A draw of
    the source stage, whose image index is None, gives an item without ``target``.

    Args:
        source: Config of the labelled dataset, with ``view='pairs'``.
        target: Config of the target's dataset, or of a :class:`PersonImageFolder`. Its
            pipeline gets a dict with
            ``img_path``, ``caption`` and ``sample_idx``, the first two sampled
            independently of each other.
        target_captions: Whether the target has captions. False is the variant with
            target images alone; the caption stream is then absent from all items.
            Defaults to True.

    Attributes:
        target_images: Paths of the target's images, in that order.
        target_captions: The target's captions, in that order.

    Raises:
        InputError: If the source does not show pairs, or the target has ``indices``
            or ``gt_label``, or is not the ``'train'`` split.
    """

    def __init__(
        self,
        source: dict | PersonTextDataset,
        target: dict | PersonTextDataset,
        target_captions: bool = True,
    ) -> None:
        self.source = as_dataset(source)
        if self.source.view != 'pairs':
            raise InputError(
                f"CrossDomainDataset: source needs view='pairs', got "
                f'{self.source.view!r}'
            )
        unlabelled = as_dataset(target, lazy_init=True, view='images')
        if unlabelled._indices is not None:
            raise InputError(
                'CrossDomainDataset: indices would choose target samples by their '
                'annotation; write an annotation file with fewer records instead'
            )
        if unlabelled.gt_label:
            raise InputError(
                'CrossDomainDataset: gt_label would show who is on the images of the '
                'target, which has no labels in training; ask for it in the source'
            )
        if unlabelled.split != 'train':
            raise InputError(
                f"CrossDomainDataset: the target's {unlabelled.split!r} split must not "
                f"be seen in training; use split='train'"
            )
        records = unlabelled.load_records()
        # Keyed by the path inside the image folder: the same order on every machine,
        # and an image that is listed twice is not sampled twice as often.
        paths = {record.image: unlabelled.image_path(record) for record in records}
        self.target_images = PackedStrings(paths[i] for i in canonical_order(paths))
        captions = (c for record in records for c in record.captions)
        self.target_captions = PackedStrings(
            canonical_order(captions) if target_captions else ()
        )
        self._target_pipeline: Compose = unlabelled.pipeline

    @property
    def metainfo(self) -> dict[str, Any]:
        """The source's meta information; the target has none to give."""
        return self.source.metainfo

    @property
    def num_target_images(self) -> int:
        """Number of distinct target images."""
        return len(self.target_images)

    @property
    def num_target_captions(self) -> int:
        """Number of target captions; 0 if the target has images alone."""
        return len(self.target_captions)

    def full_init(self) -> None:
        """Load the source's annotations if that was put off."""
        self.source.full_init()

    def captions(self) -> list[str]:
        """Return the source's captions and the target's, in canonical order."""
        return [*self.source.captions(), *self.target_captions]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return the item of one draw: see the class."""
        if not isinstance(draw, Draw) or not isinstance(draw.index, tuple):
            raise TypeError(
                'CrossDomainDataset is indexed by the draws of CrossDomainSampler, got '
                f'{draw!r}: set sampler=dict(type="CrossDomainSampler")'
            )
        source_index, image_index, caption_index = draw.index
        with seeded_augmentation(draw.seed):
            item = self.source.prepare_data(source_index)
            if image_index is None:
                return item
            results = {
                'img_path': self.target_images[image_index],
                'sample_idx': image_index,
            }
            if caption_index is not None:
                results['caption'] = self.target_captions[caption_index]
            target = {
                'inputs': self._target_pipeline(results)['inputs'],
                'image_index': image_index,
            }
            if caption_index is not None:
                target['caption_index'] = caption_index
        return {**item, 'target': target}


def canonical_order(texts: Iterable[str]) -> list[str]:
    """Sort by SHA-256: an order that says nothing of what the texts are about."""
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
