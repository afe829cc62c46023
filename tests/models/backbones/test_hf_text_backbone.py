"""Any text encoder of transformers, against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.models import HFTextBackbone, HFTokenizer

tiny_clip = pytest.importorskip('tests.models.tiny_clip')

CAPTIONS = ['a man', '', 'a man a red coat word3', '穿 😀']
SMALL = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, vocab_size=60)
FAMILIES = {
    'bert': dict(SMALL, intermediate_size=32, max_position_embeddings=40),
    'roberta': dict(
        SMALL, intermediate_size=32, max_position_embeddings=42, pad_token_id=1
    ),
    'mpnet': dict(
        SMALL, intermediate_size=32, max_position_embeddings=42, pad_token_id=1
    ),
    'distilbert': dict(dim=24, n_layers=2, n_heads=4, hidden_dim=32, vocab_size=60)
    | dict(max_position_embeddings=40),
}


def batch(length: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, 60, (3, length))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 4:] = False
    return ids.masked_fill(~mask, 1), mask


def test_it_is_transformers(bert_folder: Path) -> None:
    captions = HFTokenizer(str(bert_folder), max_length=40)(CAPTIONS)
    mask = captions['attention_mask']

    tokens = HFTextBackbone(str(bert_folder)).eval()(**captions)

    judge = tiny_clip.bert_model()(captions['input_ids'], mask.long())
    torch.testing.assert_close(
        tokens[mask], judge.last_hidden_state[mask], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('family', FAMILIES)
def test_padding_is_nothing_in_any_family(family: str) -> None:
    backbone = HFTextBackbone(config=dict(FAMILIES[family], model_type=family))
    tiny_clip.shaken(backbone)
    ids, mask = batch()

    together = backbone(ids, mask)

    assert together.shape == (3, 9, 24)
    assert backbone.out_channels == 24
    assert backbone.vocab_size == 60
    alone = backbone(ids[1:2, :4], mask[1:2, :4])
    torch.testing.assert_close(alone[0], together[1, :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
def test_the_context_is_as_long_as_it_says(family: str) -> None:
    backbone = HFTextBackbone(config=dict(FAMILIES[family], model_type=family))
    assert backbone.context_length == 40

    assert backbone(*batch(40)).isfinite().all()
    with pytest.raises(InputError, match=r'41 tokens.*40 positions'):
        backbone(*batch(41))


@pytest.mark.parametrize('family', FAMILIES)
def test_every_weight_gets_a_gradient(family: str) -> None:
    backbone = HFTextBackbone(config=dict(FAMILIES[family], model_type=family))

    backbone(*batch()).square().mean().backward()

    without = [
        name for name, weight in backbone.named_parameters() if weight.grad is None
    ]
    assert not without


@pytest.mark.parametrize('family', FAMILIES)
def test_the_layers_are_found(family: str) -> None:
    backbone = HFTextBackbone(
        config=dict(FAMILIES[family], model_type=family), frozen_stages=1
    )

    depths = {backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()}
    assert {depth for depth, _ in depths} >= {0, 1, 2}
    assert {count for _, count in depths} == {4}


def test_a_published_model_without_a_pooler(tmp_path: Path) -> None:
    # RoBERTa is published as a language model: its pooler is in no file.
    config = tiny_clip.transformers.RobertaConfig(**FAMILIES['roberta'])
    model = tiny_clip.transformers.RobertaForMaskedLM(config)
    tiny_clip.shaken(model).save_pretrained(tmp_path)
    ids, mask = batch()

    tokens = HFTextBackbone(str(tmp_path)).eval()(ids, mask)

    judge = model.roberta(ids, mask.long()).last_hidden_state
    torch.testing.assert_close(tokens[mask], judge[mask], rtol=1e-5, atol=1e-5)


def test_without_sizes_there_is_nothing() -> None:
    with pytest.raises(InputError, match=r'needs `pretrained`, or a `config`'):
        HFTextBackbone()
    with pytest.raises(InputError, match=r"text_backbone\.config: .*'bertt'"):
        HFTextBackbone(config=dict(model_type='bertt'))
    with pytest.raises(InputError, match='BertConfig has no hiden_size'):
        HFTextBackbone(config=dict(model_type='bert', hiden_size=3))


def test_a_clip_is_no_encoder_of_text_alone(clip_folder: Path) -> None:
    with pytest.raises(InputError, match=r"type 'clip'.*CLIPTextBackbone"):
        HFTextBackbone(str(clip_folder))
