"""What is wrong with a config is known before any data is read."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config

from gckd_mm.engine.config_checks import (
    check_test,
    check_training,
    check_training_data,
)
from gckd_mm.engine.config_numbers import kind_of
from gckd_mm.errors import InputError
from tests.training import ROOT, small_config, small_gckd_config

NOWHERE = Path('nowhere')


def error_of(**overrides: Any) -> str:
    cfg = small_config(NOWHERE, NOWHERE, **overrides)
    with pytest.raises(InputError) as error:
        check_training(cfg, 'config.py')
    assert '\n' not in str(error.value)
    return str(error.value)


def test_every_config_that_is_shipped_passes() -> None:
    for path in sorted((ROOT / 'configs').glob('**/*.py')):
        if '_base_' not in path.parts:
            check_training(Config.fromfile(path), path.name)
            check_test(Config.fromfile(path))
    check_training(small_config(NOWHERE, NOWHERE), 'config.py')
    check_training(small_gckd_config(NOWHERE, NOWHERE), 'config.py')


@pytest.mark.parametrize('key', ['model', 'train_dataloader', 'optim_wrapper'])
@pytest.mark.parametrize('value', [None, 'abc', ['a']])
def test_what_a_training_needs(key: str, value: object) -> None:
    cfg = small_config(NOWHERE, NOWHERE)
    cfg[key] = value
    with pytest.raises(InputError, match=f'config x.py: {key} must be dict'):
        check_training(cfg, 'x.py')


def test_a_key_that_is_misspelt_in_the_file() -> None:
    cfg = Config({'modle': {}, 'train_cfg': {}})
    with pytest.raises(InputError, match=r"model must be .*: is it called 'modle'"):
        check_training(cfg, 'x.py')


@pytest.mark.parametrize('value', [0, -3, 1.5, '64', True])
@pytest.mark.parametrize(
    'key',
    [
        'train_cfg__max_iters',
        'train_cfg__val_interval',
        'train_dataloader__batch_size',
        'test_dataloader__rstpreid__query__batch_size',
    ],
)
def test_a_number_that_is_no_count(key: str, value: object) -> None:
    expected = f'{key.replace("__", ".")} must be a whole number of at least 1, got'
    assert error_of(**{key: value}).startswith(expected)


def test_numbers_of_workers() -> None:
    assert 'num_workers must be' in error_of(train_dataloader__num_workers=-1)
    assert 'num_workers must be' in error_of(train_dataloader__num_workers='two')


@pytest.mark.parametrize('lr', ['1e-3', -1.0, float('nan'), float('inf'), True])
def test_a_learning_rate_that_is_none(lr: object) -> None:
    assert error_of(optim_wrapper__optimizer__lr=lr).startswith(
        'optim_wrapper.optimizer.lr must be a number'
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper'])
def test_mixed_precision_without_a_gpu(kind: str) -> None:
    message = error_of(optim_wrapper__type=kind)
    assert 'needs a GPU' in message
    assert "optim_wrapper.type='OptimWrapper'" in message


@pytest.mark.parametrize(
    ('kind', 'advice'),
    [
        ('TensorboardVisBackend', "pip install 'gckd-mm[tensorboard]'"),
        ('WandbVisBackend', 'pip install wandb'),
        ('ClearMLVisBackend', 'pip install clearml'),
        ('MLflowVisBackend', 'pip install mlflow'),
        ('mmengine.AimVisBackend', 'pip install aim'),
    ],
)
def test_a_backend_without_its_package(
    kind: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    backends = [dict(type='LocalVisBackend'), dict(type=kind)]
    assert advice in error_of(visualizer__vis_backends=backends)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    cfg = small_config(NOWHERE, NOWHERE, visualizer__vis_backends=backends)
    check_training(cfg, 'config.py')


def test_a_stock_hook_with_options_of_ours() -> None:
    stock = {'default_hooks__checkpoint__type': 'CheckpointHook'}
    message = error_of(**stock, default_hooks__checkpoint__selection='last')
    assert "CheckpointHook has no 'selection'" in message
    assert 'AtomicCheckpointHook' in message
    message = error_of(**stock, default_hooks__checkpoint__intervall=3)
    assert 'CheckpointHook has no' in message


def test_a_stock_hook_that_would_never_save() -> None:
    stock = {'default_hooks__checkpoint__type': 'CheckpointHook'}
    assert 'it would save nothing' in error_of(**stock)
    hooks = {**stock, 'default_hooks__checkpoint__by_epoch': False}
    check_training(small_config(NOWHERE, NOWHERE, **hooks), 'config.py')


@pytest.mark.parametrize('stage', ['val', 'test'])
@pytest.mark.parametrize('metric', ['PersonRetrievalMetric', 'gckd_mm.Person…'])
def test_a_loop_over_one_loader(stage: str, metric: str) -> None:
    metric = metric.replace('Person…', 'PersonRetrievalMetric')
    kind = f'{stage.capitalize()}Loop'
    message = error_of(
        **{f'{stage}_cfg': dict(type=kind), f'{stage}_evaluator': [dict(type=metric)]}
    )
    assert f"{stage}_cfg=dict(type='Retrieval{kind}')" in message


def test_names_that_nothing_has() -> None:
    message = error_of(optim_wrapper__optimizer__type='AdmW')
    assert message.endswith("did you mean 'AdamW'?")
    message = error_of(train_dataloader__collate_fn__type='collate_person_txt')
    assert 'train_dataloader.collate_fn: collate_person_txt is not in' in message
    assert 'log_level must be one of' in error_of(log_level='LOUD')
    assert 'without a head' in error_of(model__heads=None)


@pytest.mark.parametrize('seed', ['a', -1, 1.5, False])
def test_a_seed_that_is_none(seed: object) -> None:
    assert error_of(randomness__seed=seed).startswith('randomness.seed must be')


def test_a_start_that_is_no_file() -> None:
    assert 'must be a local path' in error_of(load_from='s3://bucket/a.pth')


def test_a_batch_larger_than_the_dataset(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger('config_checks')
    for size, warned in ((4, False), (5, False), (6, True)):
        loader = SimpleNamespace(batch_size=size, dataset=range(5))
        runner = SimpleNamespace(
            train_loop=SimpleNamespace(dataloader=loader), world_size=1, logger=logger
        )
        caplog.clear()
        check_training_data(runner)  # type: ignore[arg-type]
        assert ('larger than the dataset of 5' in caplog.text) == warned


@pytest.mark.parametrize('view', ['images', 'captions'])
def test_training_data_that_are_no_pairs(view: str) -> None:
    one = SimpleNamespace(view=view)
    for dataset in (one, SimpleNamespace(datasets=[one])):
        loader = SimpleNamespace(batch_size=2, dataset=dataset)
        runner = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader))
        with pytest.raises(InputError, match=f"needs view='pairs', got '{view}'"):
            check_training_data(runner)  # type: ignore[arg-type]


@pytest.mark.parametrize('part', ['dataset', 'sampler'])
def test_a_part_of_a_loader_that_is_no_dict(part: str) -> None:
    message = error_of(**{f'train_dataloader__{part}': 'data/cuhk_pedes'})
    assert message.startswith(f'train_dataloader.{part} must be dict')


def test_no_checkpoint_hook_means_one_that_never_saves() -> None:
    cfg = small_config(NOWHERE, NOWHERE)
    del cfg.default_hooks['checkpoint']
    with pytest.raises(InputError, match='it would save nothing'):
        check_training(cfg, 'config.py')


def test_what_is_no_component_is_left_to_what_reads_it() -> None:
    assert kind_of('abc') == ''
    assert kind_of({'type': dict}) == 'dict'


def test_two_stages_have_no_epochs_to_save_at() -> None:
    cfg = small_gckd_config(NOWHERE, NOWHERE)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook')
    with pytest.raises(InputError, match='of which TwoStageTrainLoop has none'):
        check_training(cfg, 'config.py')
    cfg.default_hooks.checkpoint.by_epoch = False
    check_training(cfg, 'config.py')


@pytest.mark.parametrize('start', [['a.pth'], 3, True])
def test_a_start_that_is_no_path(start: object) -> None:
    assert error_of(load_from=start).startswith('load_from must be the path of')
