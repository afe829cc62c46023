"""A run is resumed from its own state, whole and unchanged, or not at all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper
from torch import nn

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.checkpoint.resume import check_resumable, check_run_state
from gckd_mm.checkpoint.safetensors_files import safetensors_bytes
from gckd_mm.errors import CheckpointError
from tests.training import in_process, last_checkpoint, small_config
from tools import train as train_tool


@pytest.fixture(scope='module')
def run(trained: Path) -> dict[str, Any]:
    return read_checkpoint(last_checkpoint(trained))


@pytest.fixture
def changed(run: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(run)


def test_a_checkpoint_of_a_run_is_accepted(run: dict[str, Any]) -> None:
    check_resumable(run, 'it.pth')


@pytest.mark.parametrize('part', ['state_dict', 'optimizer', 'message_hub', 'meta'])
def test_weights_alone_say_what_to_use(changed: dict[str, Any], part: str) -> None:
    del changed[part]
    with pytest.raises(CheckpointError, match=r"^it\.pth: cannot.*load_from='it\.pth'"):
        check_resumable(changed, 'it.pth')


def _hub(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda run: run['message_hub'].__setitem__(name, value)


def _info(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda run: run['message_hub']['runtime_info'].__setitem__(name, value)


def _spoilt_history() -> HistoryBuffer:
    history = HistoryBuffer([1.0], [1])
    history._log_history = 'text'
    return history


@pytest.mark.parametrize(
    'change',
    [
        lambda run: run['meta'].__setitem__('iter', None),
        lambda run: run['meta'].__setitem__('iter', True),
        lambda run: run['meta'].__setitem__('iter', -1),
        lambda run: run['meta'].__setitem__('iter', 10**15),
        lambda run: run['meta'].__setitem__('seed', 1 << 40),
        _hub('log_scalars', []),
        _hub('runtime_info', None),
        _hub('resumed_keys', {1: 2}),
        _hub('log_scalars', {'loss': _spoilt_history()}),
        _info('keep_ckpt_ids', ['../../x']),
        _info('outdated_ckpt_ids', ['../../x']),
        _info('outdated_ckpt_ids', 7),
        _info('iter', 10**15),
        _info('iter', True),
        _info('best_ckpt', '/etc/passwd'),
        _info('last_ckpt', 3),
        _info('iter', 'x'),
        lambda run: run.__setitem__('optimizer', {}),
        lambda run: run['optimizer'].__setitem__('state', []),
        lambda run: run['optimizer'].__setitem__('param_groups', {}),
    ],
)
def test_a_damaged_run_is_refused(
    changed: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    change(changed)
    with pytest.raises(CheckpointError, match=r'^it\.pth: cannot be resumed'):
        check_resumable(changed, 'it.pth')


def _stepped() -> tuple[OptimWrapper, list[Any], dict[str, Any]]:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 2)]
    state = {
        'optimizer': copy.deepcopy(optimizer.state_dict()),
        'param_schedulers': [copy.deepcopy(one.state_dict()) for one in schedulers],
    }
    return OptimWrapper(optimizer), schedulers, state


def test_the_state_of_the_same_optimiser_is_accepted() -> None:
    wrapper, schedulers, state = _stepped()
    check_run_state(state, wrapper, schedulers, 'x')


def _group(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state['optimizer']['param_groups'][0].__setitem__(name, value)


def _moment(value: Any, name: str = 'exp_avg') -> Callable[[dict[str, Any]], None]:
    return lambda state: state['optimizer']['state'][0].__setitem__(name, value)


def _schedule(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state['param_schedulers'][0].__setitem__(name, value)


@pytest.mark.parametrize(
    'change',
    [
        _group('params', [0]),
        _group('params', [0, 0]),
        _group('params', None),
        _group('params', ['a', 'b']),
        _group('lr', 'fast'),
        _group('betas', (0.9,)),
        _group('betas', 0.9),
        _group('amsgrad', 'yes'),
        lambda state: state['optimizer']['param_groups'][0].pop('betas'),
        lambda state: state['optimizer'].__setitem__('param_groups', []),
        lambda state: state['optimizer'].__setitem__('param_groups', [3]),
        lambda state: state['optimizer']['state'].__setitem__(0, 3),
        lambda state: state['optimizer']['state'].__setitem__('x', {}),
        _moment(torch.zeros(5, 5)),
        _moment(torch.full((2, 3), math.nan)),
        _moment(torch.full((2, 3), math.inf)),
        _moment(torch.zeros(2, 3, dtype=torch.int64)),
        _moment(torch.zeros(())),
        _moment(0.0),
        _moment(None),
        _moment('text'),
        _moment(-1, 'step'),
        _moment(torch.tensor(-1.0), 'step'),
        _moment(torch.tensor(math.nan), 'step'),
        _moment(torch.tensor(True), 'step'),
        _moment(torch.zeros(2, 3), 'step'),
        _moment(None, 'step'),
        lambda state: state['optimizer']['state'][0].pop('exp_avg'),
        lambda state: [
            each.pop('step') for each in state['optimizer']['state'].values()
        ],
        _group('lr', -0.1),
        _group('lr', math.nan),
        _group('weight_decay', math.inf),
        _group('betas', (math.nan, 0.9)),
        _schedule('step', 3),
        _schedule('last_epoch', 'x'),
        _schedule('base_lrs', [1, 2, 3]),
        _schedule('base_lrs', [math.nan]),
        _schedule('gamma', math.inf),
        lambda state: state.pop('param_schedulers'),
        lambda state: state['param_schedulers'].append({}),
        lambda state: state['param_schedulers'].__setitem__(0, None),
    ],
)
def test_the_state_of_another_run_is_refused(
    change: Callable[[dict[str, Any]], None],
) -> None:
    wrapper, schedulers, state = _stepped()
    change(state)
    with pytest.raises(CheckpointError, match=r'^x: cannot be resumed'):
        check_run_state(state, wrapper, schedulers, 'x')


def _resume(out: Path, config: str, checkpoint: str) -> None:
    try:
        train_tool.main([config, '--resume', checkpoint])
    except SystemExit as stop:
        out.write_text(str(stop.code))


def test_the_tool_says_so(miniature: Path, trained: Path, tmp_path: Path) -> None:
    config, out = tmp_path / 'config.py', tmp_path / 'error.txt'
    small_config(miniature, tmp_path / 'work').dump(config)
    whole = torch.load(last_checkpoint(trained), weights_only=False)
    bare, other = tmp_path / 'bare.pth', tmp_path / 'other.pth'
    safe = tmp_path / 'weights.safetensors'
    torch.save(whole['state_dict'], bare)
    safe.write_bytes(safetensors_bytes(whole['state_dict'], {'iter': 4}))
    whole['optimizer']['param_groups'][0]['params'].pop()
    torch.save(whole, other)

    for path, message in (
        (bare, 'load_from='),
        (safe, 'load_from='),
        (other, 'use the config that it was trained with'),
    ):
        assert in_process(_resume, out, str(config), str(path)) == 0
        assert message in out.read_text()
        assert str(path) in out.read_text()
