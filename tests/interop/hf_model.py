"""transformers' models of converted weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from gckd_mm.interop import Conversion


def hf_clip(exported: Conversion) -> CLIPModel:
    """Build the model of an export, and load every weight."""
    model = CLIPModel(CLIPConfig(**exported.config)).eval()
    model.load_state_dict(exported.weights)
    return model


def random_hf_clip() -> CLIPModel:
    """A tiny model whose heads and activation are not OpenAI's."""
    tower = {
        'intermediate_size': 40,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'hidden_act': 'gelu',
    }
    config = CLIPConfig(
        projection_dim=12,
        vision_config={**tower, 'hidden_size': 32, 'image_size': 16, 'patch_size': 8},
        text_config={
            **tower,
            'hidden_size': 16,
            'vocab_size': 50,
            'max_position_embeddings': 10,
            'bos_token_id': 1,
            'eos_token_id': 2,
            'pad_token_id': 0,
        },
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.logit_scale.data = torch.tensor(1.2345678)
    return model


@torch.no_grad()
def hf_features(
    model: CLIPModel, images: Tensor, ids: Tensor, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Return image and text features, shape (N, D)."""
    found = (
        model.get_image_features(pixel_values=images, **kwargs),
        model.get_text_features(input_ids=ids),
    )
    # A tensor before transformers 5.
    first, second = (getattr(value, 'pooler_output', value) for value in found)
    return first, second
