"""Pooling of tokens, against a loop over the tokens that are there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gckd_mm.models import TextProjection

LENGTHS = [1, 6, 3, 4]


def tokens_and_mask() -> tuple[Tensor, Tensor]:
    tokens = torch.randn(len(LENGTHS), 6, 5)
    mask = torch.zeros(len(LENGTHS), 6, dtype=torch.bool)
    for number, length in enumerate(LENGTHS):
        mask[number, :length] = True
    return tokens, mask


def naive(neck: TextProjection, tokens: Tensor) -> Tensor:
    weight, bias = neck.projection.weight.double(), neck.projection.bias.double()
    rows = []
    for caption, length in zip(tokens.double(), LENGTHS, strict=True):
        pooled = []
        for channel in range(caption.shape[1]):
            values = [caption[position, channel].item() for position in range(length)]
            pooled.append(
                {'max': max(values), 'mean': sum(values) / length, 'first': values[0]}[
                    neck.pooling
                ]
            )
        rows.append(weight @ torch.tensor(pooled, dtype=torch.float64) + bias)
    return torch.stack(rows)


@pytest.mark.parametrize('pooling', ['max', 'mean', 'first'])
def test_a_pooling_against_a_loop(pooling: str) -> None:
    neck = TextProjection(5, 7, pooling)
    tokens, mask = tokens_and_mask()

    embedded = neck(tokens, mask)

    assert embedded.shape == (4, 7)
    torch.testing.assert_close(
        embedded.double(), naive(neck, tokens), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('pooling', ['max', 'mean', 'first'])
@pytest.mark.parametrize('filler', [1e4, -1e4, float('nan')])
def test_what_lies_in_the_padding_is_nothing(pooling: str, filler: float) -> None:
    neck = TextProjection(5, 7, pooling)
    tokens, mask = tokens_and_mask()

    filled = tokens.masked_fill(~mask[..., None], filler)

    torch.testing.assert_close(neck(filled, mask), neck(tokens, mask))


@pytest.mark.parametrize('pooling', ['max', 'mean', 'first'])
def test_gradients_flow_to_tokens_and_not_to_padding(pooling: str) -> None:
    neck = TextProjection(5, 7, pooling)
    tokens, mask = tokens_and_mask()
    tokens.requires_grad_()

    neck(tokens, mask).square().sum().backward()

    assert tokens.grad.isfinite().all()
    assert not tokens.grad[~mask].any()
    assert (tokens.grad.abs().sum((1, 2)) > 0).all()


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pooling must be one of .*, got 'last'"):
        TextProjection(5, 7, 'last')


@pytest.mark.parametrize('pooling', ['max', 'mean', 'first'])
def test_without_a_mask_all_tokens_count(pooling: str) -> None:
    neck = TextProjection(5, 7, pooling)
    tokens = torch.randn(3, 6, 5)

    (embedded,) = neck((tokens,))

    everything = torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(embedded, neck(tokens, everything))
    assert torch.equal(neck(tokens[:, 0]), neck.projection(tokens[:, 0]))
