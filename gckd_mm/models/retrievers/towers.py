"""The two encoders of a retriever."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.necks.features import Features, last_of


class TwoTowers:
    """What every module with the four parts below can do with them.

    image → ``image_backbone`` → ``image_neck`` → L2 norm → (N, D), and the same for
    captions. A neck gives shape (N, D), or a tuple of which the last has it.
    """

    image_backbone: nn.Module
    image_neck: nn.Module
    text_backbone: nn.Module
    text_neck: nn.Module

    def embed_images(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Embed images, and keep what the embeddings were pooled from.

        Args:
            images: Normalised, shape (N, 3, H, W).

        Returns:
            L2-normalised embeddings, shape (N, D), and the backbone's feature maps.
        """
        maps = self.image_backbone(images)
        return _on_the_sphere(self.image_neck(maps), 'image_neck'), maps

    def embed_captions(self, captions: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Embed captions, and keep what the embeddings were pooled from.

        Args:
            captions: ``input_ids`` and ``attention_mask``, each of shape (N, L).

        Returns:
            L2-normalised embeddings, shape (N, D), and token features, shape (N, L, C).
        """
        tokens = self.text_backbone(**captions)
        feats = self.text_neck(tokens, captions['attention_mask'])
        return _on_the_sphere(feats, 'text_neck'), tokens

    def extract_feat(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Embed whichever modality the inputs hold.

        Args:
            inputs: ``images`` and/or ``captions``, as the data preprocessor gives them.

        Returns:
            The same keys, with L2-normalised embeddings of shape (N, D).
        """
        feats = {}
        if 'images' in inputs:
            feats['images'] = self.embed_images(inputs['images'])[0]
        if 'captions' in inputs:
            feats['captions'] = self.embed_captions(inputs['captions'])[0]
        return feats


def _on_the_sphere(feats: Features, neck: str) -> Tensor:
    """L2-normalise what a neck gives, shape (N, D) or a tuple that ends in it."""
    last = last_of(feats)
    if last.ndim != 2:
        raise InputError(
            f'{neck} must give shape (N, D), got {tuple(last.shape)}: choose one that '
            f'pools, such as ImageProjection for maps, TokenProjection for tokens'
        )
    return F.normalize(last, dim=1)
