"""What is wrong with a config, said before any data is read."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.registry import FUNCTIONS, OPTIMIZERS, Registry
from mmengine.runner import Runner

from gckd_mm.config_parts import kind_of
from gckd_mm.engine.config_keys import check_keys
from gckd_mm.engine.config_numbers import (
    check_loaders,
    check_numbers,
    is_count,
    loaders_of,
)
from gckd_mm.engine.error_messages import (
    check_options_of_saving,
    keys_of,
    nearest,
    registered_names,
)
from gckd_mm.engine.launch import refuse_address
from gckd_mm.errors import InputError

_REQUIRED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
#: visualisation backend -> (modules of which it needs one, how to get it)
_BACKENDS = {
    'AimVisBackend': (('aim',), 'aim'),
    'ClearMLVisBackend': (('clearml',), 'clearml'),
    'DVCLiveVisBackend': (('dvclive',), 'dvclive pygit2'),
    'MLflowVisBackend': (('mlflow',), 'mlflow'),
    'NeptuneVisBackend': (('neptune',), 'neptune'),
    'TensorboardVisBackend': (
        ('tensorboard', 'tensorboardX'),
        "'gckd-mm[tensorboard]'",
    ),
    'WandbVisBackend': (('wandb',), 'wandb'),
}
_METRIC = 'PersonRetrievalMetric'
#: loops that have no epochs
_ITER_LOOPS = ('IterBasedTrainLoop', 'TwoStageTrainLoop')
#: how alike a misspelt key is to the one that was meant, of 1
_MISSPELT = 0.85


def check_training(cfg: Config, name: str) -> None:
    """Check what a training needs."""
    for key in _REQUIRED:
        if not isinstance(cfg.get(key), dict):
            hint = nearest(key, cfg.keys() - set(_REQUIRED))
            raise InputError(
                f'config {name}: {key} must be dict(…), got {cfg.get(key)!r}'
                f'{hint.replace("did you mean", "is it called")}'
            )
    _warn_of_misspelt_keys(cfg, name)
    _check_precision(cfg.optim_wrapper)
    _check_backends(cfg)
    _check_loop(cfg, 'val')
    _check_loop(cfg, 'test')
    hooks = cfg.get('default_hooks') or {}
    if not isinstance(hooks, dict):
        raise InputError(
            f'config {name}: default_hooks must be dict(NAME=dict(type=…)), got '
            f'{type(hooks).__name__}; further hooks belong into custom_hooks=[…]'
        )
    check_keys(cfg, name)
    _check_checkpoints(cfg)
    check_numbers(cfg)
    _check_names(cfg)
    start = cfg.get('load_from')
    if start is not None and not isinstance(start, str | os.PathLike):
        raise InputError(f'load_from must be the path of a checkpoint, got {start!r}')
    refuse_address(start, 'load_from')


def check_test(cfg: Config) -> None:
    """Check what a test needs."""
    _check_backends(cfg)
    _check_loop(cfg, 'test')
    check_keys({'default_hooks': cfg.get('default_hooks')}, 'for the test')
    check_loaders({'test_dataloader': cfg.get('test_dataloader')})


def check_training_data(runner: Runner) -> None:
    """Check the training data, and warn of a batch that must hold a pair twice."""
    loader = runner.train_loop.dataloader
    for dataset in getattr(loader.dataset, 'datasets', [loader.dataset]):
        view = getattr(dataset, 'view', 'pairs')
        if view != 'pairs':
            raise InputError(
                f"train_dataloader.dataset: training needs view='pairs', got {view!r}"
            )
    batch_size = (loader.batch_size or 1) * runner.world_size
    if batch_size > len(loader.dataset):
        runner.logger.warning(
            f'train_dataloader: a batch of {batch_size} pairs is larger than '
            f'the dataset of {len(loader.dataset)}: each batch holds pairs twice'
        )


def _warn_of_misspelt_keys(cfg: Config, name: str) -> None:
    """Print a warning of top-level keys that are nearly those that mmengine reads.

    Others are left alone: a config may have variables of its own.
    """
    known = keys_of(Runner)
    for key in cfg:
        meant = get_close_matches(str(key), known, n=1, cutoff=_MISSPELT)
        if key not in known and meant:
            print(
                f'warning: config {name}: nothing reads {key!r}: did you mean '
                f'{meant[0]!r}?',
                file=sys.stderr,
            )


def _check_precision(optim_wrapper: dict[str, Any]) -> None:
    if kind_of(optim_wrapper) != 'AmpOptimWrapper':
        return
    if get_device() in ('cpu', 'dipu', 'mps'):
        raise InputError(
            'optim_wrapper.type AmpOptimWrapper needs a GPU, and none was found: set '
            "optim_wrapper.type='OptimWrapper' (and remove dtype and loss_scale) to "
            'train in float32'
        )


def _check_backends(cfg: Config) -> None:
    visualizer = cfg.get('visualizer') or {}
    for backend in [
        *(visualizer.get('vis_backends') or ()),
        *(cfg.get('vis_backends') or ()),
    ]:
        modules, package = _BACKENDS.get(kind_of(backend), ((), ''))
        if modules and not any(map(importlib.util.find_spec, modules)):
            raise InputError(
                f'{kind_of(backend)} needs {modules[0]}, which is not installed: pip '
                f'install {package}, or remove it from visualizer.vis_backends'
            )


def _check_loop(cfg: Config, stage: str) -> None:
    """Refuse a loop over one loader for a metric that needs gallery and queries."""
    evaluator = cfg.get(f'{stage}_evaluator')
    metrics = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
    if _METRIC not in map(kind_of, metrics):
        return
    loop = cfg.get(f'{stage}_cfg')
    if not isinstance(loop, dict):  # mmengine asks for all three keys or none
        return
    kind = kind_of(loop) or f'{stage.capitalize()}Loop'
    if kind == f'{stage.capitalize()}Loop':
        raise InputError(
            f'{stage}_cfg: {_METRIC} compares captions with a gallery, and {kind} '
            f"reads one loader: set {stage}_cfg=dict(type='Retrieval{kind}') and "
            f'{stage}_dataloader=dict(NAME=dict(gallery=…, query=…))'
        )


def _check_checkpoints(cfg: Config) -> None:
    hooks = dict(cfg.get('default_hooks') or {})
    # What mmengine adds where nothing is said.
    hooks.setdefault('checkpoint', dict(type=CheckpointHook.__name__))
    for hook in (*hooks.values(), *(cfg.get('custom_hooks') or ())):
        if kind_of(hook) != CheckpointHook.__name__:
            continue
        by = "set type='AtomicCheckpointHook'"
        options = set(hook) - {'type', 'priority'}
        advice = f'; for the options of gckd_mm, {by}'
        check_options_of_saving('CheckpointHook', options, advice=advice)
        if hook.get('by_epoch', True) and kind_of(cfg.train_cfg) in _ITER_LOOPS:
            raise InputError(
                f'CheckpointHook counts epochs, of which {kind_of(cfg.train_cfg)} has '
                f'none: it would save nothing. Set by_epoch=False, or {by}, whose '
                f'checkpoints survive a kill'
            )


def _check_names(cfg: Config) -> None:
    """Check what mmengine looks up without a word of what it did not find."""
    optimizer = cfg.optim_wrapper.get('optimizer')
    if isinstance(optimizer, dict):
        _check_registered(OPTIMIZERS, optimizer.get('type'), 'optim_wrapper.optimizer')
    for key, loader in loaders_of(cfg):
        collate = loader.get('collate_fn')
        if isinstance(collate, dict):
            _check_registered(FUNCTIONS, collate.get('type'), f'{key}.collate_fn')
    heads = cfg.model.get('heads', True)
    if not heads:
        raise InputError(
            f'model.heads is {heads!r}: without a head there is no loss to train with; '
            f"set model.heads=dict(sdm=dict(type='SDMHead'))"
        )
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and level not in logging._nameToLevel:
        raise InputError(
            f'log_level must be one of {", ".join(logging._nameToLevel)}, got {level!r}'
        )
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and not is_count(seed) and (seed != 0 or seed is False):
        raise InputError(
            f'randomness.seed must be a whole number that is not negative, got {seed!r}'
        )


def _check_registered(registry: Registry, name: Any, where: str) -> None:
    if isinstance(name, str) and registry.get(name) is None:
        raise InputError(
            f'{where}: {name} is not in the {registry.name} registry'
            f'{nearest(name, registered_names(registry))}'
        )
