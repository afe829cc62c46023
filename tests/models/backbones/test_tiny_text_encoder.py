"""The small text encoder: padding is nothing, and context is what it should be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gckd_mm.models import TextProjection, TinyTextEncoder


def pad(rows: list[list[int]], length: int, filler: int = 0) -> tuple[Tensor, Tensor]:
    ids = torch.full((len(rows), length), filler)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = True
    return ids, mask


ROWS = [[2, 17, 3], [2, 5, 40, 8, 9, 22, 3], [2, 3], [2, 11, 30, 31, 3]]


@pytest.fixture(params=[(1, 3), (2, 3), (3, 5)], ids=str)
def encoder(request: pytest.FixtureRequest) -> TinyTextEncoder:
    layers, kernel = request.param
    module = TinyTextEncoder(50, 16, num_layers=layers, kernel_size=kernel).eval()
    # At their initial values the biases and gains could hide what padding does.
    for weight in module.parameters():
        torch.nn.init.normal_(weight, 0.5, 0.5)
    return module


@pytest.mark.parametrize('pooling', ['max', 'mean', 'first'])
@pytest.mark.parametrize('filler', [0, 49])
def test_a_caption_is_embedded_the_same_in_any_batch(
    encoder: TinyTextEncoder, pooling: str, filler: int
) -> None:
    neck = TextProjection(16, 8, pooling)
    ids, mask = pad(ROWS, 20, filler)

    together = neck(encoder(ids, mask), mask)

    for number, row in enumerate(ROWS):
        ids, mask = pad([row], len(row))
        alone = neck(encoder(ids, mask), mask)[0]
        torch.testing.assert_close(alone, together[number], rtol=1e-5, atol=1e-5)


def test_padding_has_no_features(encoder: TinyTextEncoder) -> None:
    ids, mask = pad(ROWS, 9)

    tokens = encoder(ids, mask)

    assert tokens.shape == (4, 9, 16)
    assert encoder.out_channels == 16
    assert not tokens[~mask].any()
    assert tokens[mask].abs().sum(1).min() > 0


def test_a_token_sees_its_neighbours_and_no_further(encoder: TinyTextEncoder) -> None:
    reach = len(encoder.convolutions) * (encoder.convolutions[0].kernel_size[0] // 2)
    ids = torch.randint(1, 49, (1, 30))
    mask = torch.ones_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[0, 15] = 49

    difference = (encoder(ids, mask) - encoder(changed, mask)).abs().sum(-1)[0]

    touched = difference.nonzero().flatten().tolist()
    assert touched == list(range(15 - reach, 15 + reach + 1))


def test_the_order_of_words_counts() -> None:
    # "a red coat and blue jeans" is not "a blue coat and red jeans".
    encoder = TinyTextEncoder(50, 16).eval()
    mask = torch.ones(1, 6, dtype=torch.bool)
    neck = TextProjection(16, 8)

    one = neck(encoder(torch.tensor([[2, 10, 20, 11, 21, 3]]), mask), mask)
    other = neck(encoder(torch.tensor([[2, 11, 20, 10, 21, 3]]), mask), mask)

    assert not torch.allclose(one, other, atol=1e-3)


def test_dropout_belongs_to_training_alone() -> None:
    encoder = TinyTextEncoder(50, 16, dropout=0.5)
    ids, mask = pad(ROWS, 7)

    assert not torch.equal(encoder(ids, mask), encoder(ids, mask))
    encoder.eval()
    assert torch.equal(encoder(ids, mask), encoder(ids, mask))


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match='kernel_size must be odd, got 4'):
        TinyTextEncoder(kernel_size=4)
