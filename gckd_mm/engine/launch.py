"""What the command-line tools share: reading a config, its overrides, clear errors."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, DictAction

from gckd_mm.errors import InputError


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that train and test share, named as in all OpenMMLab tools."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
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
        InputError: If it, or one of its bases, does not exist.
    """
    if not os.path.isfile(path):
        raise InputError(f'config {path} does not exist')
    try:
        return Config.fromfile(path)
    except FileNotFoundError as error:
        raise InputError(f'config {path}: a base is missing ({error})') from error


def apply_run_options(cfg: Config, arguments: argparse.Namespace, name: str) -> Config:
    """Merge the options of :func:`add_run_options` into a config.

    Args:
        cfg: Changed in place.
        arguments: The parsed command line.
        name: Name of the default work dir below ``work_dirs/``.

    Returns:
        The config.
    """
    cfg.merge_from_dict(arguments.cfg_options)
    cfg.launcher = arguments.launcher
    cfg.work_dir = arguments.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    if arguments.launcher != 'none':
        os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
        if not torch.cuda.is_available():
            distribute_over_cpus(cfg)
    return cfg


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
    """End the program with a message instead of a traceback if the user can mend it."""
    try:
        yield
    except InputError as error:
        # A loader's worker hands its error over with its traceback in the message.
        message = re.split(r'gckd_mm\.errors\.\w+: ', str(error))[-1].rstrip()
        raise SystemExit(f'error: {message}') from error
    except TypeError as error:
        if 'unexpected keyword argument' not in str(error):
            raise
        raise SystemExit(f'error: a config key does not exist: {error}') from error
    except KeyError as error:
        # mmengine's registries: a type that does not exist.
        message = str(error.args[0]) if error.args else ''
        if 'registry' not in message:
            raise
        raise SystemExit(f'error: {message.split(" More details")[0]}') from error
