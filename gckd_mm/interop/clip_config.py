"""What weights say about the CLIP that they belong to, as transformers writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
)
from gckd_mm.models.functional.position_grid import square_grid

#: every CLIP of OpenAI has heads of this width; weights do not tell
_HEAD_WIDTH = 64
#: what transformers leaves out of a config.json that it writes
_HF_HEADS = {'vision_config': 12, 'text_config': 8}
_ACTIVATION = 'quick_gelu'
_LOGIT_SCALE = 2.6592


def infer_clip_config(
    weights: Mapping[str, Tensor], where: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the ``config.json`` of transformers' ``CLIPModel`` for weights.

    Sizes are read off the weights; heads and the activation are OpenAI's (64 channels a
    head, QuickGELU). What ``given`` says goes before both.
    """
    given = given or {}
    shapes = {}
    for key in (
        CLASS_TOKEN,
        PATCHES,
        IMAGE_POSITIONS,
        TOKENS,
        TEXT_POSITIONS,
        _mlp(IMAGE),
        _mlp(TEXT),
        IMAGE_PROJECTION,
        TEXT_PROJECTION,
    ):
        if key not in weights:
            raise CheckpointError(
                f'{where}: holds no {key}, which tells the size of the model: not a '
                f'CLIP with two transformers, or another family than --from names'
            )
        shapes[key] = tuple(weights[key].shape)
    (image_width,), (vocabulary, text_width) = shapes[CLASS_TOKEN], shapes[TOKENS]
    patch = shapes[PATCHES][-1]
    vision = {
        'hidden_size': image_width,
        'intermediate_size': shapes[_mlp(IMAGE)][0],
        'num_hidden_layers': _count_layers(weights, IMAGE),
        'patch_size': patch,
    }
    grid = square_grid(weights[IMAGE_POSITIONS])
    if grid is not None:
        vision['image_size'] = grid[0] * patch
    text = {
        'vocab_size': vocabulary,
        'hidden_size': text_width,
        'intermediate_size': shapes[_mlp(TEXT)][0],
        'num_hidden_layers': _count_layers(weights, TEXT),
        'max_position_embeddings': shapes[TEXT_POSITIONS][0],
    }
    if 'text_config' not in given:
        # The last two words of OpenAI's vocabulary start and end a caption.
        text |= {'bos_token_id': vocabulary - 2, 'eos_token_id': vocabulary - 1}
    size = shapes[IMAGE_PROJECTION][0]
    config = {
        'projection_dim': size,
        'logit_scale_init_value': _LOGIT_SCALE,
        **given,
        'model_type': 'clip',
        'architectures': ['CLIPModel'],
    }
    for name, found in (('vision_config', vision), ('text_config', text)):
        heads = max(1, found['hidden_size'] // _HEAD_WIDTH)
        config[name] = {
            'num_attention_heads': _HF_HEADS[name] if name in given else heads,
            'hidden_act': _ACTIVATION,
            'projection_dim': size,
            **found,
            **given.get(name, {}),
        }
    return config


def clip_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Return our name -> shape for every weight of a CLIP."""
    vision, text = config['vision_config'], config['text_config']
    patch, size = vision['patch_size'], config['projection_dim']
    width, text_width = vision['hidden_size'], text['hidden_size']
    positions = None
    if isinstance(vision.get('image_size'), int):
        positions = (1 + (vision['image_size'] // patch) ** 2, width)
    shapes: dict[str, tuple[int, ...] | None] = {
        CLASS_TOKEN: (width,),
        PATCHES: (width, 3, patch, patch),
        IMAGE_POSITIONS: positions,
        IMAGE_PROJECTION: (size, width),
        TOKENS: (text['vocab_size'], text_width),
        TEXT_POSITIONS: (text['max_position_embeddings'], text_width),
        TEXT_PROJECTION: (size, text_width),
    }
    for norm in (
        f'{IMAGE}pre_layrnorm',
        f'{IMAGE}post_layernorm',
        f'{TEXT}final_layer_norm',
    ):
        shapes |= _affine(norm, text_width if norm.startswith(TEXT) else width)
    return shapes | _layer_shapes(IMAGE, vision) | _layer_shapes(TEXT, text)


def _layer_shapes(tower: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, hidden = config['hidden_size'], config['intermediate_size']
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(config['num_hidden_layers']):
        layer = f'{tower}encoder.layers.{number}.'
        for name in ('layer_norm1', 'layer_norm2'):
            shapes |= _affine(layer + name, width)
        for name in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
            shapes |= _affine(f'{layer}self_attn.{name}', width, width)
        shapes |= _affine(f'{layer}mlp.fc1', hidden, width)
        shapes |= _affine(f'{layer}mlp.fc2', width, hidden)
    return shapes


def _affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def _mlp(tower: str) -> str:
    return f'{tower}encoder.layers.0.mlp.fc1.weight'


def _count_layers(weights: Mapping[str, Tensor], tower: str) -> int:
    prefix = f'{tower}encoder.layers.'
    return len(
        {
            key.removeprefix(prefix).split('.')[0]
            for key in weights
            if key.startswith(prefix)
        }
    )
