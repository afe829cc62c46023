"""OpenAI's names against transformers', judged by what the models compute."""

from __future__ import annotations

import pytest
import torch

from gckd_mm.errors import CheckpointError
from gckd_mm.interop import convert, export_hf
from gckd_mm.interop.openai_clip import map_openai_clip
from tests.interop.hf_model import hf_clip, hf_features
from tests.interop.openai_model import TinyOpenAIClip, some_captions


def test_transformers_computes_what_openais_forward_does() -> None:
    judge = TinyOpenAIClip().eval()
    images, ids = torch.randn(3, 3, 32, 32), some_captions()

    ours = convert(judge.state_dict(), 'openai-clip', 'x.pt')
    out = export_hf(ours.weights, 'x.pth', given=ours.config)
    of_images, of_captions = hf_features(hf_clip(out), images, ids)

    torch.testing.assert_close(of_images, judge.encode_image(images), atol=2e-5, rtol=0)
    torch.testing.assert_close(of_captions, judge.encode_text(ids), atol=2e-5, rtol=0)


def test_query_key_and_value_are_told_apart() -> None:
    state_dict = TinyOpenAIClip().state_dict()

    weights = map_openai_clip(state_dict, 'x.pt').weights

    for tower, prefix in (('image', 'visual.'), ('text', '')):
        whole = state_dict[f'{prefix}transformer.resblocks.1.attn.in_proj_weight']
        layer = f'{tower}_backbone.model.encoder.layers.1.self_attn.'
        parts = [weights[f'{layer}{name}_proj.weight'] for name in 'qkv']
        assert torch.equal(torch.cat(parts), whole)
        for part in parts:
            assert part.untyped_storage().nbytes() == part.nbytes


def test_the_temperature_and_openais_counters_are_ignored() -> None:
    state_dict = TinyOpenAIClip().state_dict()
    state_dict |= {
        name: torch.tensor(32)
        for name in ('input_resolution', 'context_length', 'vocab_size')
    }

    mapped = map_openai_clip(state_dict, 'x.pt')

    assert sorted(mapped.ignored) == [
        'context_length',
        'input_resolution',
        'logit_scale',
        'vocab_size',
    ]
    assert not mapped.unused


@pytest.mark.parametrize(
    'key', ['visual.adapter.weight', 'transformer.resblocks.0.ls_1.gamma', 'ln_1.bias']
)
def test_an_unknown_key_is_not_swallowed(key: str) -> None:
    mapped = map_openai_clip({key: torch.zeros(1)}, 'x.pt')

    assert mapped.unused == [key]
    assert not mapped.weights


def test_a_resnet_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r'x\.pt: .* is a ResNet'):
        map_openai_clip({'visual.layer1.0.conv1.weight': torch.zeros(1)}, 'x.pt')
