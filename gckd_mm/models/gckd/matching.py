"""GCKD with a head that looks at a caption and an image together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.models.gckd.labels import SoftLabels
from gckd_mm.models.gckd.model import GCKD, AdaptationBatch
from gckd_mm.models.heads.image_text_matching_head import ImageTextMatchingHead
from gckd_mm.registry import MODELS

#: a soft label below which a pair is not the same person
_UNLIKELY = 1e-3
#: a soft label from which a pair of the batch is taken for the same person
_LIKELY = 0.1


@MODELS.register_module()
class GCKDWithMatching(GCKD):
    """:class:`GCKD`, and a loss that matches captions and images token by token.

    ``tools/test.py --rerank`` ranks the best images again by the trained head. In our
    measurements matching gained nothing, neither as a loss nor in the ranking: see
    docs/evaluation.md.

    Args:
        matching: Config of an :class:`ImageTextMatchingHead`.
        **gckd: See :class:`GCKD`; ``loss_weights`` may name ``matching``, too.

    Source: matching with cross-domain hard negatives is the paper's; which pairs of the
    target count is ours.
    """

    weighted: tuple[str, ...] = (*GCKD.weighted, 'matching')

    def __init__(self, *, matching: dict, **gckd: Any) -> None:
        super().__init__(**gckd)
        self.matching: ImageTextMatchingHead = MODELS.build(matching)
        #: whether :meth:`predict` also gives the tokens that ``matching`` compares
        self.keep_tokens = False

    def embed(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Embed with the student; also give the tokens that the head compares.

        Returns:
            As :meth:`GCKD.embed`, and ``image_tokens``, shape (N, T, C), or
            ``caption_tokens``, shape (N, L, C), with ``caption_mask``, shape (N, L).
        """
        feats = {}
        if 'images' in inputs:
            feats['images'], maps = self.embed_images(inputs['images'])
            feats['image_tokens'] = self.matching.tokens_of_images(maps)
        if 'captions' in inputs:
            feats['captions'], words = self.embed_captions(inputs['captions'])
            feats['caption_tokens'] = self.matching.tokens_of_captions(words)
            feats['caption_mask'] = inputs['captions']['attention_mask']
        return feats

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """Return every loss of one step by its name, weighted, and diagnostics."""
        return super().losses(batch) | self.matching_loss(batch)

    def matching_loss(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """Match the pairs of this rank, of both domains."""
        domains = [batch.source, batch.target]
        captions = [feats['captions'] for feats in domains if 'captions' in feats]
        images = [feats['images'] for feats in domains]
        similarity = torch.cat(captions).detach() @ torch.cat(images).detach().t()
        num = len(batch.pids)
        positives = torch.arange(num, device=batch.pids.device)[:, None].expand(-1, 2)
        weights = torch.ones(num, device=batch.pids.device)
        # People of one domain are not those of the other; within the target nobody
        # knows but the teacher.
        same = torch.zeros_like(similarity, dtype=torch.bool)
        same[:num, :num] = batch.pids[:, None] == batch.pids[None, :]
        same[num:, num:] = True
        if 'text_to_image' in batch.labels:
            rank = get_rank()
            own = slice(rank * len(images[1]), (rank + 1) * len(images[1]))
            pairs, trust, possible = pairs_of_batch(
                batch.labels['text_to_image'], batch.slots['target_images'], own
            )
            same[num:, num:] = possible
            positives = torch.cat([positives, pairs + num])
            weights = torch.cat([weights, trust])
        result = self.matching.loss(
            torch.cat([feats['image_tokens'] for feats in domains]),
            _pad_and_join([f['caption_tokens'] for f in domains if 'captions' in f]),
            _pad_and_join([f['caption_mask'] for f in domains if 'captions' in f]),
            similarity,
            positives,
            weights,
            same,
        )
        weight = self.loss_weights['matching'].at(batch.step)
        return {
            'loss_matching': weight * result['loss'],
            'matching_accuracy': result['accuracy'],
            'matching_target_positives': weights.new_tensor(len(positives) - num),
        }

    def predict(
        self, inputs: dict[str, Any], data_samples: Sequence[BaseDataElement]
    ) -> list[BaseDataElement]:
        """Embed a batch of one modality.

        Args:
            inputs: Either ``images`` or ``captions``, N of them.
            data_samples: N samples.

        Returns:
            As :meth:`DualEncoder.predict`. With :attr:`keep_tokens` each also has
            ``tokens``, float16 on the CPU, of shape (T, C) or (L, C), and that of a
            caption ``token_mask``, bool, of shape (L,), False on padding.

        Raises:
            ValueError: If the inputs hold both modalities or none.
        """
        if not self.keep_tokens or len(inputs) != 1:
            return super().predict(inputs, data_samples)
        (modality,) = inputs
        feats = self.embed(inputs)
        tokens = feats[f'{modality.removesuffix("s")}_tokens']
        fields = {'feat': feats[modality], 'tokens': tokens.half().cpu()}
        if modality == 'captions':
            fields['token_mask'] = feats['caption_mask'].bool().cpu()
        for index, sample in enumerate(data_samples):
            for name, values in fields.items():
                sample.set_field(values[index], name)
            sample.set_field(modality, 'modality')
        return list(data_samples)


@torch.no_grad()
def pairs_of_batch(
    soft: SoftLabels, image_slots: Tensor, rows: slice = slice(None)
) -> tuple[Tensor, Tensor, Tensor]:
    """Say which captions and images of a batch belong together.

    Args:
        soft: Of N captions over the images' memory.
        image_slots: Rows of that memory that hold the N images, shape (N,).
        rows: Those of one rank. Defaults to all of them.

    Returns:
        Caption row and image row of each likely pair, shape (G, 2): for a caption with
        a weight the best image of the batch, if its soft label is at least a tenth;
        these soft labels, shape (G,); and, bool, captions × images, where a pair is at
        all possible and must not serve as a negative.
    """
    labels = soft.labels[rows][:, image_slots[rows]]
    best = labels.max(dim=1)
    found = (best.values >= _LIKELY) & (soft.weights[rows] > 0)
    captions = found.nonzero().flatten()
    pairs = torch.stack([captions, best.indices[captions]], dim=1)
    return pairs, best.values[captions], labels > _UNLIKELY


def _pad_and_join(parts: list[Tensor]) -> Tensor:
    """Join (N, L, …) tensors of different lengths L, with zeros behind the shorter."""
    length = max(part.shape[1] for part in parts)
    return torch.cat(
        [
            F.pad(part, (0, 0) * (part.ndim - 2) + (0, length - part.shape[1]))
            for part in parts
        ]
    )
