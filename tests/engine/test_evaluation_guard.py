"""What is evaluated in the middle of a training leaves no trace in it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from gckd_mm.engine.evaluation_guard import evaluating


def _numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002


def _seed() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


def test_modes_and_random_generators_are_given_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    model.train()
    model[2].eval()  # a frozen part stays in evaluation mode
    inside = []
    for _ in range(2):
        _seed()
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            inside.append(_numbers())
        after = _numbers()
        assert [module.training for module in model] == [True, True, False]
    assert inside[0] == inside[1]
    _seed()
    assert after == _numbers()


def test_an_error_gives_them_back_too() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match='stop'), evaluating(model):
        raise ValueError('stop')
    assert model.training
