"""Keys below the top level of a config that nothing would read."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from gckd_mm.config_parts import parts_of
from gckd_mm.engine.error_messages import nearest
from gckd_mm.errors import InputError

#: hooks that mmengine adds by itself, and that None takes away
STOCK_HOOKS = (
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
)
_OWN_HOOKS = ('adaptation', 'finite_loss', 'iteration_seed', 'tokenizer')
#: how alike a misspelt name of a hook is to the one that was meant, of 1
_MISSPELT = 0.8
#: dotted path -> the keys that mmengine reads, where it says nothing of others
_KNOWN = {
    'env_cfg': (
        'cudnn_benchmark',
        'dist_cfg',
        'dynamo_cache_size',
        'mp_cfg',
        'resource_limit',
    ),
    'auto_scale_lr': ('base_batch_size', 'enable'),
    'optim_wrapper.paramwise_cfg': (
        'bias_decay_mult',
        'bias_lr_mult',
        'bypass_duplicate',
        'custom_keys',
        'dcn_offset_lr_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'norm_decay_mult',
    ),
    'optim_wrapper.paramwise_cfg.custom_keys.*': ('decay_mult', 'lr_mult'),
}


def check_keys(cfg: Any, name: str) -> None:
    """Warn of keys that nothing reads; refuse a misspelt hook that is no hook."""
    _check_hooks(cfg.get('default_hooks'), name)
    for pattern, known in _KNOWN.items():
        if pattern.startswith('optim_wrapper') and _has_own_constructor(cfg):
            continue
        for path, part in parts_of(cfg):
            if fnmatchcase(path, pattern):
                for key in part.keys() - set(known):
                    _warn(name, f'{path}.{key}', nearest(str(key), known))


def _has_own_constructor(cfg: Any) -> bool:
    """Return whether another constructor than mmengine's reads ``paramwise_cfg``."""
    wrapper = cfg.get('optim_wrapper')
    return isinstance(wrapper, dict) and 'constructor' in wrapper


def drop_absent_hooks(cfg: Any) -> None:
    """Let ``default_hooks.NAME=None`` take any hook away: mmengine knows its six."""
    hooks = cfg.get('default_hooks')
    if not isinstance(hooks, dict):
        return
    for key in [key for key, hook in hooks.items() if hook is None]:
        if key not in STOCK_HOOKS and not _meant(key):
            hooks.pop(key)


def _check_hooks(hooks: Any, name: str) -> None:
    for key, hook in hooks.items() if isinstance(hooks, dict) else ():
        meant = _meant(key)
        if not meant:
            continue
        advice = f': did you mean {meant!r}?'
        if hook is None or (isinstance(hook, dict) and 'type' not in hook):
            raise InputError(
                f'config {name}: default_hooks.{key} is no hook of the config{advice}'
            )
        _warn(name, f'default_hooks.{key}', advice, 'is a hook beside the others')


def _meant(key: Any) -> str:
    """Return the name of a hook that a key resembles, if it is not one itself."""
    known = (*STOCK_HOOKS, *_OWN_HOOKS)
    found = get_close_matches(str(key), known, n=1, cutoff=_MISSPELT)
    return found[0] if found and key not in known else ''


def _warn(name: str, key: str, advice: str, what: str = 'nothing looks at it') -> None:
    print(f'warning: config {name}: {key}: {what}{advice}', file=sys.stderr)
