"""Names of weights, without what wrappers put before them."""

from __future__ import annotations

import pytest
import torch

from gckd_mm.errors import CheckpointError
from gckd_mm.model_wrapper import bare_name, without_wrapper


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('a.b', 'a.b'),
        ('module.a.b', 'a.b'),
        ('_orig_mod.a.b', 'a.b'),
        ('module._orig_mod.a.b', 'a.b'),
        ('_orig_mod.module.a.b', 'a.b'),
        ('a._orig_mod.b', 'a.b'),
        ('teacher.module.a', 'teacher.module.a'),
    ],
)
def test_wrappers_are_left_out(key: str, name: str) -> None:
    assert bare_name(key) == name
    assert list(without_wrapper({key: 1})) == [name]


def test_a_mixture_of_two_checkpoints_is_refused() -> None:
    weight = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r'^a\.b is there twice'):
        without_wrapper({'a.b': weight, 'c': weight, 'module.a.b': weight})
