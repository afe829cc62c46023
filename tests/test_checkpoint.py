"""Checkpoints are read without running anything, and refused if they do not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_from_local
from torch import nn

from gckd_mm.checkpoint import (
    ENCODERS,
    as_tested,
    check_state_dict,
    config_of,
    load_weights,
    read_checkpoint,
    use_strict_loading,
    with_teacher,
)
from gckd_mm.errors import CheckpointError
from tests.training import in_process, last_checkpoint
from tools import test as test_tool


class _Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


class _AttributePayload:
    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, (HistoryBuffer, '__init__')


def test_reads_a_checkpoint_of_mmengine(trained: Path) -> None:
    checkpoint = read_checkpoint(last_checkpoint(trained))
    assert checkpoint['meta']['iter'] == 4
    assert checkpoint['meta']['selection'] == 'last'
    assert all(
        isinstance(value, torch.Tensor) for value in checkpoint['state_dict'].values()
    )
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history.current() > 0


def test_refuses_pickled_objects_and_executes_nothing(tmp_path: Path) -> None:
    marker, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'payload': _Payload(f'touch {marker}')}, path)
    with pytest.raises(CheckpointError, match=rf'{path}: refused.*\.system') as error:
        read_checkpoint(path)
    assert 'Nothing was executed' in str(error.value)
    assert not marker.exists()


def test_getattr_reaches_nothing_but_the_statistics_of_log_histories(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'evil.pth'
    torch.save({'payload': _AttributePayload()}, path)
    with pytest.raises(CheckpointError, match='getattr'):
        read_checkpoint(path)


def test_does_not_hand_mmengine_a_config_that_it_would_execute(tmp_path: Path) -> None:
    path = tmp_path / 'old.pth'
    torch.save({'meta': {'config': 'import os', 'epoch': 1}}, path)
    assert read_checkpoint(path)['meta'] == {'epoch': 1}


@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
def test_truncated_checkpoint(trained: Path, tmp_path: Path, share: float) -> None:
    data = last_checkpoint(trained).read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=f'{path}: truncated'):
        read_checkpoint(path)


def test_missing_checkpoint_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'nowhere\.pth does not exist'):
        read_checkpoint(tmp_path / 'nowhere.pth')
    text = tmp_path / 'text.pth'
    text.write_text('not a checkpoint')
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        read_checkpoint(text)
    torch.save([1, 2], text)
    with pytest.raises(CheckpointError, match='must hold a dict, got list'):
        read_checkpoint(text)


def _expect_mmengines_loader() -> None:
    assert CheckpointLoader._schemes[''] is load_from_local


def test_importing_the_package_leaves_mmengines_loader_alone() -> None:
    # in a process of its own: tests of the tools change this one's
    assert in_process(_expect_mmengines_loader) == 0


def _load_from_an_address(address: str) -> None:
    use_strict_loading()
    with pytest.raises(CheckpointError, match='only files are read'):
        CheckpointLoader.load_checkpoint(address)


@pytest.mark.parametrize('scheme', ['https', 's3', 'openmmlab', 'torchvision'])
def test_strict_loading_fetches_nothing(scheme: str) -> None:
    assert in_process(_load_from_an_address, f'{scheme}://some/where.pth') == 0


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
        with_teacher({'state_dict': _model().state_dict()}, 'file.pth')


def test_config_of_reads_what_mmengine_wrote() -> None:
    model = dict(a=(1, 2), b=[None, True, -0.5], c='text', d={'1': {'x': 'y'}})
    cfg = Config(dict(model=model, test_cfg=dict(type='gckd_mm.RetrievalTestLoop')))
    found = config_of({'meta': {'cfg': cfg.pretty_text}}, 'file.pth')
    assert found.to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'config',
    [
        "model = dict(type='subprocess.check_call', args=['touch', '{marker}'])",
        "model = dict(type='DualEncoder', heads=dict(a=dict(type='os.system')))",
        "test_dataloader = dict(a=dict(query=[dict(_scope_='antigravity')]))",
        "default_scope = 'antigravity'",
        # It would unpickle what it downloads; so would models that come from a hub.
        "test_dataloader = dict(a=dict(type='BaseDataset', ann_file='http://a/b.pkl'))",
        "model = dict(type='mmpretrain.HuggingFaceClassifier', model_name='a/b')",
    ],
)
def test_the_config_in_a_checkpoint_names_our_components_alone(
    tmp_path: Path, trained: Path, config: str
) -> None:
    marker, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    checkpoint = torch.load(last_checkpoint(trained), weights_only=False)
    checkpoint['meta']['cfg'] += '\n' + config.format(marker=marker)
    torch.save(checkpoint, path)
    with pytest.raises(SystemExit, match='which is no component of') as stop:
        test_tool.main([str(path), '--work-dir', str(tmp_path / 'work')])
    assert 'Nothing was executed' in str(stop.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    'source', ['import os', 'a = open("x")', 'a = dict(b=__import__("os"))', 'a = (']
)
def test_config_of_executes_nothing(source: str) -> None:
    with pytest.raises(CheckpointError, match='its config cannot be read'):
        config_of({'meta': {'cfg': source}}, 'file.pth')
    with pytest.raises(CheckpointError, match='holds no config'):
        config_of({}, 'file.pth')


def test_numpy_scalars_of_message_hubs_load(tmp_path: Path) -> None:
    path = tmp_path / 'numpy.pth'
    torch.save({'value': np.float64(0.5), 'array': np.arange(3)}, path)
    assert read_checkpoint(path)['value'] == 0.5


def test_strict_loading_leaves_shipped_weights_readable(tmp_path: Path) -> None:
    assert in_process(_load_shipped, tmp_path / 'keys.txt') == 0
    assert 'state_dict' in (tmp_path / 'keys.txt').read_text()


def _load_shipped(out: Path) -> None:
    use_strict_loading()
    checkpoint = CheckpointLoader.load_checkpoint('gckd_mm://synthclip_tiny_web', 'cpu')
    out.write_text(' '.join(checkpoint))
