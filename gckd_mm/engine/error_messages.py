"""One line for each error that a user can do something about."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import FrameType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from gckd_mm.config_parts import parts_of
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import type_name

_LONGEST = 600
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_HINTS = {
    errno.ENOSPC: 'the disk is full: make room, or name another folder',
    errno.EDQUOT: 'the quota is used up: make room, or name another folder',
    errno.EROFS: 'name a folder that can be written to',
    errno.EACCES: 'ask for the permission, or name another path',
    errno.EPERM: 'ask for the permission, or name another path',
    errno.ENAMETOOLONG: 'name a shorter path',
    errno.EISDIR: 'name a file',
    errno.ENOTDIR: 'a part of the path is a file',
    errno.ELOOP: 'its links lead in a circle',
    errno.EMFILE: 'raise the limit (ulimit -n), or lower num_workers',
}
#: functions that an error of a file they write passes through
_WRITERS = {'write_atomically', 'mkdir', 'makedirs', 'mkdir_or_exist', 'dump', 'save'}
_KEYWORD = re.compile(r"got an unexpected keyword argument '([^']+)'")
#: mmengine hands ``randomness`` and the like to a method of its runner
_OF_RUNNER = re.compile(rf'Runner\.(\w+)\(\) {_KEYWORD.pattern}')
_BUILDERS = ('from_cfg', 'setup_env', 'set_randomness', 'scale_lr')
#: what a value of a config can make a component raise
_OF_VALUES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def message_of(error: BaseException) -> str | None:
    """Return what to tell a user of an error.

    Returns:
        One line where possible; or None for an error that nobody foresaw, whose
        traceback should be seen.
    """
    text = str(error)
    if isinstance(error, InputError):
        # A loader's worker hands its error over with its traceback in the message.
        return re.split(r'gckd_mm\.errors\.\w+: ', text)[-1].rstrip()
    if isinstance(error, OSError):
        return _of_os_error(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or re.search(
        r"not enough memory|can't allocate memory", text
    ):
        return (
            f'out of memory: {_line(text) or type(error).__name__}. Lower '
            f'train_dataloader.batch_size (for a test: that of test_dataloader)'
        )
    if re.search(r'DataLoader worker .* (exited unexpectedly|is killed)', text):
        return (
            f'{_line(text)}: the system has ended a loader, most often for want of '
            f'memory or of shared memory (/dev/shm). Lower num_workers of the '
            f'dataloaders, or set it to 0 to see the error itself'
        )
    if isinstance(error, _OF_VALUES):
        return _of_config(error)
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` did you mean …?`` for a name that resembles a known one, else ''."""
    found = get_close_matches(name, {*known} - {name}, n=1, cutoff=0.6)
    return f': did you mean {found[0]!r}?' if found else ''


def keys_of(component: Any) -> set[str]:
    """Return the names of the arguments that a class or function takes.

    Those of the base classes count where the component hands its ``**kwargs`` on.
    """
    classes = component.__mro__ if inspect.isclass(component) else [component]
    keys: set[str] = set()
    for owner in classes:
        if inspect.isclass(owner) and '__init__' not in vars(owner):
            continue
        try:
            parameters = inspect.signature(
                vars(owner)['__init__'] if inspect.isclass(owner) else owner
            ).parameters.values()
        except (TypeError, ValueError):
            break
        keys |= {
            p.name
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return keys - {'self'}


def check_options_of_saving(
    hook: str, options: set[str], own: Iterable[str] = (), advice: str = ''
) -> None:
    """Refuse what mmengine's checkpoint hook does not take, nor hands on to saving."""
    saving = inspect.signature(Runner.save_checkpoint).parameters
    known = (keys_of(CheckpointHook) | {*saving, *own}) - {'self'}
    for key in options - known:
        raise InputError(f'{hook} has no {key!r}{nearest(key, known)}{advice}')


def shortened(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…'


def registered_names(registry: Registry) -> set[str]:
    """Return the names that a registry finds, those of its relatives included."""
    names = set(registry.module_dict)
    for child in registry.children.values():
        names |= child.module_dict.keys()
    if registry.parent is not None:
        names |= registered_names(registry.parent)
    return names


def _of_os_error(error: OSError) -> str:
    if error.errno is None:  # of a library, with a text alone; or of a loader's worker
        text = re.sub(r'^\w+Error: ', '', _last_line(str(error)))
        return text or type(error).__name__
    callers = {frame.f_code.co_name for frame in _frames(error)}
    written = error.errno in _OF_WRITING or bool(callers & _WRITERS)
    what = 'cannot be written' if written else 'cannot be read'
    reason = error.strerror or _line(str(error))
    advice = f': {_HINTS[error.errno]}' if error.errno in _HINTS else ''
    path = error.filename
    if path is None:
        return (
            f'{"a file " + what if written else "input or output"} ({reason}){advice}'
        )
    path = os.fsdecode(path) if isinstance(path, bytes) else path
    return shortened(f'{path}: {what} ({reason}){advice}')


def _of_config(error: BaseException) -> str | None:
    """Describe an error of something that was built from a config, else None."""
    frames = list(_frames(error))
    built = [f for f in frames if f.f_code.co_name == 'build_from_cfg']
    runner = None if built else _runner_in_first_step(frames)
    if not (
        built or runner or any(_builds_a_runner(f) or _begins_a_run(f) for f in frames)
    ):
        return None
    details = ''.join(traceback.format_exception(error))
    print_log(details, 'current', logging.DEBUG)
    if runner is not None:
        return f'{_part_in(runner, frames)} fails in its first step: {_named(error)}'
    component, arguments = _component(frames)
    if component is None and not built:
        call = _OF_RUNNER.search(str(error))
        if call:
            method, key = call.groups()
            keys = keys_of(getattr(Runner, method, Runner))
            return f'a config key does not exist: {key!r}{nearest(key, keys)}'
        return f'the config cannot be run: {_named(error)}'
    if component is None:
        variables = built[-1].f_locals
        return _of_type(error, variables, frames)
    name = getattr(component, '__name__', str(component))
    where = _path_in(_config_of(frames), name, arguments)
    owner = f'{name} ({where})' if where else name
    keyword = _KEYWORD.search(str(error)) if isinstance(error, TypeError) else None
    if keyword:
        key = keyword.group(1)
        known = keys_of(component)
        listed = f'. It takes {", ".join(sorted(known))}' if known else ''
        return (
            f'a config key does not exist: {owner} has no {key!r}'
            f'{nearest(key, known) or listed}'
        )
    found = f'{owner} cannot be built: {_named(error)}'
    if isinstance(error, TypeError) and 'missing' in str(error):
        known = keys_of(component)
        unknown = [key for key in arguments or () if key not in known]
        found += ''.join(f'; it has no {key!r}{nearest(key, known)}' for key in unknown)
    return found


def _component(frames: Iterable[FrameType]) -> tuple[Any, Any]:
    """Return what was last being built, and from what part of a config."""
    component, arguments = None, None
    for frame in frames:
        variables = frame.f_locals
        if frame.f_code.co_name == 'build_from_cfg':
            component = variables.get('obj_cls')
            arguments = variables.get('args', variables.get('cfg'))
        elif frame.f_code.co_name == 'build_dataloader':
            component, arguments = DataLoader, variables.get('dataloader')
        elif frame.f_code.co_name == 'set_randomness':
            component, arguments = Runner.set_randomness, variables.get('randomness')
        elif frame.f_code.co_name == '__init__' and isinstance(
            variables.get('self'), Runner
        ):
            component, arguments = Runner, None
    return (None, None) if component is Runner else (component, arguments)


def _of_type(
    error: BaseException, variables: dict[str, Any], frames: list[FrameType]
) -> str:
    """Describe a type that is not registered, or that is missing."""
    message = str(error.args[0]) if error.args else ''
    if 'must contain the key "type"' in message:
        found = variables.get('cfg')
        where = _path_in(_config_of(frames), None, found)
        return shortened(
            f"config: {where or 'a part of it'} needs a 'type', got {found}. Is the "
            f'key above it misspelt?'
        )
    name, registry = variables.get('obj_type'), variables.get('registry')
    message = shortened(_line(message.split(' Please check')[0].split(' More det')[0]))
    if not isinstance(name, str) or not isinstance(registry, Registry):
        return message or _named(error)
    return f'{message.rstrip(".")}{nearest(name, registered_names(registry))}'


def _builds_a_runner(frame: FrameType) -> bool:
    """Return whether a frame is of mmengine's building of a run, before its loops."""
    name = frame.f_code.co_name
    if not isinstance(
        frame.f_locals.get('self', frame.f_locals.get('cls')), Runner
    ) and (frame.f_locals.get('cls') is not Runner):
        return False
    return name.startswith('build_') or name == '__init__' or name in _BUILDERS


def _begins_a_run(frame: FrameType) -> bool:
    """Return whether a frame calls the hooks before the first iteration."""
    name = frame.f_locals.get('fn_name')
    return frame.f_code.co_name == 'call_hook' and name in (
        'before_run',
        'before_train',
    )


def _runner_in_first_step(frames: list[FrameType]) -> Runner | None:
    """Return the runner if it is the first step of a stage that fails."""
    for frame in frames:
        runner = getattr(frame.f_locals.get('self'), 'runner', None)
        if frame.f_code.co_name == 'run_iter' and isinstance(runner, Runner):
            starts = (0, getattr(unwrapped(runner.model), 'source_iters', 0))
            in_step = any(f.f_code.co_name == 'train_step' for f in frames)
            return runner if in_step and runner.iter in starts else None
    return None


def _part_in(runner: Runner, frames: Iterable[FrameType]) -> str:
    """Return the innermost part of the model's config that an error passed through."""
    names = {part: name for name, part in unwrapped(runner.model).named_modules()}
    found = ''
    for frame in frames:
        part = frame.f_locals.get('self')
        if isinstance(part, nn.Module):
            found = names.get(part, found)
    path, config = 'model', runner.cfg.get('model') or {}
    for key in found.split('.'):
        if not isinstance(config.get(key), dict):
            break
        path, config = f'{path}.{key}', config[key]
    return f'{type_name(config.get("type"))} ({path})'


def _config_of(frames: Iterable[FrameType]) -> Config | None:
    for frame in frames:
        for value in frame.f_locals.values():
            if isinstance(value, Config):
                return value
            if isinstance(value, Runner) and isinstance(
                getattr(value, 'cfg', None), Config
            ):
                return value.cfg
    return None


def _path_in(config: Config | None, name: str | None, arguments: Any) -> str | None:
    """Return the dotted path of the part of a config that a component is built from."""
    if config is None or not isinstance(arguments, dict):
        return None
    best = None
    for path, part in parts_of(config.to_dict()):
        if path.startswith('_'):  # a variable of the file's own
            continue
        if part and part == arguments:
            return path
        if type_name(part.get('type')) == (name or ''):
            own = {k: v for k, v in part.items() if k != 'type'}
            if all(k in arguments and arguments[k] == v for k, v in own.items()):
                return path
            if own.keys() <= arguments.keys() and name is not None:
                best = best or path
    return best


def _frames(error: BaseException) -> Iterator[FrameType]:
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame


def _named(error: BaseException) -> str:
    text = _line(str(error))
    return shortened(
        f'{type(error).__name__}: {text}' if text else type(error).__name__
    )


def _line(text: str) -> str:
    return ' '.join(text.split())


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    if 'Traceback' not in text:
        return _line(text)
    return lines[-1].strip() if lines else ''
