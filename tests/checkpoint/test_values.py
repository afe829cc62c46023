"""NaN and infinity are refused in weights, and allowed where they mean 'none'."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gckd_mm.checkpoint import check_state_dict, load_weights
from gckd_mm.checkpoint.values import check_finite, first_non_finite, is_finite
from gckd_mm.errors import CheckpointError
from gckd_mm.interop import convert
from tests.interop.openai_model import TinyOpenAIClip

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize('dtype', [*FLOATS, torch.float8_e5m2])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_every_non_finite_number_is_found(dtype: torch.dtype, value: float) -> None:
    numbers = torch.ones(1000)
    assert is_finite(numbers.to(dtype))
    numbers[567] = value
    assert not is_finite(numbers.to(dtype))


@pytest.mark.parametrize('dtype', FLOATS)
def test_large_numbers_are_finite(dtype: torch.dtype) -> None:
    assert is_finite(torch.full((1000,), torch.finfo(dtype).max, dtype=dtype))
    assert is_finite(torch.zeros(0, dtype=dtype))
    assert is_finite(torch.arange(3))


def test_two_infinities_do_not_cancel() -> None:
    assert not is_finite(torch.tensor([math.inf, -math.inf, 1.0]))


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image_backbone = nn.BatchNorm1d(2)
        self.head = nn.Linear(2, 2)
        self.register_buffer('none', torch.full((2,), -math.inf))
        self.register_buffer('level', torch.tensor(math.nan))


def _state(**changes: float) -> dict[str, Tensor]:
    state = _Model().state_dict()
    for name, value in changes.items():
        key = name.replace('__', '.')
        state[key] = torch.full_like(state[key], value)
    return state


def test_buffers_may_be_infinite() -> None:
    load_weights(_Model(), _state(), 'x')


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('head.weight', math.nan),
        ('head.bias', math.inf),
        ('image_backbone.weight', -math.inf),
        ('image_backbone.running_mean', math.nan),
        ('image_backbone.running_var', math.inf),
    ],
)
@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.'])
def test_the_first_bad_weight_is_named(name: str, value: float, prefix: str) -> None:
    state = _state(**{name.replace('.', '__'): value})
    state = {prefix + key: v for key, v in state.items()}
    with pytest.raises(CheckpointError, match=rf'^x: {name} holds NaN or infinite'):
        load_weights(_Model(), state, 'x')
    with pytest.raises(CheckpointError, match=rf'^x: {name} holds'):
        check_state_dict(_Model(), state, 'x', partial=True)


def test_without_the_model_only_known_buffers_may_be_infinite() -> None:
    state = {'memory.similarity': torch.full((2,), -math.inf), 'a': torch.ones(1)}
    assert first_non_finite(state) is None
    state['b'] = torch.tensor(math.inf)
    assert first_non_finite(state) == 'b'
    model = nn.Module()
    for name in ('a', 'b'):
        model.register_buffer(name, state[name])
    assert first_non_finite(model.state_dict(), model) is None
    with pytest.raises(CheckpointError, match='x: b holds'):
        check_finite({**state, 'b': torch.tensor(math.nan)}, 'x')


def test_a_conversion_refuses_them() -> None:
    state = TinyOpenAIClip().state_dict()
    state['visual.proj'][0, 0] = math.nan
    with pytest.raises(CheckpointError, match=r'image_neck\.projection\.weight holds'):
        convert(state, 'openai-clip', 'x.pt')


def test_another_kind_of_numbers_is_another_architecture(tmp_path: Path) -> None:
    state = _state()
    state['head.weight'] = state['head.weight'].long()
    with pytest.raises(CheckpointError, match='another architecture'):
        load_weights(_Model(), state, 'x')
