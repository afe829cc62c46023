"""How a retriever of two CLIP towers names its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

#: before the names that transformers gives to the weights of a tower
IMAGE = 'image_backbone.model.'
TEXT = 'text_backbone.model.'
IMAGE_PROJECTION = 'image_neck.projection.weight'
TEXT_PROJECTION = 'text_neck.projection.weight'

CLASS_TOKEN = f'{IMAGE}embeddings.class_embedding'
PATCHES = f'{IMAGE}embeddings.patch_embedding.weight'
IMAGE_POSITIONS = f'{IMAGE}embeddings.position_embedding.weight'
TOKENS = f'{TEXT}embeddings.token_embedding.weight'
TEXT_POSITIONS = f'{TEXT}embeddings.position_embedding.weight'


class Mapped(NamedTuple):
    """What a key mapping makes of a state dict."""

    weights: dict[str, Tensor]  # name in a :class:`DualEncoder`; the dtype is kept
    ignored: list[str]  # keys that are known to have no place in one
    unused: list[str]  # keys that the mapping does not know

    def under(self, names: Mapping[str, str]) -> Mapped:
        """Report keys as the file has them: ``names`` is name -> key."""
        return Mapped(
            self.weights,
            [names[name] for name in self.ignored],
            [names[name] for name in self.unused],
        )
