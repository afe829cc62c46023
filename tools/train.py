"""Train a model: python tools/train.py CONFIG [options]."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from gckd_mm.checkpoint import check_resumable, read_checkpoint, use_strict_loading
from gckd_mm.engine.config_checks import check_training, check_training_data
from gckd_mm.engine.direction import add_direction_options, turned
from gckd_mm.engine.launch import (
    add_run_options,
    apply_run_options,
    read_config,
    refuse_address,
    user_errors,
)
from gckd_mm.engine.loops.two_stage_loop import check_lengths
from gckd_mm.engine.training_lock import hold_work_dir, release_work_dir
from gckd_mm.errors import CheckpointError, InputError
from gckd_mm.registry import type_name
from gckd_mm.work_dir import checkpoint_to_resume, other_checkpoints


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
        '--source-iters',
        type=int,
        metavar='N',
        help='iterations on the source alone; overrides train_cfg.source_iters',
    )
    parser.add_argument(
        '--adapt-iters',
        type=int,
        metavar='N',
        help='iterations of the adaptation; overrides train_cfg.adapt_iters',
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
    add_direction_options(parser)
    add_run_options(parser)
    return parser.parse_args(arguments)


def make_config(arguments: argparse.Namespace) -> Config:
    """Read the config and merge the command line into it.

    Raises:
        InputError: If the config does not exist or cannot be trained with, ``--amp``
            has no GPU to run on, or there is no adaptation for ``--source-checkpoint``
            to begin with.
        CheckpointError: If there is no telling what to resume.
    """
    cfg = turned(read_config(arguments.config), arguments.source, arguments.target)
    apply_run_options(cfg, arguments, Path(cfg.filename).stem)
    if arguments.amp:
        if not torch.cuda.is_available():
            raise InputError('--amp needs a GPU; remove it to train in float32')
        use_mixed_precision(cfg.setdefault('optim_wrapper', {}))
    if arguments.tensorboard:
        visualizer = cfg.setdefault('visualizer', {'type': 'Visualizer'})
        visualizer.setdefault('vis_backends', []).append(
            {'type': 'TensorboardVisBackend'}
        )
    set_stages(cfg, arguments)
    if arguments.source_checkpoint:
        refuse_address(arguments.source_checkpoint, '--source-checkpoint')
        if 'adaptation' not in cfg.get('default_hooks', {}):
            raise InputError(
                f'--source-checkpoint: {arguments.config} does not adapt; it has no '
                f'default_hooks.adaptation'
            )
        cfg.default_hooks.adaptation.source_checkpoint = arguments.source_checkpoint
    if arguments.resume:
        resume(cfg, arguments.resume)
    if cfg.get('load_from') or arguments.source_checkpoint:
        skip_pretrained(cfg.get('model') or {})
    if arguments.seed is not None:
        cfg.merge_from_dict({'randomness.seed': arguments.seed})
    return cfg


def set_stages(cfg: Config, arguments: argparse.Namespace) -> None:
    """Set the lengths of the two stages that the command line gives.

    Raises:
        InputError: If the config does not adapt, or a length makes no sense.
    """
    train_cfg = cfg.get('train_cfg') or {}
    stages = ('source_iters', 'adapt_iters')
    given = {name: getattr(arguments, name) for name in stages}
    given = {name: value for name, value in given.items() if value is not None}
    if not isinstance(train_cfg, dict):
        return  # which check_training refuses
    if 'adapt_iters' in train_cfg:
        train_cfg.update(given)
        check_lengths(train_cfg)
    elif given:
        raise InputError(
            f'--{next(iter(given)).replace("_", "-")}: {arguments.config} does not '
            f'adapt; set train_cfg.max_iters instead'
        )


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
            a fresh start if none has been written there yet.

    Raises:
        CheckpointError: If the checkpoint cannot be read; names the others beside it.
            See also :func:`gckd_mm.work_dir.checkpoint_to_resume`.
    """
    if checkpoint == 'auto':
        found = checkpoint_to_resume(cfg.work_dir)
        if found is None:
            print(
                f'the last run in {cfg.work_dir}, if any, has written no checkpoint: '
                f'starting from the beginning'
            )
            return
        checkpoint = found
    refuse_address(checkpoint, '--resume')
    if os.path.isdir(checkpoint):
        found = checkpoint_to_resume(checkpoint)
        raise CheckpointError(
            f'--resume {checkpoint}: is a folder; '
            + (f'its last checkpoint is {found}' if found else 'it has no checkpoint')
        )
    try:
        found_run = read_checkpoint(checkpoint)
        check_resumable(found_run, checkpoint)
    except CheckpointError as error:
        others = other_checkpoints(checkpoint)
        if not others:
            raise
        raise CheckpointError(
            f'{error}. Other checkpoints there (newest first): {others}'
        ) from error
    cfg.resume = True
    cfg.load_from = checkpoint
    cfg.merge_from_dict({'randomness.seed': found_run['meta'].get('seed')})


def skip_pretrained(model: dict[str, Any]) -> None:
    """Leave pretrained weights unread: those of a checkpoint take their place.

    Args:
        model: Its config, changed in place; parts that state no sizes keep theirs.
    """
    # mmengine registers PretrainedInit under a name of its own
    pretrained = ('Pretrained', 'PretrainedInit')
    for name in ('image_backbone', 'image_neck', 'text_backbone', 'text_neck'):
        part = model.get(name) or {}
        if name.endswith('neck') or 'config' in part:
            part.pop('pretrained', None)
        if type_name((part.get('init_cfg') or {}).get('type')) in pretrained:
            part.pop('init_cfg')


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    options = parse_arguments(arguments)
    use_strict_loading()
    cfg = make_config(options)
    check_training(cfg, options.config)
    if options.launcher == 'none':  # else the hook does, which knows the ranks
        hold_work_dir(cfg.work_dir)
    try:
        runner = Runner.from_cfg(cfg)
        # Asking for the loops builds them with their datasets: whatever is missing is
        # known now, and not after hours of training.
        for _ in (runner.train_loop, runner.val_loop, runner.test_loop):
            pass
        check_training_data(runner)
        runner.train()
    finally:
        release_work_dir(cfg.work_dir)


if __name__ == '__main__':
    main()
