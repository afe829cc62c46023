"""Read checkpoints without running anything in them, and refuse what does not fit."""

from __future__ import annotations

import ast
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mmengine.registry
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import Registry
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from gckd_mm.errors import CheckpointError
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.safetensors_files import SUFFIX, read_safetensors
from gckd_mm.work_dir import pointed_checkpoint

#: before the name of weights that come with the package
PACKAGED = 'gckd_mm://'
PACKAGED_FOLDER = Path(__file__).parent / 'pretrained'
#: the parts of a model's config that embed, whatever else it does in training
ENCODERS = (
    'image_backbone',
    'image_neck',
    'text_backbone',
    'text_neck',
    'data_preprocessor',
)

_STATISTICS = ('min', 'max', 'current', 'mean')
_SCOPE = 'gckd_mm'
_PREFIXES = ('', f'{_SCOPE}.')
_TRUSTED_OTHERS = ('CenterCrop', 'DefaultSampler', 'Pad', 'Resize')
#: where a model with a teacher keeps it, and how often it has moved
_TEACHER = 'teacher.module.'
_TEACHER_STEPS = 'teacher.steps'
#: in the meta of models that adapt: steps of the adaptation that the weights have seen
ADAPTATION_STEPS = 'adaptation_steps'
_TEST_KEYS = (
    'default_scope',
    'model',
    'randomness',
    'test_cfg',
    'test_dataloader',
    'test_evaluator',
)


def read_checkpoint(
    path: str | os.PathLike[str], map_location: Any = 'cpu'
) -> dict[str, Any]:
    """Read a checkpoint of mmengine's form: tensors, plain values, log histories.

    Unlike mmengine's own loader it never falls back to unpickling arbitrary objects.

    Args:
        path: The file, of torch or ``.safetensors``, or ``gckd_mm://<name>`` for
            weights that come with the package.
        map_location: As in :func:`torch.load`.

    Returns:
        The checkpoint's dict.

    Raises:
        CheckpointError: If the file is missing, truncated, no checkpoint, or holds a
            class that is not on the list; the class is named and not executed.
    """
    path = local_path(path)
    if not os.path.isfile(path):
        raise CheckpointError(
            f'checkpoint {path} does not exist: name a file that tools/train.py wrote '
            f'(work_dirs/<config>/iter_<n>.pth), or set load_from=None to train from '
            f'scratch'
        )
    if path.endswith(SUFFIX):
        return read_safetensors(path, map_location)
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL ([\w.]+)', str(error))
        if found is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f'{path}: refused, because it holds {found.group(1)}, which could run code '
            f'when loaded. Nothing was executed. Convert it where you trust it: '
            f"torch.save(dict(state_dict=model.state_dict()), 'weights.pth')"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path}: must hold a dict, got {type(checkpoint).__name__}'
        )
    # `Runner.resume` would execute this key, of mmcv 1.x, as Python code.
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def local_path(path: str | os.PathLike[str]) -> str:
    """Return where a checkpoint lies: ``gckd_mm://<name>`` is inside the package.

    Raises:
        CheckpointError: If the package has no weights of that name.
    """
    path = os.fspath(path)
    if not path.startswith(PACKAGED):
        return os.path.expanduser(path)
    files = {file.stem: file for file in PACKAGED_FOLDER.glob('*.pth')}
    name = path.removeprefix(PACKAGED)
    if name not in files:
        raise CheckpointError(
            f'{path}: the package has no such weights, only '
            f'{_list(PACKAGED + stem for stem in files)}'
        )
    return str(files[name])


def find_last_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint that ``last_checkpoint`` in a work dir names, if any.

    The file may have been written under another path: a work dir can be moved. Where it
    must be known why there is none, see
    :func:`gckd_mm.work_dir.checkpoint_to_resume`.
    """
    return pointed_checkpoint(work_dir)


def use_strict_loading() -> None:
    """Make mmengine read checkpoints through :func:`read_checkpoint` and no other way.

    Its loaders for addresses (``https://``, ``s3://``, …) would unpickle anything; they
    are replaced by an error that asks for a download. For programs of ours only:
    importing ``gckd_mm`` must not change how other people's configs load theirs.
    """
    for prefix in set(CheckpointLoader._schemes) - {PACKAGED}:
        loader = _refuse_address if prefix else _load_from_local
        CheckpointLoader.register_scheme(prefixes=prefix, loader=loader, force=True)


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    where: str,
    partial: bool = False,
) -> None:
    """Refuse a state dict of another architecture.

    Args:
        model: The model that is to take it.
        state_dict: Parameter name -> tensor.
        where: Named in the error, such as the file.
        partial: Whether keys may be missing or left over, as when training starts from
            another model's weights. Shapes must fit all the same, and some key must.
            Defaults to False.

    Raises:
        CheckpointError: Lists missing, unexpected and misshapen keys.
    """
    own, given = unwrapped(model).state_dict(), _without_wrapper(state_dict)
    misshapen = [
        f'{key} ({_shape(given[key])} in the file, {_shape(own[key])} in the model)'
        for key in own.keys() & given.keys()
        if not key.endswith('_extra_state') and _shape(given[key]) != _shape(own[key])
    ]
    missing = own.keys() - given.keys()
    unexpected = given.keys() - own.keys()
    if partial and not misshapen and own.keys() & given.keys():
        return
    if misshapen or missing or unexpected:
        raise CheckpointError(
            f"{where}: of another architecture than the config's model.\n"
            f'  missing: {_list(missing)}\n'
            f'  unexpected: {_list(unexpected)}\n'
            f'  of another shape: {_list(misshapen)}\n'
            f'  use the config that it was trained with'
        )


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], where: str) -> None:
    """Load a whole state dict into a model, the tokenizer's vocabulary included.

    Raises:
        CheckpointError: See :func:`check_state_dict`.
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    check_state_dict(model, state_dict, where)
    unwrapped(model).load_state_dict(_without_wrapper(state_dict))


def encoders_alone(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a DualEncoder of a model's encoders, without what trains.

    A model of other people's making, which lacks some of them, is returned as it is.
    """
    if not all(part in model for part in ENCODERS):
        return dict(model)
    return {'type': 'DualEncoder', **{part: model[part] for part in ENCODERS}}


def weights_of_encoders(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`encoders_alone` has weights for."""
    return {
        name: value
        for name, value in _without_wrapper(state_dict).items()
        if name.startswith(ENCODERS)
    }


def with_teacher(checkpoint: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Put the teacher's encoders and necks in the place of the student's.

    Args:
        checkpoint: Of a model with a ``teacher``; left as it is.
        where: Its name, for messages.

    Returns:
        The same with another ``state_dict``.

    Raises:
        CheckpointError: If it has no teacher, as after source-only training and with
            most baselines, or one that has not begun to teach, as in the source stage.
    """
    state_dict = _without_wrapper(checkpoint.get('state_dict', checkpoint))
    taught = {
        key.removeprefix(_TEACHER): value
        for key, value in state_dict.items()
        if key.startswith(_TEACHER)
    }
    if not taught:
        raise CheckpointError(f'{where}: holds no teacher: what trained it has none')
    if int(state_dict[_TEACHER_STEPS]) == 0:
        raise CheckpointError(
            f'{where}: its teacher has not begun: the adaptation had not started'
        )
    own = {key: value for key, value in taught.items() if key in state_dict}
    return {**checkpoint, 'state_dict': {**state_dict, **own}}


def ended_in_source_stage(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a model that adapts had not begun to: its heads are untrained."""
    return checkpoint.get('meta', {}).get(ADAPTATION_STEPS) == 0


def config_of(checkpoint: Mapping[str, Any], where: str) -> Config:
    """Return what a test needs of the config that a checkpoint was trained with.

    mmengine stores it as Python source. Only literals and ``dict(…)`` are read, only
    the keys of a test are taken, and only components of ours (and plain resizing and
    sampling) may be named: mmengine would import and call any dotted path that a
    ``type`` gives.

    Raises:
        CheckpointError: If there is none, if it holds anything but literals, or if it
            names anything else.
    """
    source = checkpoint.get('meta', {}).get('cfg')
    if not source:
        raise CheckpointError(f'{where}: holds no config, name one on the command line')
    values = {}
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign):
                raise ValueError(f'line {statement.lineno} is not an assignment')
            (name,) = statement.targets
            values[ast.unparse(name)] = _literal(statement.value)
    except (SyntaxError, ValueError) as error:
        raise CheckpointError(
            f'{where}: its config cannot be read ({error})'
        ) from error
    config = {key: values[key] for key in _TEST_KEYS if key in values}
    names = _trusted_names()
    for kind in _names_in(config):
        if kind not in names:
            raise CheckpointError(
                f'{where}: its config names {kind!r}, which is no component of '
                f'gckd_mm. Nothing was executed. If you trust it, name the config file '
                f'on the command line'
            )
    return Config(config)


def _names_in(value: Any) -> Iterator[str]:
    """Yield every component and scope that a config names."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ('type', '_scope_', 'default_scope'):
                yield str(part)
            else:
                yield from _names_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _names_in(part)


def _trusted_names() -> set[str]:
    """Return what the config in a checkpoint may name: our components and a few more.

    Registration alone is no trust: among the components of mmengine and mmpretrain are
    some that unpickle a file from an address or run code from a hub.
    """
    names = {_SCOPE, *_TRUSTED_OTHERS}
    for root in vars(mmengine.registry).values():
        if isinstance(root, Registry) and _SCOPE in root.children:
            child = root.children[_SCOPE]
            child.import_from_location()
            names |= {prefix + n for n in child.module_dict for prefix in _PREFIXES}
    return names


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


def _without_wrapper(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Strip the prefix that DistributedDataParallel gives to every key."""
    return {key.removeprefix('module.'): value for key, value in state_dict.items()}


def _load_from_local(filename: str, map_location: Any) -> dict[str, Any]:
    return read_checkpoint(filename, map_location)


# A prefix that is ours alone: nobody else's loading changes.
CheckpointLoader.register_scheme(prefixes=PACKAGED, loader=_load_from_local, force=True)


def _refuse_address(filename: str, map_location: Any) -> dict[str, Any]:
    raise CheckpointError(
        f'{filename}: only files are read; download it, and name the file'
    )


def _allowed_globals() -> list[Any]:
    core = np._core if hasattr(np, '_core') else np.core
    allowed: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        *{type(np.dtype(name)) for name in ('f4', 'f8', 'i4', 'i8', 'u4', 'b1')},
    ]
    # A log history pickles its methods as getattr(HistoryBuffer, 'mean').
    allowed.append((_statistic, 'builtins.getattr'))
    return allowed


def _statistic(owner: Any, name: str) -> Callable:
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} refused')
    return getattr(owner, name)


def _damaged(path: str, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f'{path}: truncated, or not a checkpoint of torch ({reason})'
    )


def _shape(value: Any) -> str:
    return (
        str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
    )


def _list(names: Iterable[str], limit: int = 5) -> str:
    names = sorted(names)
    shown = ', '.join(names[:limit]) or 'none'
    return shown if len(names) <= limit else f'{shown}, … ({len(names)} in all)'
