"""Weights are loaded into a model that they fit, and no other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gckd_mm.checkpoint import (
    check_state_dict,
    load_weights,
)
from gckd_mm.errors import CheckpointError


def _model(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


def test_another_architecture_is_refused_with_a_list() -> None:
    state_dict = _model(4).state_dict()
    del state_dict['1.bias']
    state_dict['extra'] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        check_state_dict(_model(3), state_dict, 'file.pth')
    message = str(error.value)
    assert 'missing: 1.bias' in message
    assert 'unexpected: extra' in message
    assert '0.weight ((4, 2) in the file, (3, 2) in the model)' in message


def test_partial_weights_may_lack_keys_but_not_differ_in_shape() -> None:
    partial = {'0.weight': torch.zeros(3, 2)}
    check_state_dict(_model(), partial, 'file.pth', partial=True)
    with pytest.raises(CheckpointError):
        check_state_dict(_model(), partial, 'file.pth')
    with pytest.raises(CheckpointError):
        check_state_dict(_model(4), partial, 'file.pth', partial=True)
    with pytest.raises(CheckpointError):
        check_state_dict(_model(), {'other': torch.zeros(1)}, 'file.pth', partial=True)


def test_load_weights_strips_the_prefix_of_distributed_training() -> None:
    source, target = _model(), _model()
    prefixed = {f'module.{key}': value for key, value in source.state_dict().items()}
    load_weights(target, {'state_dict': prefixed}, 'file.pth')
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
