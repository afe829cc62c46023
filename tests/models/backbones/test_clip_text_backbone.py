"""CLIP's text tower, against transformers' CLIPModel with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gckd_mm.errors import InputError
from gckd_mm.models import CLIPTextBackbone, HFTokenizer, TokenProjection

tiny_clip = pytest.importorskip('tests.models.tiny_clip')

CAPTIONS = ['a man in a red coat', '', 'red ' * 80, '穿红色外套的人', '😀 a man']


def padded(folder: Path, length: int | None = None) -> dict[str, torch.Tensor]:
    """The captions in transformers' own tokens, padded to a length or the longest."""
    tokenizer = tiny_clip.transformers.CLIPTokenizerFast.from_pretrained(folder)
    batch = tokenizer(
        CAPTIONS,
        padding='max_length' if length else 'longest',
        max_length=length or 77,
        truncation=True,
        return_tensors='pt',
    )
    mask = batch['attention_mask'].bool()
    return {'input_ids': batch['input_ids'], 'attention_mask': mask}


def embedded(folder: Path, batch: dict, **kwargs) -> torch.Tensor:
    backbone = CLIPTextBackbone(str(folder), **kwargs).eval()
    neck = TokenProjection(24, 16, pooling='eos', pretrained=str(folder))
    neck.init_weights()
    return neck(backbone(**batch), batch['attention_mask'])


@pytest.mark.parametrize('attn_implementation', ['sdpa', 'eager'])
def test_it_is_transformers(clip_folder: Path, attn_implementation: str) -> None:
    batch = padded(clip_folder)

    judge = tiny_clip.clip_model().get_text_features(**batch)

    torch.testing.assert_close(
        embedded(clip_folder, batch, attn_implementation=attn_implementation),
        tiny_clip.features(judge),
        rtol=1e-5,
        atol=1e-5,
    )


def test_our_tokens_give_what_theirs_give(clip_folder: Path) -> None:
    judge = tiny_clip.clip_model().get_text_features(**padded(clip_folder))

    torch.testing.assert_close(
        embedded(clip_folder, HFTokenizer(str(clip_folder))(CAPTIONS)),
        tiny_clip.features(judge),
        rtol=1e-5,
        atol=1e-5,
    )


def test_padding_to_the_longest_is_padding_to_77(clip_folder: Path) -> None:
    short = {name: rows[:2, :12] for name, rows in padded(clip_folder, 77).items()}
    long = {name: rows[:2] for name, rows in padded(clip_folder, 77).items()}
    assert short['attention_mask'].sum() == long['attention_mask'].sum()

    torch.testing.assert_close(
        embedded(clip_folder, short), embedded(clip_folder, long), rtol=1e-5, atol=1e-5
    )


def test_every_token_is_what_it_is_alone(clip_folder: Path) -> None:
    backbone = CLIPTextBackbone(str(clip_folder)).eval()
    batch = padded(clip_folder)

    together = backbone(**batch)

    assert together.shape == (5, 77, 24)
    for number, length in enumerate(batch['attention_mask'].sum(1).tolist()):
        alone = backbone(
            batch['input_ids'][number : number + 1, :length],
            batch['attention_mask'][number : number + 1, :length],
        )
        torch.testing.assert_close(
            alone[0], together[number, :length], rtol=1e-4, atol=1e-4
        )


def test_every_weight_gets_a_gradient(clip_folder: Path) -> None:
    backbone = CLIPTextBackbone(str(clip_folder))

    backbone(**padded(clip_folder)).square().mean().backward()

    for name, weight in backbone.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_names_of_the_weights_are_transformers() -> None:
    backbone = CLIPTextBackbone(config=dict(tiny_clip.TEXT, vocab_size=50))

    names = set(tiny_clip.clip_model().text_model.state_dict())
    assert set(backbone.state_dict()) == {f'model.{name}' for name in names}
    assert backbone.vocab_size == 50
    assert backbone.context_length == 77


def test_captions_beyond_the_context_are_refused(clip_folder: Path) -> None:
    ids = torch.zeros(1, 78, dtype=torch.int64)

    with pytest.raises(InputError, match=r'78 tokens.*77 positions.*max_length'):
        CLIPTextBackbone(str(clip_folder))(ids, ids == 0)


def test_a_bert_is_no_clip(bert_folder: Path) -> None:
    with pytest.raises(InputError, match=r"type 'bert'.*HFTextBackbone"):
        CLIPTextBackbone(str(bert_folder))
