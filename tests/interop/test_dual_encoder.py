"""A published checkpoint ranks as its own code does, in a retriever of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope

from gckd_mm.checkpoint import load_weights
from gckd_mm.interop import convert
from gckd_mm.models import DualEncoder
from gckd_mm.registry import MODELS
from tests.interop.openai_model import (
    CONTEXT,
    PATCH,
    SIZE,
    VOCABULARY,
    TinyOpenAIClip,
    irra_state_dict,
    some_captions,
)


def build(image_size: tuple[int, int]) -> DualEncoder:
    """The towers of the tiny CLIP."""
    vision = dict(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=PATCH,
    )
    text = dict(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=1,
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
    )
    neck = dict(type='TokenProjection', out_channels=SIZE)
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        return MODELS.build(
            dict(
                type='DualEncoder',
                image_backbone=dict(
                    type='CLIPImageBackbone', config=vision, image_size=image_size
                ),
                image_neck=dict(neck, in_channels=128),
                text_backbone=dict(type='CLIPTextBackbone', config=text),
                text_neck=dict(neck, in_channels=64, pooling='eos'),
            )
        ).eval()


@pytest.mark.parametrize('family', ['openai-clip', 'irra'])
def test_the_embeddings_are_those_of_the_published_code(family: str) -> None:
    judge = TinyOpenAIClip(grid=(6, 2)).eval()
    if family == 'irra':  # stored in half precision, computed in single
        judge.half().float()
    state_dict = irra_state_dict(judge) if family == 'irra' else judge.state_dict()
    images, ids = torch.randn(3, 3, 48, 16), some_captions()
    ends = ids.argmax(dim=1)
    captions = {
        'input_ids': ids,
        'attention_mask': torch.arange(CONTEXT)[None] <= ends[:, None],
    }

    model = build((48, 16))
    load_weights(model, {'state_dict': convert(state_dict, family, 'x').weights}, 'x')
    with torch.no_grad():
        feats = model({'images': images, 'captions': captions})

    for name, expected in (
        ('images', judge.encode_image(images)),
        ('captions', judge.encode_text(ids)),
    ):
        torch.testing.assert_close(
            feats[name], F.normalize(expected, dim=1), atol=1e-5, rtol=0
        )


def test_a_resized_grid_is_the_one_that_the_backbone_reads(tmp_path: Path) -> None:
    state_dict = TinyOpenAIClip().state_dict()
    weights = convert(state_dict, 'openai-clip', 'x', image_size=(48, 16)).weights

    load_weights(build((48, 16)), {'state_dict': weights}, 'x')
    with pytest.raises(ValueError, match='position_embedding'):
        load_weights(build((32, 32)), {'state_dict': weights}, 'x')
