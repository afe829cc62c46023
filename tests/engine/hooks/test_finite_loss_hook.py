"""A training that has diverged stops, and says what is left of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook, LoggerHook
from mmengine.runner import get_priority

from gckd_mm.engine.hooks import (
    AdaptationHook,
    AtomicCheckpointHook,
    FiniteLossHook,
    TargetProbeHook,
)
from gckd_mm.errors import DivergedError, InputError

INF, NAN = float('inf'), float('nan')


def check(work_dir: Path, iteration: int = 41, **outputs: float) -> None:
    model = torch.nn.Linear(1, 1)
    runner = SimpleNamespace(work_dir=str(work_dir), iter=iteration, model=model)
    values = {name: torch.tensor(value) for name, value in outputs.items()}
    FiniteLossHook().after_train_iter(runner, iteration, outputs=values)


def save(work_dir: Path, number: int, value: float) -> Path:
    path = work_dir / f'iter_{number}.pth'
    state_dict = {'weight': torch.tensor([1.0, value]), 'steps': torch.tensor(3)}
    torch.save({'state_dict': {**state_dict, 'words': ['a']}}, path)
    (work_dir / 'last_checkpoint').write_text(str(path))
    return path


def test_finite_losses_pass(tmp_path: Path) -> None:
    check(tmp_path, loss=1e30, loss_sdm=0.0)


def test_what_is_no_loss_may_be_anything(tmp_path: Path) -> None:
    check(tmp_path, loss=1.0, gate_rate=NAN)


@pytest.mark.parametrize('value', [INF, -INF, NAN])
def test_the_terms_and_the_iteration_are_named(tmp_path: Path, value: float) -> None:
    with pytest.raises(DivergedError) as error:
        check(tmp_path, loss=value, loss_sdm=2.0, loss_target=value, entropy=NAN)

    message = str(error.value)
    assert f'iteration 42: loss is {value}, loss_target is {value}:' in message
    assert 'loss_sdm' not in message
    assert 'entropy' not in message
    assert 'Last good checkpoint: none yet' in message


def test_the_last_good_checkpoint_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, 40, 2.0)

    with pytest.raises(DivergedError, match=f'Last good checkpoint: {path}'):
        check(tmp_path, loss=NAN)


@pytest.mark.parametrize('value', [INF, NAN])
def test_a_checkpoint_with_spoilt_weights_is_not_called_good(
    tmp_path: Path, value: float
) -> None:
    path = save(tmp_path, 40, value)

    with pytest.raises(DivergedError, match=f'none; {path} has weights that are not'):
        check(tmp_path, loss=NAN)


def test_one_synchronisation_an_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ('item', 'tolist', '__bool__', '__float__'):
        original = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, original: object = original) -> object:
            calls.append(tensor)
            return original(tensor)

        monkeypatch.setattr(torch.Tensor, name, counted)

    check(tmp_path, loss=1.0, loss_a=2.0, loss_b=3.0)

    assert len(calls) == 1


@pytest.mark.parametrize(
    'later',
    [
        AdaptationHook,
        CheckpointHook,
        AtomicCheckpointHook,
        TargetProbeHook,
        LoggerHook,
    ],
)
def test_it_looks_before_anything_is_saved_or_shown(later: type[Hook]) -> None:
    assert get_priority(FiniteLossHook.priority) < get_priority(later.priority)


def test_the_tools_print_it_without_a_traceback() -> None:
    assert issubclass(DivergedError, InputError)
