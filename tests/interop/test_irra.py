"""The towers of IRRA and RDE, and what is left aside."""

from __future__ import annotations

import pytest
import torch

from gckd_mm.errors import CheckpointError
from gckd_mm.interop import convert
from gckd_mm.interop.irra import map_irra
from tests.interop.openai_model import TinyOpenAIClip, irra_state_dict


@pytest.mark.parametrize('wrapper', ['', 'module.'])
def test_the_towers_are_openais_in_the_precision_of_the_file(wrapper: str) -> None:
    clip = TinyOpenAIClip(grid=(6, 2))
    state_dict = {wrapper + k: v for k, v in irra_state_dict(clip).items()}

    found = convert(state_dict, 'irra', 'best.pth')
    expected = convert(clip.state_dict(), 'openai-clip', 'x.pt').weights

    assert found.weights.keys() == expected.keys()
    assert {value.dtype for value in found.weights.values()} == {
        torch.float16,
        torch.float32,
    }
    for key, value in found.weights.items():
        assert torch.equal(value, expected[key].to(value.dtype)), key


def test_what_ranking_does_not_need_is_listed() -> None:
    clip = TinyOpenAIClip()
    state_dict = irra_state_dict(clip)
    others = [key for key in state_dict if not key.startswith('base_model.')]
    state_dict['visul_emb_layer.fc.weight'] = torch.zeros(1)

    found = map_irra(state_dict, 'best.pth')

    assert sorted(found.ignored) == sorted([*others, 'visul_emb_layer.fc.weight'])
    assert not found.unused


def test_what_is_not_known_is_not_ignored() -> None:
    state_dict = irra_state_dict(TinyOpenAIClip())
    state_dict['base_model.visual.prompt'] = torch.zeros(1)
    state_dict['target_enricher.weight'] = torch.zeros(1)

    found = map_irra(state_dict, 'best.pth')

    assert found.unused == ['base_model.visual.prompt', 'target_enricher.weight']


def test_another_family_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no key begins with 'base_model\.'"):
        map_irra(TinyOpenAIClip().state_dict(), 'best.pth')
