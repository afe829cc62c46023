"""What a config in a checkpoint builds is no larger than the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gckd_mm.checkpoint import (
    built_from,
)
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.registry import MODELS
from gckd_mm.search.apis import PersonSearchInferencer
from tests.training import last_checkpoint

WEIGHTS = {'a': torch.zeros(4, 4)}


def _with_config(trained: Path, path: Path, old: str, new: str) -> Path:
    checkpoint = torch.load(last_checkpoint(trained), weights_only=False)
    source = checkpoint['meta']['cfg']
    assert old in source
    checkpoint['meta']['cfg'] = source.replace(old, new)
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ("type='TinyTextEncoder'", "num_layers=60000, type='TinyTextEncoder'"),
        ('vocab_size=1500', 'vocab_size=65536000'),
        ("type='TinyImageEncoder'", "blocks=(30000, 1, 1), type='TinyImageEncoder'"),
        ("type='ImageProjection'", "nonsense=1, type='ImageProjection'"),
        ("type='TinyImageEncoder'", "groups=0, type='TinyImageEncoder'"),
        ("type='TinyImageEncoder'", "blocks='text', type='TinyImageEncoder'"),
        ("type='WordPieceTokenizer'", "max_length='x', type='WordPieceTokenizer'"),
    ],
)
def test_a_model_that_is_not_of_the_weights_is_not_built(
    trained: Path, tmp_path: Path, old: str, new: str
) -> None:
    path = _with_config(trained, tmp_path / 'it.pth', old, new)
    with pytest.raises(InputError):
        PersonSearchInferencer(path)


def test_the_budget_is_that_of_the_weights() -> None:
    linear = torch.nn.Linear
    with built_from({'state_dict': WEIGHTS}, 'x'):
        linear(100, 100)
    with (
        pytest.raises(CheckpointError, match=r'much larger model .*Linear\.weight'),
        built_from({'state_dict': WEIGHTS}, 'x'),
    ):
        linear(1 << 14, 1 << 14)
    linear(3, 3)  # outside of it nothing is counted


def test_what_breaks_inside_is_told_in_one_line() -> None:
    with (
        pytest.raises(CheckpointError, match=r'^x: its config cannot be used'),
        built_from({'state_dict': WEIGHTS}, 'x'),
    ):
        MODELS.build(dict(type='there is none of this name'))
