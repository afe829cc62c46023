"""open_clip's prefixes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gckd_mm.interop import convert, export_hf
from gckd_mm.interop.open_clip import map_open_clip
from tests.interop.hf_model import hf_clip, hf_features
from tests.interop.openai_model import TinyOpenAIClip, some_captions


@pytest.mark.parametrize('wrapper', ['', 'module.'])
@pytest.mark.parametrize('text', ['', 'text.'])
def test_prefixes_change_nothing(wrapper: str, text: str) -> None:
    plain = TinyOpenAIClip().state_dict()
    prefixed = {
        wrapper + ('' if key.startswith(('visual.', 'logit')) else text) + key: value
        for key, value in plain.items()
    }

    found = map_open_clip({**prefixed, f'{wrapper}attn_mask': torch.zeros(1)}, 'x.pt')
    expected = convert(plain, 'openai-clip', 'x.pt').weights

    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[key], expected[key]) for key in expected)
    assert sorted(found.ignored) == [f'{wrapper}attn_mask', f'{wrapper}logit_scale']
    assert not found.unused


def test_another_activation_is_taken_from_the_config() -> None:
    judge = TinyOpenAIClip(activation=nn.GELU()).eval()
    images, ids = torch.randn(3, 3, 32, 32), some_captions()
    act = {'hidden_act': 'gelu'}
    heads = {'vision_config': 2, 'text_config': 1}
    given = {key: {**act, 'num_attention_heads': n} for key, n in heads.items()}
    given['text_config']['eos_token_id'] = 59

    ours = convert(judge.state_dict(), 'open-clip', 'x.pt', given=given)
    out = export_hf(ours.weights, 'x.pth', given=ours.config)
    of_images, of_captions = hf_features(hf_clip(out), images, ids)

    torch.testing.assert_close(of_images, judge.encode_image(images), atol=2e-5, rtol=0)
    torch.testing.assert_close(of_captions, judge.encode_text(ids), atol=2e-5, rtol=0)


def test_unknown_keys_keep_their_name() -> None:
    found = map_open_clip({'module.text.pos': torch.zeros(1)}, 'x.pt')

    assert found.unused == ['module.text.pos']
