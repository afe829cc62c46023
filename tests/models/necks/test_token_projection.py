"""Pooling of tokens, against a loop over the tokens that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models import TokenProjection

LENGTHS = [1, 6, 3, 4]
POOLINGS = ['cls', 'eos', 'mean']


def tokens_and_mask() -> tuple[Tensor, Tensor]:
    mask = torch.arange(6)[None, :] < torch.tensor(LENGTHS)[:, None]
    return torch.randn(len(LENGTHS), 6, 5), mask


def naive(neck: TokenProjection, tokens: Tensor, lengths: list[int]) -> Tensor:
    rows = []
    for caption, length in zip(tokens.double(), lengths, strict=True):
        kept = [caption[position] for position in range(length)]
        pooled = {'cls': kept[0], 'eos': kept[-1], 'mean': sum(kept) / length}
        row = neck.projection.weight.double() @ pooled[neck.pooling]
        if neck.projection.bias is not None:
            row = row + neck.projection.bias.double()
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize('pooling', POOLINGS)
@pytest.mark.parametrize('bias', [False, True])
def test_captions_against_a_loop(pooling: str, bias: bool) -> None:
    neck = TokenProjection(5, 7, pooling, bias=bias)
    tokens, mask = tokens_and_mask()

    embedded = neck(tokens, mask)

    expected = naive(neck, tokens, LENGTHS)
    assert embedded.shape == (4, 7)
    torch.testing.assert_close(embedded.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('pooling', POOLINGS)
def test_images_against_a_loop(pooling: str) -> None:
    neck = TokenProjection(5, 7, pooling)
    tokens, _ = tokens_and_mask()

    other = torch.randn(4, 2, 5)
    first, embedded = neck((other, tokens))  # the last of the tuple is meant

    assert first is other

    expected = naive(neck, tokens, [6] * 4)
    torch.testing.assert_close(embedded.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('pooling', POOLINGS)
def test_what_lies_in_the_padding_is_nothing(pooling: str) -> None:
    neck = TokenProjection(5, 7, pooling)
    tokens, mask = tokens_and_mask()
    tokens.requires_grad_()

    filled = tokens.masked_fill(~mask[..., None], float('nan'))
    embedded = neck(filled, mask)
    embedded.square().sum().backward()

    torch.testing.assert_close(embedded, neck(tokens, mask))
    assert tokens.grad.isfinite().all()


def test_the_weights_of_a_clip(clip_folder: Path) -> None:
    tiny_clip = pytest.importorskip('tests.models.tiny_clip')
    clip = tiny_clip.clip_model()
    image = TokenProjection(32, 16, 'cls', pretrained=str(clip_folder))
    text = TokenProjection(24, 16, 'eos', pretrained=str(clip_folder))
    assert not torch.equal(image.projection.weight, clip.visual_projection.weight)

    image.init_weights()
    text.init_weights()

    assert torch.equal(image.projection.weight, clip.visual_projection.weight)
    assert torch.equal(text.projection.weight, clip.text_projection.weight)


def test_a_clip_of_other_sizes(clip_folder: Path) -> None:
    neck = TokenProjection(32, 20, 'cls', pretrained=str(clip_folder))

    with pytest.raises(InputError, match=r'from 32 to 16 .*in_channels=32.*=20'):
        neck.init_weights()


def test_what_is_no_clip(bert_folder: Path) -> None:
    neck = TokenProjection(24, 16, 'eos', pretrained=str(bert_folder))

    with pytest.raises(InputError, match='tiny-bert: has no text_projection'):
        neck.init_weights()


@pytest.mark.parametrize('wrong', [dict(pooling='mean'), dict(bias=True)])
def test_what_no_clip_has(wrong: dict) -> None:
    with pytest.raises(InputError, match='no bias and follow'):
        TokenProjection(24, 16, pretrained='somewhere', **wrong)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(InputError, match=r"pooling must be one of .*, got 'last'"):
        TokenProjection(5, 7, 'last')


@pytest.mark.parametrize('pooling', POOLINGS)
def test_pooled_features_are_not_sliced_as_tokens(pooling: str) -> None:
    neck = TokenProjection(5, 7, pooling)
    pooled = torch.randn(4, 5)

    assert torch.equal(neck(pooled), neck.projection(pooled))
    assert torch.equal(neck((pooled,))[-1], neck.projection(pooled))


def test_a_feature_map_has_no_tokens() -> None:
    with pytest.raises(InputError, match=r'\(2, 5, 8, 4\).*ImageProjection'):
        TokenProjection(5, 7)(torch.randn(2, 5, 8, 4))
