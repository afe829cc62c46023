"""What the command-line tools share: reading a config, its overrides, clear errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from gckd_mm.config_parts import parts_of
from gckd_mm.engine.config_keys import drop_absent_hooks
from gckd_mm.engine.error_messages import keys_of, message_of, nearest, shortened
from gckd_mm.errors import InputError

_ADDRESS = re.compile(r'^[A-Za-z][A-Za-z0-9+.-]+://')
#: what mmengine reads in ``env_cfg``
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


def whole_number(least: int) -> Callable[[str], int]:
    """Return the ``type=`` of an option of argparse that counts from ``least``."""

    def read(text: str) -> int:
        number = int(text) if re.fullmatch(r'[0-9]{1,18}', text) else -1
        if number < least:
            raise argparse.ArgumentTypeError(
                f'must be a whole number of at least {least}, got {text!r}'
            )
        return number

    return read


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
    """Read a config file."""
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
        cause = error if isinstance(error, SyntaxError) else error.__cause__
        line = cause.lineno if isinstance(cause, SyntaxError) else None
        place = f', line {line}' if line else ''
        text = shortened(' '.join(str(error).split()))
        raise InputError(
            f'config {path}{place}: cannot be read ({type(error).__name__}: {text})'
        ) from error
    return cfg


def refuse_address(path: Any, what: str) -> None:
    """Refuse ``s3://…`` and the like, which would be taken for a folder."""
    if isinstance(path, str) and _ADDRESS.match(path):
        raise InputError(
            f'{what} {path}: must be a local path; download or mount what is there'
        )


def apply_run_options(cfg: Config, arguments: argparse.Namespace, name: str) -> Config:
    """Merge the options of :func:`add_run_options` into a config."""
    merge_options(cfg, arguments.cfg_options)
    cfg.launcher = arguments.launcher
    cfg.work_dir = arguments.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    if isinstance(cfg.work_dir, str):
        cfg.work_dir = os.path.expanduser(cfg.work_dir)
    check_work_dir(cfg.work_dir)
    make_loaders_fit(cfg)
    drop_absent_hooks(cfg)
    if arguments.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
        if not torch.cuda.is_available():
            distribute_over_cpus(cfg)
        _check_launched(arguments.launcher)
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into a config.

    A new key inside a component is left to that component, which refuses what it does
    not know. Of a new key that nothing would ever read, a warning is printed.
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
    """Refuse a work dir that cannot be a folder, before anything is read."""
    refuse_address(work_dir, 'work dir')
    if not isinstance(work_dir, str | os.PathLike):
        raise InputError(f'work_dir must be a path, got {work_dir!r}')
    reason = _why_no_folder(Path(work_dir))
    if reason:
        raise InputError(
            f'work dir {os.fspath(work_dir)!r}: cannot be used ({reason}). Name '
            f'another with --work-dir'
        )


def check_output(path: str | None) -> None:
    """Refuse a file that cannot be written, before the hours that fill it.

    A file without a name is written beside it for a trial, and nothing is left.
    """
    if path is None:
        return
    refuse_address(path, 'output')
    reason = None
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            reason = 'Is a directory'
        elif not stat.S_ISREG(mode):
            reason = 'is no regular file'
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
    reason = reason or _why_no_folder(Path(path).absolute().parent)
    if not os.path.basename(path):
        reason = 'Is a directory'
    if reason:
        raise InputError(
            f'{path or "the output"}: cannot be written ({reason}): name a file in a '
            f'folder that can be written to'
        )


def _why_no_folder(path: Path) -> str | None:
    """Return why a folder cannot be written to, or made; None if it can."""
    for folder in (path, *path.absolute().parents):
        try:
            if not stat.S_ISDIR(os.stat(folder).st_mode):
                return f'{folder} is not a folder'
            with tempfile.TemporaryFile(dir=folder):
                return None
        except (FileNotFoundError, NotADirectoryError) as error:
            if os.path.isdir(folder):  # /proc: a folder that takes no files
                return f'{folder} cannot be written to ({error.strerror})'
        except PermissionError:
            return f'{folder} cannot be written to'
        except (OSError, ValueError) as error:
            return getattr(error, 'strerror', None) or str(error)
    return None


def make_loaders_fit(config: Any) -> None:
    """Let ``num_workers=0`` be set alone: torch refuses what is for workers then."""
    for _, part in parts_of(config):
        if part.get('num_workers') == 0 and 'dataset' in part:
            for key in ('persistent_workers', 'prefetch_factor', 'timeout'):
                part.pop(key, None)


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
    """Join the other ranks over gloo; mmengine's own start wants a GPU for each."""
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


@contextmanager
def user_errors() -> Iterator[None]:
    """End the program with a message instead of a traceback if the user can fix it.

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
