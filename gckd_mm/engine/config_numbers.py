"""The numbers of a config, checked before any data is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.registry import TRANSFORMS

from gckd_mm.config_parts import kind_of, parts_of
from gckd_mm.errors import InputError

#: transform -> its argument that is a size in pixels
_SIZES = {
    'Resize': 'scale',
    'ResizeEdge': 'scale',
    'RandomCrop': 'crop_size',
    'CenterCrop': 'crop_size',
}
#: packages whose transforms are known to load an image by the name Load…
_KNOWN_PACKAGES = ('gckd_mm.', 'mmcv.', 'mmpretrain.')


def check_numbers(cfg: Any) -> None:
    """Check the counts, the loaders' settings and the learning rate."""
    parts = {
        'train_cfg': _OF_LOOPS,
        'optim_wrapper': {'accumulative_counts': _COUNT},
        'optim_wrapper.optimizer': {'lr': _RATE},
    }
    for path, part in parts_of(cfg):
        _check(part, parts.get(path, {}), path)
    check_loaders(cfg)


def check_loaders(cfg: Any) -> None:
    """Check what is said of the dataloaders and of the transforms behind them."""
    for key, loader in loaders_of(cfg):
        for part in ('dataset', 'sampler'):
            if isinstance(loader.get(part), str | int | float | list):
                raise InputError(f'{key}.{part} must be dict(…), got {loader[part]!r}')
        _check(loader, _OF_LOADERS, key)
        for path, step in parts_of(loader.get('dataset'), f'{key}.dataset'):
            _check_pipeline(step, path)
    for key in ('custom_hooks', 'default_hooks'):
        for path, step in parts_of(cfg.get(key), key):
            _check_pipeline(step, path)


def loaders_of(config: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield the dataloaders of a config, with their dotted keys."""
    for key, part in config.items():
        if not isinstance(part, dict) or not (path or str(key).endswith('_dataloader')):
            continue
        name = f'{path}.{key}' if path else str(key)
        if 'dataset' in part and ('batch_size' in part or 'num_workers' in part):
            yield name, part
        elif path.count('.') < 2:
            yield from loaders_of(part, name)


def is_count(value: Any, least: int = 1) -> bool:
    """Return whether a value is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_amount(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < float('inf')
    )


def _is_size(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(map(is_count, value))
    return is_count(value)


#: (whether a value is one, how to name it)
_Rule = tuple[Callable[[Any], bool], str]
_COUNT: _Rule = (is_count, 'a whole number of at least 1')
_COUNT_OR_0: _Rule = (lambda v: is_count(v, 0), 'a whole number of at least 0')
_AMOUNT: _Rule = (_is_amount, 'a number that is not negative')
# Some optimisers choose their rate themselves where it is None.
_RATE: _Rule = (lambda v: v is None or _is_amount(v), _AMOUNT[1])
_SWITCH: _Rule = (lambda v: v is None or isinstance(v, bool), 'True or False')
_OF_LOOPS = {
    'max_iters': _COUNT,
    'max_epochs': _COUNT,
    'val_interval': _COUNT,
    'val_begin': _COUNT_OR_0,
}
_OF_LOADERS = {
    'batch_size': _COUNT,
    'num_workers': _COUNT_OR_0,
    'prefetch_factor': (
        lambda v: v is None or is_count(v),
        'a whole number of at least 1, or None',
    ),
    'timeout': _AMOUNT,
    'persistent_workers': _SWITCH,
    'pin_memory': _SWITCH,
    'drop_last': _SWITCH,
}


def _check(part: Any, rules: dict[str, _Rule], path: str) -> None:
    for key, (is_one, expected) in rules.items():
        if key in part and not is_one(part[key]):
            raise InputError(f'{path}.{key} must be {expected}, got {part[key]!r}')


def _check_pipeline(part: dict[str, Any], path: str) -> None:
    """Check one part if it is a transform, or has transforms."""
    size = _SIZES.get(kind_of(part))
    if size and part.get(size) is not None and not _is_size(part[size]):
        raise InputError(
            f'{path}.{size} must be (width, height) in whole pixels of at least 1, '
            f'such as (128, 384), got {part[size]!r}'
        )
    steps = part.get('pipeline')
    if not isinstance(steps, list | tuple) or part.get('view') == 'captions':
        return
    kinds = [kind_of(step) for step in steps]
    if any(kind.startswith('Load') for kind in kinds):
        return
    if all(_is_known(step) for step in steps) and 'PackPersonText' in kinds:
        raise InputError(
            f"{path}.pipeline must begin with dict(type='LoadPersonImage'): none of "
            f'{", ".join(kinds)} loads the image'
        )


def _is_known(step: Any) -> bool:
    """Return whether a transform is of a package whose loaders are called Load…."""
    kind = step.get('type') if isinstance(step, dict) else None
    found = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
    if found is None and isinstance(kind, str):
        found = TRANSFORMS.get(f'gckd_mm.{kind}')
    return str(getattr(found, '__module__', '')).startswith(_KNOWN_PACKAGES)
