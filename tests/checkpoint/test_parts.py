"""The parts of a checkpoint that are tested, searched with, and only trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gckd_mm.checkpoint import (
    ENCODERS,
    as_tested,
    with_teacher,
)
from gckd_mm.errors import CheckpointError
from gckd_mm.registry import MODELS


def _adapted(steps: int = 1) -> dict[str, Any]:
    names = ('image_neck.weight', 'text_neck.weight', 'heads.itm.weight')
    state_dict = {name: torch.zeros(2) for name in names}
    state_dict |= {
        'teacher.module.image_neck.weight': torch.ones(2),
        'teacher.module.text_neck.weight': torch.full((2,), 2.0),
        'teacher.module.graph_neck.weight': torch.full((2,), 3.0),
        'teacher.steps': torch.tensor(steps),
    }
    return {'state_dict': state_dict, 'meta': {'iter': 8}}


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_the_teacher_takes_the_place_of_the_student(prefix: str) -> None:
    checkpoint = _adapted()
    plain = checkpoint['state_dict']
    before = {name: value.clone() for name, value in plain.items()}
    checkpoint['state_dict'] = {prefix + name: v for name, v in plain.items()}

    found = with_teacher(checkpoint, 'file.pth')

    assert found['meta'] == checkpoint['meta']
    # What only the student has stays, and so does what only the teacher has.
    assert found['state_dict'].keys() == plain.keys()
    for name, value in found['state_dict'].items():
        own = name in ('image_neck.weight', 'text_neck.weight')
        expected = before[f'teacher.module.{name}'] if own else before[name]
        assert torch.equal(value, expected), name
    for name, value in before.items():
        assert torch.equal(checkpoint['state_dict'][prefix + name], value), name


def test_a_test_looks_at_the_encoders_alone() -> None:
    model = {name: {'type': name} for name in ENCODERS}
    checkpoint = _adapted()
    given = {'type': 'gckd_mm.GCKD', 'memory_size': 3, 'heads': {}, **model}
    config, found = as_tested(given, checkpoint)

    assert config == {'type': 'gckd_mm.DualEncoder', **model}  # in any scope
    assert found['state_dict'].keys() == {'image_neck.weight', 'text_neck.weight'}
    assert found['meta'] == checkpoint['meta']
    other = {'type': 'MyRetriever', **model}
    assert as_tested(other, checkpoint) == (other, checkpoint)


def test_a_teacher_that_does_not_teach_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r'file\.pth: its teacher has not begun'):
        with_teacher(_adapted(steps=0), 'file.pth')
    with pytest.raises(CheckpointError, match=r'file\.pth: holds no teacher'):
        with_teacher({'state_dict': nn.Linear(2, 3).state_dict()}, 'file.pth')


def test_every_model_that_adapts_is_tested_by_its_encoders() -> None:
    MODELS.import_from_location()
    adapting = [
        name for name, kind in MODELS.module_dict.items() if hasattr(kind, 'set_stages')
    ]
    assert 'GCKD' in adapting
    for name in adapting:
        model = {'type': name, **dict.fromkeys(ENCODERS)}
        found, _ = as_tested(model, {'state_dict': {}})
        assert found['type'] == 'gckd_mm.DualEncoder', name
