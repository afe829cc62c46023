"""The teacher follows the student, and nothing else moves it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gckd_mm.errors import InputError
from gckd_mm.models.teacher import MomentumTeacher


class Vocabulary(nn.Module):
    """Extra state, and a buffer that no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.words = ['a']
        self.register_buffer('scale', torch.ones(2), persistent=False)

    def get_extra_state(self) -> Any:
        return list(self.words)

    def set_extra_state(self, state: Any) -> None:
        self.words = list(state)


def student(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            'image': nn.Sequential(
                nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(), nn.Linear(7, 3)
            ),
            'text': Vocabulary(),
        }
    ).to(dtype)


def change(model: nn.ModuleDict) -> None:
    """Move weights, running statistics, integer and other buffers, and extra state."""
    model.train()
    model['image'](torch.randn(8, 5, dtype=model['image'][0].weight.dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model['text'].scale.add_(1)
    model['text'].words.append('b')


def clones(tensors: Any) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


def assert_same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_it_is_the_average_of_a_naive_loop() -> None:
    model = student(torch.float64)
    teacher = MomentumTeacher(model)
    expected = clones(model.parameters())

    # From the first update on, and with a momentum of its own in each.
    for momentum in (0.9, 0.3, 0.99, 0.5):
        change(model)
        teacher.update(model, momentum)
        for mean, parameter in zip(expected, clones(model.parameters()), strict=True):
            for index in range(mean.numel()):
                mean.view(-1)[index] = (
                    momentum * mean.view(-1)[index]
                    + (1 - momentum) * parameter.view(-1)[index]
                )
        for found, mean in zip(teacher.module.parameters(), expected, strict=True):
            torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_momentum_0_copies_and_1_never_moves(dtype: torch.dtype) -> None:
    model = student(dtype)
    teacher = MomentumTeacher(model)
    before = clones(teacher.module.parameters())
    change(model)

    teacher.update(model, 1.0)
    assert_same(teacher.module.parameters(), before)

    teacher.update(model, 0.0)
    assert_same(teacher.module.parameters(), model.parameters())


@pytest.mark.parametrize('momentum', [-0.01, 1.01, float('nan')])
def test_a_momentum_that_is_no_share_is_refused(momentum: float) -> None:
    model = student()
    with pytest.raises(InputError, match=r'teacher_momentum must be in \[0, 1\]'):
        MomentumTeacher(model).update(model, momentum)


def test_buffers_are_the_students_after_each_update() -> None:
    model = student()
    teacher = MomentumTeacher(model)

    for calls in (1, 2):
        change(model)
        teacher.update(model, 0.99)
        assert_same(teacher.module.buffers(), model.buffers())
        assert teacher.module['image'][1].num_batches_tracked == calls


def test_synchronising_copies_all_there_is() -> None:
    model = student()
    teacher = MomentumTeacher(model)
    teacher.update(model, 0.5)
    change(model)

    teacher.synchronise(model)

    assert_same(teacher.module.parameters(), model.parameters())
    assert_same(teacher.module.buffers(), model.buffers())
    assert teacher.module['text'].words == ['a', 'b']
    assert teacher.steps == 0
    # A copy, and not the student itself.
    copied = clones(teacher.module.state_dict()['image.0.weight'])
    change(model)
    assert_same(teacher.module.state_dict()['image.0.weight'], copied)
    assert teacher.module['text'].words == ['a', 'b']


def test_no_gradient_reaches_it_and_none_leaves_it() -> None:
    model = student()
    teacher = MomentumTeacher(model)
    features = torch.randn(4, 5)

    targets = teacher.module['image'](features)
    (model['image'](features) - targets).square().mean().backward()
    teacher.synchronise(model)
    teacher.update(model, 0.5)

    assert not targets.requires_grad
    for parameter in teacher.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert parameter.is_leaf
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_it_stays_in_eval_mode() -> None:
    model = student().train()
    parent = nn.ModuleDict({'teacher': MomentumTeacher(model), 'student': model})
    features = torch.randn(4, 5)
    teacher = parent['teacher']
    assert not any(module.training for module in teacher.modules())

    parent.train()

    assert model['image'][2].training
    assert not any(module.training for module in teacher.modules())
    # Without dropout, the same in gives the same out.
    encode = teacher.module['image']
    assert torch.equal(encode(features), encode(features))


def test_a_view_of_the_students_parts_is_enough() -> None:
    whole = nn.ModuleDict({'encoders': student(), 'memory': nn.Linear(2, 2)})
    teacher = MomentumTeacher(nn.ModuleDict({'a': whole['encoders']['image']}))
    change(whole['encoders'])

    teacher.update(nn.ModuleDict({'a': whole['encoders']['image']}), 0.0)

    assert_same(
        teacher.module['a'].parameters(), whole['encoders']['image'].parameters()
    )


def test_its_state_dict_continues_where_it_was() -> None:
    model = student()
    teacher = MomentumTeacher(model)
    change(model)
    teacher.update(model, 0.7)
    resumed = MomentumTeacher(student())

    resumed.load_state_dict(teacher.state_dict())
    change(model)
    for one in (teacher, resumed):
        one.update(model, 0.7)

    assert_same(resumed.module.parameters(), teacher.module.parameters())
    assert_same(resumed.module.buffers(), teacher.module.buffers())
    assert resumed.steps == teacher.steps == 2
