"""A run that is killed and resumed ends like one that was not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gckd_mm import fileio
from gckd_mm.checkpoint import find_last_checkpoint, read_checkpoint
from gckd_mm.errors import CheckpointError
from tests.training import (
    in_process,
    kill_at_call,
    last_checkpoint,
    small_config,
    train,
)

# With workers, so that what they have fetched ahead is lost in the kill, too.
OPTIONS = {'train_dataloader__num_workers': 1}


def _run(data: Path, work_dir: Path, options: dict[str, Any], resume: bool) -> None:
    train(small_config(data, work_dir, resume=resume, **options))


def _run_until(
    data: Path, work_dir: Path, options: dict[str, Any], at: int, after: bool
) -> None:
    cfg = small_config(data, work_dir, **options)
    cfg.custom_hooks.append(dict(type='mmengine.KillHook', at=at, after=after))
    train(cfg)


def _run_until_call(
    data: Path, work_dir: Path, options: dict[str, Any], name: str, number: int
) -> None:
    kill_at_call(fileio.os, name, number)
    train(small_config(data, work_dir, **options))


def _assert_same(work_dir: Path, reference: Path) -> None:
    found, expected = (
        read_checkpoint(last_checkpoint(folder)) for folder in (work_dir, reference)
    )
    assert found['meta']['iter'] == expected['meta']['iter'] == 8
    _assert_equal(found['state_dict'], expected['state_dict'])
    _assert_equal(found['optimizer'], expected['optimizer'])


def _assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            _assert_equal(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_equal(one, other)
    else:
        assert found == expected


@pytest.fixture(scope='module')
def uninterrupted(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    assert in_process(_run, miniature, work_dir, OPTIONS, False) == 0
    return work_dir


@pytest.mark.parametrize(
    ('at', 'after'),
    [
        pytest.param(1, False, id='before the first checkpoint'),
        pytest.param(3, False, id='between two checkpoints'),
        pytest.param(5, True, id='after a step, before its checkpoint'),
    ],
)
def test_killed_run_resumes_to_the_same_weights(
    miniature: Path, tmp_path: Path, uninterrupted: Path, at: int, after: bool
) -> None:
    assert in_process(_run_until, miniature, tmp_path, OPTIONS, at, after) == -9
    assert in_process(_run, miniature, tmp_path, OPTIONS, True) == 0
    _assert_same(tmp_path, uninterrupted)


# A checkpoint is written, synchronised, renamed (1st call each), then `last_checkpoint`
# is (2nd): calls 3 and 4 belong to the second checkpoint.
@pytest.mark.parametrize(
    ('name', 'number'),
    [
        pytest.param('replace', 1, id='first checkpoint written, not yet renamed'),
        pytest.param('replace', 3, id='second checkpoint written, not yet renamed'),
        pytest.param('replace', 4, id='second checkpoint there, not yet the last'),
        pytest.param('remove', 1, id='second checkpoint the last, first not deleted'),
    ],
)
def test_run_killed_while_saving_resumes_to_the_same_weights(
    miniature: Path, tmp_path: Path, uninterrupted: Path, name: str, number: int
) -> None:
    assert in_process(_run_until_call, miniature, tmp_path, OPTIONS, name, number) == -9
    for path in tmp_path.glob('*.pth'):
        read_checkpoint(path)  # whole
    assert in_process(_run, miniature, tmp_path, OPTIONS, True) == 0
    _assert_same(tmp_path, uninterrupted)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_8.pth']


def test_accumulated_gradients_resume_to_the_same_weights(
    miniature: Path, tmp_path: Path
) -> None:
    # Steps at 3, 6 and 8 (the end): a checkpoint is due at 4 and written at 6.
    options = {
        'optim_wrapper__accumulative_counts': 3,
        'default_hooks__checkpoint__interval': 4,
    }
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    assert in_process(_run, miniature, whole, options, False) == 0
    assert in_process(_run_until, miniature, cut, options, 7, False) == -9
    assert last_checkpoint(cut).name == 'iter_6.pth'
    assert in_process(_run, miniature, cut, options, True) == 0
    _assert_same(cut, whole)


def test_same_seed_gives_the_same_weights_and_another_seed_others(
    miniature: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    again, other = tmp_path / 'again', tmp_path / 'other'
    # Neither the number of workers nor the work dir may matter.
    assert in_process(_run, miniature, again, {}, False) == 0
    assert in_process(_run, miniature, other, {'randomness__seed': 1}, False) == 0
    _assert_same(again, uninterrupted)
    with pytest.raises(AssertionError):
        _assert_same(other, uninterrupted)


def test_last_checkpoint_is_never_a_partial_file(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_run_until_call, miniature, tmp_path, {}, 'fsync', 1) == -9
    names = sorted(os.listdir(tmp_path))
    assert 'last_checkpoint' not in names
    assert not [name for name in names if name.endswith('.pth')]


def _run_with_val(
    data: Path, work_dir: Path, options: dict[str, Any], kill_at: int | None
) -> None:
    cfg = small_config(data, work_dir, **options)
    loaders = cfg.test_dataloader.cuhk_pedes
    for role in ('gallery', 'query'):
        loaders[role].dataset.split = 'val'
    cfg.val_dataloader = dict(cuhk_pedes=loaders)
    cfg.val_cfg = dict(type='RetrievalValLoop')
    cfg.val_evaluator = dict(type='PersonRetrievalMetric')
    cfg.default_hooks.checkpoint.update(
        save_best='cuhk_pedes/mAP', selection='source_val'
    )
    if kill_at is not None:
        cfg.custom_hooks.append(dict(type='mmengine.KillHook', at=kill_at))
    train(cfg)


def test_a_validation_between_two_optimiser_steps_saves_nothing_to_resume(
    miniature: Path, tmp_path: Path
) -> None:
    # Steps at 3, 6 and 8; validation, which finds a best one, at 2, 4, 6 and 8.
    options = {
        'optim_wrapper__accumulative_counts': 3,
        'default_hooks__checkpoint__interval': 3,
        'train_cfg__val_interval': 2,
    }
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    assert in_process(_run_with_val, miniature, whole, options, None) == 0
    assert in_process(_run_with_val, miniature, cut, options, 4) == -9
    assert last_checkpoint(cut).name == 'iter_3.pth'
    options['resume'] = True
    assert in_process(_run_with_val, miniature, cut, options, None) == 0
    _assert_same(cut, whole)


def test_a_fresh_run_in_an_old_work_dir_forgets_the_old_one(
    miniature: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    options = {'randomness__seed': 7}
    assert in_process(_run, miniature, tmp_path, options, False) == 0
    assert in_process(_run_until, miniature, tmp_path, OPTIONS, 1, False) == -9
    assert find_last_checkpoint(tmp_path) is None
    assert in_process(_run, miniature, tmp_path, OPTIONS, True) == 0
    _assert_same(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ('key', 'value', 'name'),
    [
        ('randomness__seed', 3, 'seed'),
        ('train_dataloader__batch_size', 4, 'global_batch_size'),
    ],
)
def test_a_run_is_not_resumed_as_another(
    miniature: Path, tmp_path: Path, trained: Path, key: str, value: int, name: str
) -> None:
    shutil.copytree(trained, tmp_path / 'work')
    arguments = (miniature, tmp_path / 'work', {key: value}, name)
    assert in_process(_resume_expecting_refusal, *arguments) == 0


def _resume_expecting_refusal(
    data: Path, work_dir: Path, options: dict[str, Any], name: str
) -> None:
    checkpoint = find_last_checkpoint(work_dir)  # of the copy, not of the original
    assert checkpoint is not None
    assert Path(checkpoint).parent == work_dir
    cfg = small_config(data, work_dir, resume=True, load_from=checkpoint, **options)
    # mmengine itself would go on with the old seed for half of the draws.
    with pytest.raises(CheckpointError, match=f'the run to resume had {name}'):
        train(cfg)


def _train_with_ema(data: Path, work_dir: Path) -> None:
    cfg = small_config(data, work_dir, train_cfg__max_iters=2)
    cfg.custom_hooks.append(dict(type='EMAHook'))
    train(cfg)


def test_checkpoints_of_mmengines_ema_hook_have_the_vocabulary(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_train_with_ema, miniature, tmp_path) == 0
    checkpoint = read_checkpoint(last_checkpoint(tmp_path))
    key = 'data_preprocessor.tokenizer._extra_state'
    assert len(checkpoint['state_dict'][key]) > 0
    assert torch.equal(
        checkpoint['state_dict'][key], checkpoint['ema_state_dict'][f'module.{key}']
    )


def _load_compiled(data: Path, work_dir: Path, start: Path) -> None:
    checkpoint = read_checkpoint(start)
    state = {f'_orig_mod.{key}': x for key, x in checkpoint['state_dict'].items()}
    compiled = work_dir.with_name('compiled.pth')
    torch.save({'state_dict': state, 'meta': {}}, compiled)
    options = {'optim_wrapper__optimizer__lr': 0.0, 'train_cfg__max_iters': 1}
    runner = train(small_config(data, work_dir, load_from=str(compiled), **options))
    for name, value in runner.model.named_parameters():
        assert torch.equal(value.cpu(), checkpoint['state_dict'][name]), name


def test_weights_of_a_compiled_model_are_loaded(
    miniature: Path, tmp_path: Path, trained: Path
) -> None:
    arguments = (miniature, tmp_path / 'work', last_checkpoint(trained))
    assert in_process(_load_compiled, *arguments) == 0
