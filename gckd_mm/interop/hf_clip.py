"""transformers' names for the weights of a ``CLIPModel``, in and out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gckd_mm.interop.keys import (
    IMAGE,
    IMAGE_PROJECTION,
    TEXT,
    TEXT_PROJECTION,
    Mapped,
)

#: ours -> transformers', of whole keys and of prefixes
_PREFIXES = {IMAGE: 'vision_model.', TEXT: 'text_model.'}
_KEYS = {
    IMAGE_PROJECTION: 'visual_projection.weight',
    TEXT_PROJECTION: 'text_projection.weight',
}
_OURS = {name: key for key, name in _KEYS.items()}
#: counters that older versions saved
_POSITION_IDS = 'embeddings.position_ids'
#: the parts of a retriever that a ``CLIPModel`` has, too
_PARTS = ('image_backbone.', 'image_neck.', 'text_backbone.', 'text_neck.')


def map_hf_clip(state_dict: Mapping[str, Tensor], where: str) -> Mapped:
    """Map the weights of transformers' ``CLIPModel``.

    Source: the names of https://github.com/huggingface/transformers.
    """
    weights: dict[str, Tensor] = {}
    ignored, unused = [], []
    for key, value in state_dict.items():
        ours = _to_ours(key)
        if key == 'logit_scale' or key.endswith(_POSITION_IDS):
            ignored.append(key)
        elif ours is None:
            unused.append(key)
        else:
            weights[ours] = value
    return Mapped(weights, ignored, unused)


def map_to_hf_clip(state_dict: Mapping[str, Tensor]) -> Mapped:
    """Map the weights of a retriever of two CLIP towers: :func:`map_hf_clip` undone."""
    weights: dict[str, Tensor] = {}
    ignored, unused = [], []
    for key, value in state_dict.items():
        name = _to_hf(key)
        if not key.startswith(_PARTS) or key.endswith(_POSITION_IDS):
            ignored.append(key)
        elif name is None:
            unused.append(key)
        else:
            weights[name] = value
    return Mapped(weights, ignored, unused)


def _to_ours(key: str) -> str | None:
    for ours, name in _PREFIXES.items():
        if key.startswith(name):
            return ours + key.removeprefix(name)
    return _OURS.get(key)


def _to_hf(key: str) -> str | None:
    for ours, name in _PREFIXES.items():
        if key.startswith(ours):
            # Before transformers 5, a tower of its own had the prefix inside, too.
            return name + key.removeprefix(ours).removeprefix(name)
    return _KEYS.get(key)
