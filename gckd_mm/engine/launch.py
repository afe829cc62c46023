"""What the command-line tools share: reading a config, its overrides, clear errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from gckd_mm.engine.error_messages import keys_of, message_of, nearest, shortened
from gckd_mm.errors import InputError

_ADDRESS = re.compile(r'^[A-Za-z][A-Za-z0-9+.-]+://')
#: what mmengine looks at in ``env_cfg``
_ENVIRONMENT = (
    'env_cfg.cudnn_benchmark',
    'env_cfg.dist_cfg.backend',
    'env_cfg.dist_cfg.timeout',
    'env_cfg.dynamo_cache_size',
    'env_cfg.mp_cfg.mp_start_method',
    'env_cfg.mp_cfg.opencv_num_threads',
    'env_cfg.resource_limit',
)
#: launcher -> what it sets in the environment of each process
_SET_BY = {
    'pytorch': ('torchrun', ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')),
    'slurm': ('srun', ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST')),
    'mpi': ('mpirun', ('OMPI_COMM_WORLD_LOCAL_RANK',)),
}


#: ``default_hooks`` that mmengine has of its own
STOCK_HOOKS = (
    'checkpoint',
    'logger',
    'param_scheduler',
    'runtime_info',
    'sampler_seed',
    'timer',
)


def whole_number(text: str) -> int:
    """Read an option that counts, for :mod:`argparse`.

    Raises:
        argparse.ArgumentTypeError: If it is no whole number of at least 0.
    """
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(
            f'must be a whole number from 0 on, got {text!r}'
        )
    return int(text)


class ConfigOptions(DictAction):
    """mmengine's ``KEY=VALUE`` options, with an error that names the wrong one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the options to the namespace."""
        for option in values or ():
            key, separator, _ = option.partition('=')
            if not separator or not key.strip():
                parser.error(
                    f'argument {option_string}: each option is KEY=VALUE without '
                    f'spaces around the =, such as train_cfg.max_iters=100; got '
                    f'{option!r}'
                )
            try:
                super().__call__(parser, namespace, [option], option_string)
            except (AssertionError, ValueError, RecursionError) as error:
                parser.error(f'argument {option_string}: {option!r}: {error}')


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that train and test share, named as in all OpenMMLab tools."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        help='override config keys: a.b=1 c="[x,y]"',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none',
        help='how the processes of a distributed run were started',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def read_config(path: str | os.PathLike[str]) -> Config:
    """Read a config file.

    Raises:
        InputError: If it, or one of its bases, does not exist or cannot be read.
    """
    path = os.fspath(path)
    if _ADDRESS.match(path):
        raise InputError(f'config {path}: only files are read; download it')
    if os.path.isdir(path):
        raise InputError(f'config {path} is a folder: name a .py file')
    if not os.path.isfile(path):
        raise InputError(f'config {path} does not exist')
    try:
        cfg = Config.fromfile(path)
        list(cfg.values())  # imports what a config in pure Python names
    except FileNotFoundError as error:
        raise InputError(f'config {path}: a base is missing ({error})') from error
    except RecursionError as error:
        raise InputError(f'config {path}: a _base_ leads back to it') from error
    # A config is a program of the user's: it can raise anything.
    except Exception as error:
        place = _line_in(path, error)
        text = shortened(' '.join(str(error).split()))
        raise InputError(
            f'config {path}{place}: cannot be read ({type(error).__name__}: {text})'
        ) from error
    return cfg


def _line_in(path: str, error: BaseException) -> str:
    """Return where in a config an error came up, for a message."""
    cause = error if isinstance(error, SyntaxError) else error.__cause__
    if isinstance(cause, SyntaxError) and cause.lineno:
        return f', line {cause.lineno}'
    return ''


def refuse_address(path: Any, what: str) -> None:
    """Refuse ``s3://…`` and the like, which would be taken for a folder.

    Raises:
        InputError: If it is an address.
    """
    if isinstance(path, str) and _ADDRESS.match(path):
        raise InputError(
            f'{what} {path}: must be a local path; download or mount what is there'
        )


def apply_run_options(cfg: Config, arguments: argparse.Namespace, name: str) -> Config:
    """Merge the options of :func:`add_run_options` into a config.

    Args:
        cfg: Changed in place.
        arguments: The parsed command line.
        name: Name of the default work dir below ``work_dirs/``.

    Returns:
        The config.
    """
    merge_options(cfg, arguments.cfg_options)
    cfg.launcher = arguments.launcher
    cfg.work_dir = arguments.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    if isinstance(cfg.work_dir, str):
        cfg.work_dir = os.path.expanduser(cfg.work_dir)
    check_work_dir(cfg.work_dir)
    make_loaders_fit(cfg)
    drop_hooks(cfg)
    if arguments.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
        if not torch.cuda.is_available():
            distribute_over_cpus(cfg)
        _check_launched(arguments.launcher)
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into a config.

    A new key inside a component is left to that component, which refuses what it does
    not know. Of a new key that nothing would ever look at, a warning is printed.

    Args:
        cfg: Changed in place.
        options: Dotted key -> value.

    Raises:
        InputError: If a key leads through something that has no keys.
    """
    for key, value in options.items():
        first = key.split('.')[0]
        known = {*cfg.keys(), *keys_of(Runner)}
        if first not in known:
            print(
                f'warning: --cfg-options {key}: the config has no {first!r}'
                f'{nearest(first, known)}',
                file=sys.stderr,
            )
        elif first == 'env_cfg' and key not in _ENVIRONMENT:
            print(
                f'warning: --cfg-options {key}: nothing looks at it'
                f'{nearest(key, _ENVIRONMENT)}',
                file=sys.stderr,
            )
        try:
            cfg.merge_from_dict({key: value})
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            text = ' '.join(str(error).split())
            raise InputError(
                f'--cfg-options {key}={value}: does not fit the config ({text})'
            ) from error


def check_work_dir(work_dir: Any) -> None:
    """Refuse a work dir that cannot be a folder, before anything is read.

    Raises:
        InputError: If it is an address, a file, or below a file, or cannot be made or
            written to.
    """
    refuse_address(work_dir, 'work dir')
    if not isinstance(work_dir, str | os.PathLike):
        raise InputError(f'work_dir must be a path, got {work_dir!r}')
    path = Path(work_dir)
    reason = None
    for folder in (path, *path.absolute().parents):
        try:
            is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            break
        if not is_folder:
            reason = f'{folder} is not a folder'
        elif not os.access(folder, os.W_OK | os.X_OK):
            reason = f'{folder} cannot be written to'
        break
    if reason:
        raise InputError(
            f'work dir {os.fspath(work_dir)!r}: cannot be used ({reason}). Name '
            f'another with --work-dir'
        )


def check_output(path: str | None) -> None:
    """Refuse a file to write that is a folder, before the hours that fill it.

    Args:
        path: Of the file; None is no file.

    Raises:
        InputError: If it cannot be written.
    """
    if path is None:
        return
    refuse_address(path, 'output')
    if os.path.isdir(path):
        raise InputError(f'{path}: cannot be written (Is a directory): name a file')
    folder = Path(path).absolute().parent
    while not folder.exists():  # they are made when the file is
        folder = folder.parent
    is_new = not os.path.lexists(path)
    if not is_new and not os.path.isfile(path):
        return  # a device, such as /dev/stdout: opening it may do something
    trial = path if folder == Path(path).absolute().parent else str(folder / '.trial')
    try:
        with open(trial, 'ab'):
            pass
        if is_new:
            os.remove(trial)
    except OSError as error:
        raise InputError(
            f'{path}: cannot be written ({error.strerror}): name another file'
        ) from error


def make_loaders_fit(config: Any) -> None:
    """Let ``num_workers=0`` be set alone: torch refuses what concerns workers with it.

    Args:
        config: A config or a part of it, changed in place.
    """
    if isinstance(config, list | tuple):
        for part in config:
            make_loaders_fit(part)
    elif isinstance(config, dict | Config):
        if config.get('num_workers') == 0 and 'dataset' in config:
            for key in ('persistent_workers', 'prefetch_factor', 'timeout'):
                config.pop(key, None)
        for part in config.values():
            make_loaders_fit(part)


def drop_hooks(cfg: Config) -> None:
    """Let ``default_hooks.NAME=None`` switch off any hook, not only mmengine's own.

    Args:
        cfg: Changed in place.
    """
    hooks = cfg.get('default_hooks')
    if isinstance(hooks, dict):
        for name in [name for name, hook in hooks.items() if hook is None]:
            if name not in STOCK_HOOKS:  # which mmengine would put back
                del hooks[name]


def _check_launched(launcher: str) -> None:
    program, names = _SET_BY[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise InputError(
            f'--launcher {launcher}: {", ".join(missing)} is not set: start it with '
            f'{program} (tools/dist_train.sh, tools/slurm_train.sh), or remove '
            f'--launcher for one process'
        )


def distribute_over_cpus(cfg: Config) -> None:
    """Join the other ranks over gloo; mmengine's own start wants a GPU for each.

    Args:
        cfg: Changed in place, so that the model's wrapper asks for no GPU, either.

    Raises:
        InputError: If the launcher does not start its processes as torchrun does.
    """
    if cfg.launcher != 'pytorch':
        raise InputError(
            f'no GPU was found, and without one only --launcher pytorch works, got '
            f'{cfg.launcher!r}'
        )
    _check_launched(cfg.launcher)
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }


def config_name(path: str | os.PathLike[str]) -> str:
    """Return the name of a config: its file's, without the suffix."""
    return Path(path).stem


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with a message instead of a traceback if the user can mend it.

    A context, or with ``@user_errors()`` a decorator.
    """
    try:
        yield
    except BrokenPipeError as error:
        # The reader of a pipe has gone, as `head` does: writing more would fail again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from error
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        raise SystemExit(f'error: {message}') from error
