"""Small training runs for the tests, in this process or in fresh ones."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import gckd_mm  # noqa: F401
from gckd_mm.checkpoint import use_strict_loading
from gckd_mm.engine.launch import distribute_over_cpus

ROOT = Path(__file__).parents[1]
SMALL_MODEL = {
    'model.image_backbone.channels': (8, 16, 16),
    'model.image_neck.in_channels': 16,
    'model.image_neck.out_channels': 16,
    'model.text_backbone.channels': 16,
    'model.text_neck.in_channels': 16,
    'model.text_neck.out_channels': 16,
}


def small_config(data: Path, work_dir: Path, **overrides: Any) -> Config:
    """A baseline's config, made small: 8 iterations of 8 pairs, a checkpoint every 2.

    Args:
        data: Folder of the miniature datasets.
        work_dir: Work dir.
        **overrides: Config keys, with ``__`` for a dot.
    """
    cfg = Config.fromfile(ROOT / 'configs/baselines/source_only_tiny_cuhk2rstp.py')
    source, target = str(data / 'cuhk_pedes'), str(data / 'rstpreid')
    cfg.merge_from_dict(
        {
            **SMALL_MODEL,
            'work_dir': str(work_dir),
            'train_dataloader.dataset.data_root': source,
            'train_dataloader.batch_size': 8,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_cfg.max_iters': 8,
            'default_hooks.checkpoint.interval': 2,
            'log_level': 'ERROR',
            **{
                f'test_dataloader.{name}.{role}.{key}': value
                for name, root in (('cuhk_pedes', source), ('rstpreid', target))
                for role in ('gallery', 'query')
                for key, value in (('dataset.data_root', root), ('num_workers', 0))
            },
        }
    )
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6)
    ]
    cfg.merge_from_dict(
        {key.replace('__', '.'): value for key, value in overrides.items()}
    )
    return cfg


def small_gckd_config(data: Path, work_dir: Path, **overrides: Any) -> Config:
    """GCKD's config, made small: 3 iterations on CUHK-PEDES, 5 of adaptation to RSTP.

    Every part keeps its shipped settings but for sizes and lengths.

    Args:
        data: Folder of the miniature datasets.
        work_dir: Work dir.
        **overrides: Config keys, with ``__`` for a dot.
    """
    cfg = small_config(data, work_dir)
    shipped = Config.fromfile(ROOT / 'configs/gckd/gckd_street2mall.py')
    source = cfg.train_dataloader.dataset
    target = dict(source, type='RSTPReid', data_root=str(data / 'rstpreid'))
    cfg.train_dataloader.dataset = dict(
        shipped.train_dataloader.dataset, source=source, target=target
    )
    cfg.train_dataloader.sampler = shipped.train_dataloader.sampler
    cfg.train_cfg = dict(shipped.train_cfg, source_iters=3, adapt_iters=5)
    *_, adaptation_lr = shipped.param_scheduler
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False),
        dict(adaptation_lr, warmup=0.4),
    ]
    cfg.merge_from_dict(
        {
            'model': shipped.model,
            'default_hooks': {
                name: shipped.default_hooks[name]
                for name in ('adaptation', 'finite_loss')
            },
            'find_unused_parameters': shipped.find_unused_parameters,
        }
    )
    cfg.merge_from_dict(
        {
            **SMALL_MODEL,
            'model.embedding_size': 16,
            'model.memory_size': 64,
            'model.graph.refresh': 2,
            'model.labels.refresh': 2,
            'model.labels.candidates': 8,
            'model.loss_weights.distill.length': 0.4,
            'model.loss_weights.consistency.length': 0.4,
            **{key.replace('__', '.'): value for key, value in overrides.items()},
        }
    )
    return cfg


def train(cfg: Config) -> Runner:
    """Train in this process."""
    torch.set_num_threads(1)
    use_strict_loading()
    if cfg.get('launcher', 'none') != 'none':
        distribute_over_cpus(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def last_checkpoint(work_dir: Path) -> Path:
    """Return what ``last_checkpoint`` names."""
    return Path((work_dir / 'last_checkpoint').read_text())


@HOOKS.register_module()
class KillHook(Hook):
    """Kill the process in iteration ``at``, before or after the training step."""

    def __init__(self, at: int, after: bool = False) -> None:
        self.at = at
        self.after = after

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not self.after and runner.iter == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if self.after and runner.iter == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class KillInValHook(Hook):
    """Kill the process in the validation after iteration ``at``."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(module: Any, name: str, number: int) -> None:
    """Kill this process at the ``number``-th call of ``module.name``."""
    original, calls = getattr(module, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(module, name, counted)


_CONTEXT = multiprocessing.get_context('forkserver')
# The imports cost seconds; the server makes them once for all processes.
_CONTEXT.set_forkserver_preload(
    ['tests.training', 'mmpretrain.datasets', 'mmcv', 'matplotlib.backends.backend_agg']
)


def in_process(function: Callable[..., None], *args: Any, timeout: float = 120) -> int:
    """Call a function in a fresh process; return its exit code (−9: killed)."""
    process = _CONTEXT.Process(target=function, args=args)
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f'{function.__name__} ran longer than {timeout} s')
    assert process.exitcode is not None
    return process.exitcode


def on_ranks(function: Callable[..., None], world_size: int, *args: Any) -> None:
    """Call ``function(*args)`` on each of ``world_size`` gloo ranks, and wait."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = [
        _CONTEXT.Process(target=_on_rank, args=(function, rank, world_size, port, args))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * world_size, f'exit codes of the ranks: {codes}'


def _on_rank(
    function: Callable[..., None], rank: int, world_size: int, port: int, args: Any
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    function(*args)
