"""The config that a checkpoint carries: what a test and a search need of it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from gckd_mm.checkpoint.building import tensors_of, unfit
from gckd_mm.checkpoint.config_limits import (
    UnfitError,
    check_kind,
    check_plain,
    needed,
)
from gckd_mm.checkpoint.foreign import refuse_foreign
from gckd_mm.checkpoint.pretrained_parts import with_sizes, without_pretrained
from gckd_mm.config_parts import parts_of, rewritten
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.registry import DATA_SAMPLERS, TRANSFORMS, short_type

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
_MOST_CHARACTERS = 1 << 20


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
        check_plain(config)
        trusted = _trusted_types()
        scope = config.get('default_scope')
        config = rewritten(config, lambda part: _with_short_name(part, trusted, scope))
        model = without_pretrained(config.get('model'))
        for kind in _names_in({**config, 'model': model}):
            if kind not in (_SCOPE, *trusted):
                raise CheckpointError(
                    f'{where}: its config names {kind!r}, which is no component of '
                    f'gckd_mm. Nothing was executed. If you trust it, name the config '
                    f'file on the command line'
                )
        tensors = tensors_of(checkpoint)
        if 'model' in config:
            check_kind(config['model'], dict, 'model')
            config['model'] = without_pretrained(with_sizes(config['model'], tensors))
        return Config(needed(config, tensors))
    except CheckpointError:
        raise
    except (UnfitError, InputError) as error:
        raise unfit(where, str(error)) from error


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
            value = _DictCalls().visit(statement.value)
            values[ast.unparse(name)] = ast.literal_eval(value)
    # Deep nesting ends in one of the last two.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f'{where}: its config cannot be read ({reason})') from (
            error
        )
    return values


class _DictCalls(ast.NodeTransformer):
    """Write ``dict(a=1)`` as ``{'a': 1}``, which is a literal."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        pairs: list[tuple[Any, ast.expr]] = []
        for part in node.args:  # a dict whose keys are no names: dict({'1': 2})
            if not isinstance(part, ast.Dict):
                return node
            pairs += zip(part.keys, part.values, strict=True)
        pairs += [(ast.Constant(item.arg), item.value) for item in node.keywords]
        stars = any(item.arg is None for item in node.keywords)
        if stars or not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            return node  # which literal_eval refuses
        return ast.Dict([key for key, _ in pairs], [value for _, value in pairs])


def _names_in(config: Any) -> Iterator[str]:
    """Yield every component and scope that a config names."""
    for _, part in parts_of(config):
        for key in part.keys() & {'type', '_scope_', 'default_scope'}:
            if part[key] is not None:  # a pure-Python config may do without a scope
                yield str(part[key])


def _with_short_name(part: dict, trusted: Mapping[str, Any], scope: Any) -> dict:
    """Write a trusted component that is named by a dotted path as one name.

    A pure-Python config is stored with such paths. Nothing is imported to follow one:
    a path counts if it leads, through modules that are loaded, to a trusted component.
    """
    path = part.get('type')
    if not isinstance(path, str) or path in trusted:
        return part
    module, _, name = path.rpartition('.')
    short = name if name in _TRUSTED_OTHERS else f'{_SCOPE}.{name}'
    if short not in trusted:
        return part
    if module == _TRUSTED_OTHERS.get(name):
        return {**part, 'type': short}
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if found is not trusted[short]:
        return part
    # mmengine looks functions up from the root
    is_class = isinstance(trusted[short], type)
    return {**part, 'type': short_type(path, scope) if is_class else short}


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
