"""What the config in a checkpoint may ask for: the keys of a test, within bounds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: what is taken of each part of the config that tests
_LOADER_KEYS = ('batch_size', 'num_workers', 'dataset', 'collate_fn', 'sampler')
_DATASET_KEYS = (
    'type',
    'data_root',
    'split',
    'view',
    'ann_file',
    'image_folder',
    'pipeline',
    'check_images',
    'unreadable',
    'schema',
    'indices',
    'datasets',
)
_METRIC_KEYS = ('type', 'ks', 'prefix', 'gallery_neck', 'rerank')
_LOOP_KEYS = ('type', 'fp16')

_MOST_LEVELS = 40
_MOST_VALUES = 100_000
_MOST_LETTERS = 4096
#: integers of a model are sizes; larger ones must be the size of some tensor
_MOST_SIZE = 1 << 16
#: pixels of a side, and everything else that a transform of images counts
_MOST_PIXELS = 2048
_MOST_AREA = 1 << 20
_MOST_BATCH = 512
_MOST_WORKERS = 16
_MOST_SEED = (1 << 32) - 1


class UnfitError(Exception):
    """What a config asks for that no test needs."""


def check_plain(config: Any) -> None:
    """Refuse values that no config has, in kind or in number."""
    left = _MOST_VALUES
    stack = [(config, 0)]
    while stack:
        value, level = stack.pop()
        left -= 1
        if left < 0 or level > _MOST_LEVELS:
            raise UnfitError('it is too large, or nested too deep')
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise UnfitError('a key is no text')
            stack += [(part, level + 1) for part in value.values()]
        elif isinstance(value, list | tuple):
            stack += [(part, level + 1) for part in value]
        elif isinstance(value, str):
            if len(value) > _MOST_LETTERS:
                raise UnfitError(f'a text is longer than {_MOST_LETTERS} letters')
        elif value is not None and not isinstance(value, bool | int | float):
            raise UnfitError(f'it holds a value of type {type(value).__name__}')


def needed(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what a test needs of each part of a config, and no more."""
    found = dict(config)
    if 'model' in config:
        largest = max((max(v.shape, default=0) for v in tensors.values()), default=0)
        _check_numbers(config['model'], max(_MOST_SIZE, largest), 'model')
    if 'randomness' in config:
        randomness = config['randomness']
        seed = randomness.get('seed') if isinstance(randomness, dict) else None
        is_seed = isinstance(seed, int) and 0 <= seed <= _MOST_SEED
        found['randomness'] = {'seed': seed if is_seed else None}
    if config.get('test_cfg') is not None:
        found['test_cfg'] = _only(config['test_cfg'], _LOOP_KEYS, 'test_cfg')
    evaluator = config.get('test_evaluator')
    if isinstance(evaluator, list | tuple):
        found['test_evaluator'] = [_metric(metric) for metric in evaluator]
    elif evaluator is not None:
        found['test_evaluator'] = _metric(evaluator)
    if config.get('test_dataloader') is not None:
        found['test_dataloader'] = _test_sets(config['test_dataloader'])
    return found


def check_kind(value: Any, kind: type, path: str) -> None:
    """Refuse a value of another type."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UnfitError(
            f'{path} must be of type {kind.__name__}, got {type(value).__name__}'
        )


def _only(settings: Any, names: tuple[str, ...], path: str) -> dict[str, Any]:
    check_kind(settings, dict, path)
    return {name: settings[name] for name in names if name in settings}


def _metric(metric: Any) -> dict[str, Any]:
    _check_numbers(metric, _MOST_SIZE, 'test_evaluator')
    return _only(metric, _METRIC_KEYS, 'test_evaluator')


def _test_sets(test_sets: Any) -> dict[str, Any]:
    check_kind(test_sets, dict, 'test_dataloader')
    found: dict[str, Any] = {}
    for name, roles in test_sets.items():
        path = f'test_dataloader.{name}'
        check_kind(roles, dict, path)
        if roles.keys() != {'gallery', 'query'}:
            raise UnfitError(f"{path} must have 'gallery' and 'query'")
        found[name] = {
            role: _loader(loader, f'{path}.{role}') for role, loader in roles.items()
        }
    return found


def _loader(loader: Any, path: str) -> dict[str, Any]:
    taken = _only(loader, _LOADER_KEYS, path)
    bounds = {
        'batch_size': (1, _MOST_BATCH),
        'num_workers': (0, min(_MOST_WORKERS, os.cpu_count() or 1)),
    }
    for name, (least, most) in bounds.items():
        if name in taken:
            check_kind(taken[name], int, f'{path}.{name}')
            taken[name] = min(max(taken[name], least), most)
    for name, keys in {'sampler': ('type', 'shuffle'), 'collate_fn': ('type',)}.items():
        if name in taken:
            taken[name] = _only(taken[name], keys, f'{path}.{name}')
    taken['dataset'] = _dataset(taken.get('dataset'), f'{path}.dataset')
    return taken


def _dataset(dataset: Any, path: str) -> dict[str, Any]:
    taken = _only(dataset, _DATASET_KEYS, path)
    check_kind(taken.get('type'), str, f'{path}.type')
    for name in ('data_root', 'split', 'view', 'ann_file', 'image_folder'):
        if taken.get(name) is not None:
            check_kind(taken[name], str, f'{path}.{name}')
    _check_numbers({**taken, 'pipeline': None}, 1 << 40, path)
    annotations = taken.get('ann_file')
    if annotations:
        below = os.path.join(taken.get('data_root') or '', annotations)
        for file in (annotations, below):
            if os.path.exists(file) and not os.path.isfile(file):
                raise UnfitError(f'{path}.ann_file: {file} is no regular file')
    for name, check in (('pipeline', _check_transform), ('datasets', _dataset)):
        parts = taken.get(name, ())
        if not isinstance(parts, list | tuple):
            raise UnfitError(f'{path}.{name} must be a list')
        found = [check(part, f'{path}.{name}[{n}]') for n, part in enumerate(parts)]
        if name in taken:
            taken[name] = found
    return taken


def _check_transform(step: Any, path: str) -> dict[str, Any]:
    check_kind(step, dict, path)
    check_kind(step.get('type'), str, f'{path}.type')
    _check_numbers(step, _MOST_PIXELS, path)
    for name, value in step.items():
        pair = value if isinstance(value, list | tuple) else ()
        is_size = len(pair) == 2 and all(isinstance(side, int) for side in pair)
        if is_size and pair[0] * pair[1] > _MOST_AREA:
            raise UnfitError(f'{path}.{name} is more than {_MOST_AREA} pixels')
    return step


def _check_numbers(value: Any, most: int, path: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(part, most, f'{path}.{name}')
    elif isinstance(value, list | tuple):
        for part in value:
            _check_numbers(part, most, path)
    elif isinstance(value, int | float) and not abs(value) <= most:
        raise UnfitError(f'{path} is {value!s:.20}, more than {most}')
