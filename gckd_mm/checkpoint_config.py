"""The config that a checkpoint carries: what a test and a search need of it."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.registry
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from gckd_mm.checkpoint_foreign import refuse_foreign
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.registry import DATA_SAMPLERS, TRANSFORMS, short_type, type_name

_SCOPE = 'gckd_mm'
_PREFIXES = ('', f'{_SCOPE}.')
#: components of others -> the packages whose name may stand before theirs
_TRUSTED_OTHERS = {
    'CenterCrop': 'mmcv',
    'DefaultSampler': 'mmengine',
    'Pad': 'mmcv',
    'Resize': 'mmcv',
}
_TEST_KEYS = (
    'default_scope',
    'model',
    'randomness',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
)
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
#: keys of a model's parts that name what lies elsewhere: the checkpoint brings it
_ELSEWHERE = ('init_cfg', 'pretrained', 'file')
_ATTENTION = ('sdpa', 'eager')
_TOKENIZER_STATE = 'data_preprocessor.tokenizer._extra_state'
#: stands for the folder of a tokenizer that is not read
_IN_CHECKPOINT = '/the vocabulary lies in the checkpoint'

_MOST_CHARACTERS = 1 << 20
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
#: numbers beyond those of the checkpoint that a model may hold while it is built
_SPARE_NUMBERS = 1 << 26
_SPARE_PARTS = 10_000


def config_of(checkpoint: Mapping[str, Any], where: str) -> Config:
    """Return what a test needs of the config that a checkpoint was trained with.

    mmengine stores it as Python source. Only literals and ``dict(…)`` are read, only
    the keys of a test are taken, and only components of ours (and plain resizing and
    sampling) may be named: mmengine would import and call any dotted path that a
    ``type`` gives. Numbers are bounded, and nothing is left that would read pretrained
    weights or a vocabulary from another place: the checkpoint brings them.

    Raises:
        CheckpointError: If there is none, if it holds anything but literals, if it
            names anything else, or asks for more than a test needs.
    """
    source = (checkpoint.get('meta') or {}).get('cfg')
    if not source:
        refuse_foreign(checkpoint, where)
        raise CheckpointError(f'{where}: holds no config, name one on the command line')
    values = _parse(source, where)
    config = {key: values[key] for key in _TEST_KEYS if key in values}
    try:
        _check_plain(config)
    except _UnfitError as error:
        raise _unfit(where, str(error)) from error
    trusted = _trusted_types()
    names = {_SCOPE, *trusted}
    config = _with_names(config, trusted, config.get('default_scope'))
    model = _without_pretrained(config.get('model'))
    for kind in _names_in({**config, 'model': model}):
        if kind not in names:
            raise CheckpointError(
                f'{where}: its config names {kind!r}, which is no component of '
                f'gckd_mm. Nothing was executed. If you trust it, name the config file '
                f'on the command line'
            )
    try:
        return Config(_needed(config, checkpoint))
    except (_UnfitError, InputError) as error:
        raise _unfit(where, str(error)) from error


@contextmanager
def built_from(checkpoint: Mapping[str, Any], where: str) -> Iterator[None]:
    """Build, and use, what the config in a checkpoint says, no larger than its weights.

    Args:
        checkpoint: Whose tensors bound what is built inside.
        where: The file, for messages.

    Raises:
        CheckpointError: If the model is much larger than the weights, or something
            fails: a config out of a file can break what is built of it in any way.
    """
    tensors = _tensors_of(checkpoint)
    budget = _Budget(
        4 * sum(value.numel() for value in tensors.values()) + _SPARE_NUMBERS,
        20 * len(tensors) + _SPARE_PARTS,
    )
    hooks = [
        torch_module.register_module_parameter_registration_hook(budget.spend),
        torch_module.register_module_buffer_registration_hook(budget.spend),
        torch_module.register_module_module_registration_hook(budget.spend),
    ]
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise _unfit(where, f'what it describes does not work: {reason}') from error
    finally:
        for hook in hooks:
            hook.remove()


class _Budget:
    """Counts what modules register, and stops when it is too much."""

    def __init__(self, numbers: int, parts: int) -> None:
        self._numbers = numbers
        self._parts = parts

    def spend(self, module: nn.Module, name: str, value: Any) -> None:
        self._parts -= 1
        if isinstance(value, Tensor):
            self._numbers -= value.numel()
        if self._numbers < 0 or self._parts < 0:
            raise CheckpointError(
                f'the config in the checkpoint describes a much larger model than its '
                f'weights are ({type(module).__name__}.{name}): it is damaged; name '
                f'the config file that it was trained with'
            )


class _UnfitError(Exception):
    """What a config asks for that no test needs."""


def _unfit(where: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f'{where}: its config cannot be used ({reason}): name the config file that it '
        f'was trained with'
    )


def _parse(source: Any, where: str) -> dict[str, Any]:
    if not isinstance(source, str) or len(source) > _MOST_CHARACTERS:
        raise CheckpointError(
            f'{where}: its config must be text of at most {_MOST_CHARACTERS} letters'
        )
    values = {}
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign):
                raise ValueError(f'line {statement.lineno} is not an assignment')
            (name,) = statement.targets
            values[ast.unparse(name)] = _literal(statement.value)
    # Deep nesting ends in one of the last two.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f'{where}: its config cannot be read ({reason})') from (
            error
        )
    return values


def _check_plain(config: Any) -> None:
    """Refuse values that no config has, in kind or in number."""
    left = _MOST_VALUES
    stack = [(config, 0)]
    while stack:
        value, level = stack.pop()
        left -= 1
        if left < 0 or level > _MOST_LEVELS:
            raise _UnfitError('it is too large, or nested too deep')
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise _UnfitError('a key is no text')
            stack += [(part, level + 1) for part in value.values()]
        elif isinstance(value, list | tuple):
            stack += [(part, level + 1) for part in value]
        elif isinstance(value, str):
            if len(value) > _MOST_LETTERS:
                raise _UnfitError(f'a text is longer than {_MOST_LETTERS} letters')
        elif value is not None and not isinstance(value, bool | int | float):
            raise _UnfitError(f'it holds a value of type {type(value).__name__}')


def _needed(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with what a test needs of each part, and no more."""
    tensors = _tensors_of(checkpoint)
    needed = dict(config)
    if 'model' in config:
        _check_kind(config['model'], dict, 'model')
        model = _with_sizes(config['model'], tensors)
        largest = max((max(v.shape, default=0) for v in tensors.values()), default=0)
        model = _without_pretrained(model)
        _check_numbers(model, max(_MOST_SIZE, largest), 'model')
        needed['model'] = model
    if 'randomness' in config:
        randomness = config['randomness']
        seed = randomness.get('seed') if isinstance(randomness, dict) else None
        if not isinstance(seed, int) or not 0 <= seed <= _MOST_SEED:
            seed = None
        needed['randomness'] = {'seed': seed}
    if config.get('test_cfg') is not None:
        _check_kind(config['test_cfg'], dict, 'test_cfg')
        needed['test_cfg'] = _only(config['test_cfg'], _LOOP_KEYS)
    if config.get('test_evaluator') is not None:
        needed['test_evaluator'] = _metrics(config['test_evaluator'])
    if config.get('test_dataloader') is not None:
        needed['test_dataloader'] = _test_sets(config['test_dataloader'])
    return needed


def _metrics(evaluator: Any) -> Any:
    metrics = evaluator if isinstance(evaluator, list | tuple) else [evaluator]
    for metric in metrics:
        _check_kind(metric, dict, 'test_evaluator')
        _check_numbers(metric, _MOST_SIZE, 'test_evaluator')
    taken = [_only(metric, _METRIC_KEYS) for metric in metrics]
    return taken if isinstance(evaluator, list | tuple) else taken[0]


def _test_sets(test_sets: Any) -> dict[str, Any]:
    _check_kind(test_sets, dict, 'test_dataloader')
    found: dict[str, Any] = {}
    for name, roles in test_sets.items():
        path = f'test_dataloader.{name}'
        _check_kind(roles, dict, path)
        if roles.keys() != {'gallery', 'query'}:
            raise _UnfitError(f"{path} must have 'gallery' and 'query'")
        found[name] = {
            role: _loader(loader, f'{path}.{role}') for role, loader in roles.items()
        }
    return found


def _loader(loader: Any, path: str) -> dict[str, Any]:
    _check_kind(loader, dict, path)
    taken = _only(loader, _LOADER_KEYS)
    bounds = {
        'batch_size': (1, _MOST_BATCH),
        'num_workers': (0, min(_MOST_WORKERS, os.cpu_count() or 1)),
    }
    for name, (least, most) in bounds.items():
        if name in taken:
            _check_kind(taken[name], int, f'{path}.{name}')
            taken[name] = min(max(taken[name], least), most)
    if 'sampler' in taken:
        _check_kind(taken['sampler'], dict, f'{path}.sampler')
        taken['sampler'] = _only(taken['sampler'], ('type', 'shuffle'))
    if 'collate_fn' in taken:
        _check_kind(taken['collate_fn'], dict, f'{path}.collate_fn')
        taken['collate_fn'] = _only(taken['collate_fn'], ('type',))
    taken['dataset'] = _dataset(taken.get('dataset'), f'{path}.dataset')
    return taken


def _dataset(dataset: Any, path: str) -> dict[str, Any]:
    _check_kind(dataset, dict, path)
    taken = _only(dataset, _DATASET_KEYS)
    for name in ('type', 'data_root', 'split', 'view', 'ann_file', 'image_folder'):
        if taken.get(name) is not None:
            _check_kind(taken[name], str, f'{path}.{name}')
    _check_numbers({**taken, 'pipeline': None}, 1 << 40, path)
    annotations = taken.get('ann_file')
    if annotations:
        for file in (
            annotations,
            os.path.join(taken.get('data_root') or '', annotations),
        ):
            if os.path.exists(file) and not os.path.isfile(file):
                raise _UnfitError(f'{path}.ann_file: {file} is no regular file')
    steps = taken.get('pipeline', ())
    _check_kind(taken.get('type'), str, f'{path}.type')
    if not isinstance(steps, list | tuple):
        raise _UnfitError(f'{path}.pipeline must be a list of transforms')
    for number, step in enumerate(steps):
        _check_transform(step, f'{path}.pipeline[{number}]')
    if 'datasets' in taken:
        parts = taken['datasets']
        if not isinstance(parts, list | tuple):
            raise _UnfitError(f'{path}.datasets must be a list')
        taken['datasets'] = [
            _dataset(part, f'{path}.datasets[{n}]') for n, part in enumerate(parts)
        ]
    return taken


def _check_transform(step: Any, path: str) -> None:
    _check_kind(step, dict, path)
    _check_kind(step.get('type'), str, f'{path}.type')
    _check_numbers(step, _MOST_PIXELS, path)
    for name, value in step.items():
        pair = value if isinstance(value, list | tuple) else ()
        is_size = len(pair) == 2 and all(isinstance(side, int) for side in pair)
        if is_size and pair[0] * pair[1] > _MOST_AREA:
            raise _UnfitError(f'{path}.{name} is more than {_MOST_AREA} pixels')


def _check_numbers(value: Any, most: int, path: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(part, most, f'{path}.{name}')
    elif isinstance(value, list | tuple):
        for part in value:
            _check_numbers(part, most, path)
    elif isinstance(value, int | float) and not abs(value) <= most:
        raise _UnfitError(f'{path} is {value!s:.20}, more than {most}')


def _check_kind(value: Any, kind: type, path: str) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _UnfitError(
            f'{path} must be of type {kind.__name__}, got {type(value).__name__}'
        )


def _only(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}


def _tensors_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    state_dict = checkpoint.get('state_dict', checkpoint)
    return {
        name.removeprefix('module.'): value
        for name, value in state_dict.items()
        if isinstance(value, Tensor)
    }


def _without_pretrained(model: Any) -> Any:
    """Leave out what a model would read from elsewhere, at any depth."""
    if isinstance(model, list | tuple):
        return type(model)(_without_pretrained(part) for part in model)
    if not isinstance(model, dict):
        return model
    kept = {
        name: _without_pretrained(value)
        for name, value in model.items()
        if name not in _ELSEWHERE
    }
    if _kind(model) == 'HFTokenizer':
        kept['pretrained'] = _IN_CHECKPOINT
    # Other names are of kernels that transformers would fetch from the hub.
    if kept.get('attn_implementation', 'sdpa') not in (*_ATTENTION, None):
        kept['attn_implementation'] = 'sdpa'
    return kept


def _with_sizes(
    model: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """State the sizes that a model would read where its pretrained weights lie."""
    sized = dict(model)
    for name in ('image_backbone', 'text_backbone'):
        part = sized.get(name)
        if not isinstance(part, dict):
            continue
        if part.get('pretrained') is not None and part.get('config') is None:
            part = {**part, 'config': _sizes_in(part['pretrained'], _kind(part), name)}
        if isinstance(part.get('config'), dict):
            part = {**part, 'config': _plain_sizes(part['config'])}
        sized[name] = part
    preprocessor = sized.get('data_preprocessor')
    if isinstance(preprocessor, dict):
        tokenizer = preprocessor.get('tokenizer')
        if (
            isinstance(tokenizer, dict)
            and _kind(tokenizer) == 'HFTokenizer'
            and not isinstance(tokenizer.get('vocab_size'), int)
        ):
            rows = _rows_of_vocabulary(tensors.get(_TOKENIZER_STATE))
            tokenizer = {**tokenizer, 'vocab_size': rows}
            sized['data_preprocessor'] = {**preprocessor, 'tokenizer': tokenizer}
    return sized


def _plain_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of transformers' config what is no size: hooks to code and kernels."""
    return {
        name: value
        for name, value in config.items()
        if isinstance(value, bool | int | float | str)
        and not name.startswith('_')
        and not name.startswith(('attn_impl', 'auto', 'quant', 'kernel', 'use_kernel'))
    }


def _sizes_in(folder: Any, kind: str, name: str) -> dict[str, Any]:
    """Return the sizes in the config.json of a folder on this machine."""
    file = Path(str(folder)).expanduser() / 'config.json'
    if not file.is_file():
        raise _UnfitError(
            f'model.{name} takes its sizes from {folder}, which is no folder here, and '
            f'no hub is asked'
        )
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise _UnfitError(f'{file} cannot be read: {error}') from error
    part = {'CLIPImageBackbone': 'vision_config', 'CLIPTextBackbone': 'text_config'}
    if isinstance(found, dict) and kind in part and part[kind] in found:
        found = found[part[kind]]
    _check_kind(found, dict, str(file))
    ignored = {'transformers_version', 'dtype', 'torch_dtype'}
    if kind in part:
        ignored.add('model_type')
    return {key: value for key, value in found.items() if key not in ignored}


def _rows_of_vocabulary(state: Tensor | None) -> int:
    if state is None or state.dtype != torch.uint8 or not state.numel():
        raise _UnfitError(
            'its tokenizer is of another place, and the checkpoint holds no vocabulary'
        )
    try:
        vocabulary = Tokenizer.from_buffer(state.numpy().tobytes()).get_vocab()
    # `tokenizers` raises plain Exceptions.
    except Exception as error:
        raise _UnfitError(f'the vocabulary is damaged: {error}') from error
    return max(vocabulary.values(), default=-1) + 1


def _kind(part: Mapping[str, Any]) -> str:
    return type_name(part.get('type'))


def _names_in(value: Any) -> Iterator[str]:
    """Yield every component and scope that a config names."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ('type', '_scope_', 'default_scope'):
                if part is not None:  # a pure-Python config may do without a scope
                    yield str(part)
            else:
                yield from _names_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _names_in(part)


def _with_names(
    value: Any, trusted: Mapping[str, Any], scope: Any, key: str = ''
) -> Any:
    """Write the trusted components that are named by a dotted path as one name.

    A pure-Python config is stored with such paths. Nothing is imported to follow one:
    a path counts if it leads, through modules that are loaded, to a trusted component.
    """
    if isinstance(value, dict):
        return {k: _with_names(part, trusted, scope, k) for k, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_names(part, trusted, scope) for part in value)
    if key != 'type' or not isinstance(value, str) or value in trusted:
        return value
    module, _, name = value.rpartition('.')
    short = name if name in _TRUSTED_OTHERS else f'{_SCOPE}.{name}'
    component = trusted.get(short)
    if component is None:
        return value
    if module == _TRUSTED_OTHERS.get(name):
        return short
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if found is not component:
        return value
    # mmengine looks functions up from the root
    return short_type(value, scope) if isinstance(component, type) else short


def _trusted_types() -> dict[str, Any]:
    """Return what the config in a checkpoint may name: our components and a few more.

    Registration alone is no trust: among the components of mmengine and mmpretrain are
    some that unpickle a file from an address or run code from a hub.
    """
    found: dict[str, Any] = {
        name: (TRANSFORMS if package == 'mmcv' else DATA_SAMPLERS).get(name)
        for name, package in _TRUSTED_OTHERS.items()
    }
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry) and _SCOPE in root.children:
            child = root.children[_SCOPE]
            child.import_from_location()
            for name, component in child.module_dict.items():
                found |= {prefix + name: component for prefix in _PREFIXES}
    return found


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict':
        value: dict[Any, Any] = {}
        for part in node.args:  # a dict whose keys are no names: dict({'1': 2})
            value.update(_literal(part))
        for item in node.keywords:
            if item.arg is None:
                raise ValueError(f'line {node.lineno}: ** in dict()')
            value[item.arg] = _literal(item.value)
        return value
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    if isinstance(node, ast.List):
        return [_literal(element) for element in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_literal(element) for element in node.elts)
    return ast.literal_eval(node)
