"""Train a model: python tools/train.py CONFIG [options]."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from gckd_mm.checkpoint import (
    check_resumable,
    find_last_checkpoint,
    read_checkpoint,
    use_strict_loading,
)
from gckd_mm.engine.launch import (
    add_run_options,
    apply_run_options,
    config_name,
    read_config,
    user_errors,
)
from gckd_mm.errors import InputError


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Train a retriever.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue exactly: from CHECKPOINT, or from the last in the work dir',
    )
    parser.add_argument(
        '--source-checkpoint',
        metavar='CHECKPOINT',
        help='skip the source stage: begin the adaptation with these weights',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision on a GPU: bfloat16 where it has it, else float16',
    )
    parser.add_argument('--seed', type=int, help='overrides randomness.seed')
    parser.add_argument(
        '--tensorboard', action='store_true', help='also write TensorBoard logs'
    )
    add_run_options(parser)
    return parser.parse_args(arguments)


def make_config(arguments: argparse.Namespace) -> Config:
    """Read the config and merge the command line into it.

    Raises:
        InputError: If the config does not exist, ``--amp`` has no GPU to run on, or
            there is no adaptation for ``--source-checkpoint`` to begin with.
    """
    cfg = apply_run_options(
        read_config(arguments.config), arguments, config_name(arguments.config)
    )
    if arguments.amp:
        if not torch.cuda.is_available():
            raise InputError('--amp needs a GPU; remove it to train in float32')
        use_mixed_precision(cfg.optim_wrapper)
    if arguments.tensorboard:
        cfg.visualizer.vis_backends.append({'type': 'TensorboardVisBackend'})
    if arguments.source_checkpoint:
        if 'adaptation' not in cfg.default_hooks:
            raise InputError(
                f'--source-checkpoint: {arguments.config} does not adapt; it has no '
                f'default_hooks.adaptation'
            )
        cfg.default_hooks.adaptation.source_checkpoint = arguments.source_checkpoint
    if arguments.resume:
        resume(cfg, arguments.resume)
    if cfg.get('load_from') or arguments.source_checkpoint:
        skip_pretrained(cfg.model)
    if arguments.seed is not None:
        cfg.merge_from_dict({'randomness.seed': arguments.seed})
    return cfg


def use_mixed_precision(optim_wrapper: dict[str, Any]) -> None:
    """Train in bfloat16 where the GPU has it, else in float16 with a dynamic scale.

    Args:
        optim_wrapper: Its config, changed in place; what it says already stays.
    """
    optim_wrapper['type'] = 'AmpOptimWrapper'
    half = 'bfloat16' if torch.cuda.is_bf16_supported() else 'float16'
    dtype = optim_wrapper.setdefault('dtype', half)
    # bfloat16 has float32's range: nothing to scale
    scale = 1.0 if dtype == 'bfloat16' else 'dynamic'
    optim_wrapper.setdefault('loss_scale', scale)


def resume(cfg: Config, checkpoint: str) -> None:
    """Continue the run of a checkpoint with its seed.

    Args:
        cfg: Changed in place.
        checkpoint: A path; or ``'auto'`` for the last checkpoint in the work dir, with
            a fresh start if there is none.
    """
    if checkpoint == 'auto':
        found = find_last_checkpoint(cfg.work_dir)
        if found is None:
            print(f'no checkpoint in {cfg.work_dir} yet: starting from the beginning')
            return
        checkpoint = found
    cfg.resume = True
    cfg.load_from = checkpoint
    found_run = read_checkpoint(checkpoint)
    check_resumable(found_run, checkpoint)
    cfg.merge_from_dict({'randomness.seed': found_run['meta'].get('seed')})


def skip_pretrained(model: dict[str, Any]) -> None:
    """Leave pretrained weights unread: those of a checkpoint take their place.

    Args:
        model: Its config, changed in place; parts that state no sizes keep theirs.
    """
    for name in ('image_backbone', 'image_neck', 'text_backbone', 'text_neck'):
        part = model.get(name) or {}
        if name.endswith('neck') or 'config' in part:
            part.pop('pretrained', None)
        if (part.get('init_cfg') or {}).get('type') == 'Pretrained':
            part.pop('init_cfg')


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    with user_errors():
        use_strict_loading()
        runner = Runner.from_cfg(make_config(parse_arguments(arguments)))
        # Asking for the loops builds them with their datasets: whatever is missing is
        # known now, and not after hours of training.
        for _ in (runner.train_loop, runner.val_loop, runner.test_loop):
            pass
        runner.train()


if __name__ == '__main__':
    main()
