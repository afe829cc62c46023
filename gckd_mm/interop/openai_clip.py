"""OpenAI's names for the weights of CLIP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from gckd_mm.errors import CheckpointError
from gckd_mm.interop.keys import (
    CLASS_TOKEN,
    IMAGE,
    IMAGE_POSITIONS,
    IMAGE_PROJECTION,
    PATCHES,
    TEXT,
    TEXT_POSITIONS,
    TEXT_PROJECTION,
    TOKENS,
    Mapped,
)

_OUTSIDE = {
    'visual.class_embedding': CLASS_TOKEN,
    'visual.conv1.weight': PATCHES,
    'visual.positional_embedding': IMAGE_POSITIONS,
    # `pre_layrnorm` is how transformers spells it.
    'visual.ln_pre.weight': f'{IMAGE}pre_layrnorm.weight',
    'visual.ln_pre.bias': f'{IMAGE}pre_layrnorm.bias',
    'visual.ln_post.weight': f'{IMAGE}post_layernorm.weight',
    'visual.ln_post.bias': f'{IMAGE}post_layernorm.bias',
    'token_embedding.weight': TOKENS,
    'positional_embedding': TEXT_POSITIONS,
    'ln_final.weight': f'{TEXT}final_layer_norm.weight',
    'ln_final.bias': f'{TEXT}final_layer_norm.bias',
}
#: stored as (C, D), to be multiplied from the right
_TRANSPOSED = {
    'visual.proj': IMAGE_PROJECTION,
    'text_projection': TEXT_PROJECTION,
}
_INSIDE = {
    'ln_1': 'layer_norm1',
    'ln_2': 'layer_norm2',
    'attn.out_proj': 'self_attn.out_proj',
    'mlp.c_fc': 'mlp.fc1',
    'mlp.c_proj': 'mlp.fc2',
}
_LAYER = re.compile(r'(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)')
#: the temperature, and what OpenAI's archives hold beside the weights
_IGNORED = (
    'attn_mask',
    'context_length',
    'input_resolution',
    'logit_scale',
    'vocab_size',
)
_RESNET = 'visual.layer1.0.conv1.weight'


def map_openai_clip(state_dict: Mapping[str, Tensor], where: str) -> Mapped:
    """Map the weights of OpenAI's CLIP with a vision transformer.

    OpenAI's layers keep query, key and value in one matrix; transformers' keep three.

    Source: the names of Radford et al., *Learning Transferable Visual Models From
    Natural Language Supervision*, ICML 2021, https://github.com/openai/CLIP.
    """
    if _RESNET in state_dict:
        raise CheckpointError(
            f'{where}: holds a CLIP whose image tower is a ResNet; only those with a '
            f'vision transformer (ViT-…) can be converted'
        )
    weights: dict[str, Tensor] = {}
    ignored, unused = [], []
    for key, value in state_dict.items():
        mapped = dict(_map_one(key, value))
        weights.update(mapped)
        if key.split('.')[-1] in _IGNORED:
            ignored.append(key)
        elif not mapped:
            unused.append(key)
    return Mapped(weights, ignored, unused)


def _map_one(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that one of OpenAI's becomes; none if it is unknown."""
    layer = _LAYER.fullmatch(key)
    if key in _OUTSIDE:
        yield _OUTSIDE[key], value
    elif key in _TRANSPOSED:
        yield _TRANSPOSED[key], value.t().contiguous()
    elif layer is not None:
        tower, number, name, kind = layer.groups()
        prefix = f'{IMAGE if tower else TEXT}encoder.layers.{number}.'
        if name == 'attn.in_proj':
            # Copies: views of one matrix would be stored as the whole of it each.
            for part, third in zip('qkv', value.chunk(3), strict=True):
                yield f'{prefix}self_attn.{part}_proj.{kind}', third.clone()
        elif name in _INSIDE:
            yield f'{prefix}{_INSIDE[name]}.{kind}', value
