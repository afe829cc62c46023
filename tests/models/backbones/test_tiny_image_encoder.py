"""The small image encoder: shapes, size, and no look at the rest of the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from gckd_mm.models import TinyImageEncoder
from gckd_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize('size', [(64, 32), (96, 48)])
@pytest.mark.parametrize(
    ('channels', 'blocks'), [((32, 64, 128), (1, 2, 2)), ((8, 24), (2, 1))]
)
def test_each_stage_halves_the_picture(size, channels, blocks) -> None:
    encoder = TinyImageEncoder(channels, blocks)

    (features,) = encoder(torch.randn(2, 3, *size))

    assert features.shape == (2, channels[-1], *(s >> len(channels) for s in size))
    assert encoder.out_channels == channels[-1]


@pytest.mark.parametrize('training', [True, False])
def test_an_image_does_not_see_its_batch(training: bool) -> None:
    encoder = TinyImageEncoder().train(training)
    images = torch.randn(5, 3, 64, 32)
    images[0] *= 100  # would swamp the statistics of a batch

    (together,) = encoder(images)

    for number in range(5):
        (alone,) = encoder(images[number : number + 1])
        # The convolutions of a larger batch may add up in another order.
        torch.testing.assert_close(alone[0], together[number], rtol=1e-4, atol=1e-4)


def test_every_weight_gets_a_gradient() -> None:
    encoder = TinyImageEncoder()

    encoder(torch.randn(4, 3, 64, 32))[0].square().mean().backward()

    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_a_block_passes_its_input_on() -> None:
    # With the last normalisation of each branch at zero only the shortcuts are left.
    encoder = TinyImageEncoder(channels=(8,), blocks=(3,))
    stem, blocks = encoder.layers[:3], encoder.layers[3:]
    for block in blocks:
        torch.nn.init.zeros_(block.body[-1].weight)
        torch.nn.init.zeros_(block.body[-1].bias)
    images = torch.randn(2, 3, 16, 8)

    torch.testing.assert_close(encoder(images)[0], stem(images))


def test_channels_and_blocks_must_agree() -> None:
    with pytest.raises(ValueError, match='one entry a stage'):
        TinyImageEncoder(channels=(32, 64), blocks=(1, 1, 1))


def test_the_tiny_model_is_tiny() -> None:
    config = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        model = MODELS.build(config.model)

    weights = sum(weight.numel() for weight in model.parameters())
    vocabulary = model.text_backbone.embedding.weight.numel()
    assert weights <= 700_000
    assert vocabulary == 1500 * 128
