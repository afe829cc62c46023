"""A source stage and then the adaptation, in one run or branching off another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook, IterTimerHook
from mmengine.runner import Runner
from torch import nn

import gckd_mm.fileio  # noqa: F401 - registers the backend 'atomic'
from gckd_mm.checkpoint import (
    ADAPTATION_STEPS,
    ENCODERS,
    load_weights,
    read_checkpoint,
    refuse_foreign,
    steps_of_teacher,
)
from gckd_mm.engine.loops import TwoStageTrainLoop
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped, without_wrapper
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.registry import HOOKS

#: key in a checkpoint's meta: iterations of the source stage and of the adaptation
STAGES = 'stages'
#: file in the work dir: what the source stage ended with
SOURCE_CHECKPOINT = 'source.pth'
#: what a model must have to be driven
_CONTRACT = (
    'set_stages',
    'set_iteration',
    'start_adaptation',
    'update_teacher',
    'schedules',
)
#: what a source stage trains, and all that the adaptation takes over from it
_SOURCE_MODULES = (*ENCODERS, 'heads')


@HOOKS.register_module()
class AdaptationHook(Hook):
    """Tell the model when the adaptation starts and when its teacher moves.

    The first ``model.source_iters`` iterations are the source stage. The adaptation
    then starts with a fresh teacher, empty memories and an optimiser without state: it
    is a function of the source stage's weights alone. Many adaptations can therefore
    branch off one source stage and end as if each had trained its own. (A dynamic loss
    scale of mixed precision is the one thing that is carried over.)

    What the source stage ends with is kept in the work dir as ``source.pth``, without
    the optimiser: the source-only model of this run, to be tested, and to branch off.

    A run is resumed with its own lengths alone, in either stage: what comes after the
    source stage is part of the learning rates and of the loop. For other lengths,
    begin a new run from ``source.pth``.

    Args:
        source_checkpoint: The weights of a finished source stage, of a run of any
            method. The run then begins with the adaptation, with the data and the
            learning rate of that iteration. What the checkpoint holds beside the
            encoders, the necks, the heads and the vocabulary is left there. Without
            effect on a run that is resumed. Defaults to None: the source stage is part
            of this run.
    """

    # After the seeding of the iteration, and before anything is logged or saved.
    priority = 'HIGH'

    def __init__(self, source_checkpoint: str | None = None) -> None:
        self._source_checkpoint = source_checkpoint

    def before_train(self, runner: Runner) -> None:
        """Check that the model, the data and the loop agree on the two stages."""
        model, loop = unwrapped(runner.model), runner.train_loop
        missing = [name for name in _CONTRACT if not hasattr(model, name)]
        if missing:
            raise InputError(
                f'AdaptationHook: {type(model).__name__} does not adapt (it has no '
                f"{missing[0]}): set model.type='GCKD', or remove the hook"
            )
        if not isinstance(loop, TwoStageTrainLoop):
            raise InputError(
                f"AdaptationHook: set train_cfg=dict(type='TwoStageTrainLoop', "
                f'source_iters=…, adapt_iters=…), got a {type(loop).__name__}'
            )
        counts = runner.optim_wrapper._accumulative_counts
        if model.source_iters % counts:
            raise InputError(
                f'source_iters={model.source_iters} must be a multiple of '
                f'optim_wrapper.accumulative_counts={counts}: the source stage would '
                f'end between two optimiser steps'
            )
        if loop.adapt_iters > 0:
            _check_memories(model, runner.train_dataloader.batch_size)
            _warn_of_small_memories(runner, model)
        elif self._source_checkpoint is not None:
            raise InputError(
                f'source_checkpoint={self._source_checkpoint!r} is to begin with the '
                f'adaptation, but train_cfg.adapt_iters=0 leaves no iteration for it'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Branch off ``source_checkpoint``, unless the run is resumed.

        mmengine calls this after every ``before_train``, in which other hooks must
        still see a fresh run, and before it advances the data.
        """
        if self._source_checkpoint is not None and runner.iter == 0:
            _branch_off(runner, self._source_checkpoint)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Start the adaptation when the source stage is over."""
        model = unwrapped(runner.model)
        model.set_iteration(runner.iter)
        if runner.iter == model.source_iters:
            model.start_adaptation()
            runner.optim_wrapper.optimizer.state.clear()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Keep the end of the source stage; let the teacher follow the student."""
        model = unwrapped(runner.model)
        if runner.iter + 1 == model.source_iters:
            runner.save_checkpoint(
                runner.work_dir,
                SOURCE_CHECKPOINT,
                save_optimizer=False,
                save_param_scheduler=False,
                by_epoch=False,
                backend_args={'backend': 'atomic'},
            )
        if runner.iter >= model.source_iters and runner.optim_wrapper.should_update():
            model.update_teacher()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the stages, and how many adaptation steps the weights have seen."""
        loop: Any = runner.train_loop
        steps = checkpoint['meta']['iter'] - loop.source_iters
        checkpoint['meta'][ADAPTATION_STEPS] = max(0, steps)
        checkpoint['meta'][STAGES] = [loop.source_iters, loop.adapt_iters]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to resume a run of other lengths: its steps would have been others."""
        loop = runner._train_loop
        if not runner._resume or not isinstance(loop, TwoStageTrainLoop):
            return
        given = [loop.source_iters, loop.adapt_iters]
        found = checkpoint['meta'].get(STAGES)
        if found == given:
            return
        done = checkpoint['meta']['iter']
        name = runner._load_from or Path(runner.work_dir) / f'iter_{done}.pth'
        if not (isinstance(found, list) and len(found) == 2):
            raise InputError(
                f'{name}: does not say how long its stages were (as of version 0.1), '
                f'and cannot be resumed; {_how_to_branch(Path(name), None, done)}'
            )
        raise InputError(
            f'{name}: is of a run of {found[0]} + {found[1]} iterations, this one is '
            f'to have {given[0]} + {given[1]}: learning rates and ramps would differ. '
            f'Resume with --source-iters {found[0]} --adapt-iters {found[1]}; '
            f'{_how_to_branch(Path(name), found[0], done)}'
        )


def _how_to_branch(path: Path, source_iters: int | None, done: int) -> str:
    """Return what to do instead of resuming ``path``, for a message."""
    source = path.with_name(SOURCE_CHECKPOINT)
    stages = '' if source_iters is None else f' --source-iters {source_iters}'
    if source_iters is not None and done < source_iters:
        begin = f'when the source stage has ended, begin with {source}'
    elif source.exists():
        begin = 'begin with what the source stage ended with'
    else:
        source = Path(SOURCE_CHECKPOINT)
        begin = 'begin with the source checkpoint that this run began with'
    return (
        f'for an adaptation of another length, {begin}: python tools/train.py CONFIG '
        f'--source-checkpoint {source}{stages} --adapt-iters M'
    )


def _check_memories(model: nn.Module, batch_size: int) -> None:
    pushed = batch_size * get_world_size()
    for name, memory in model.named_modules():
        if isinstance(memory, EmbeddingMemory) and memory.size < pushed:
            part = 'model.' + name.partition('memories')[0]
            raise InputError(
                f'a memory of {memory.size} rows does not hold the batch of all ranks, '
                f"{pushed}: raise {part}memory_size, best to the size of the target's "
                f'train set'
            )


def _warn_of_small_memories(runner: Runner, model: nn.Module) -> None:
    """Say if the target does not fit: captions would be matched with who is left."""
    if getattr(model, 'labels', True) is None:
        return
    dataset = runner.train_dataloader.dataset
    for modality in MODALITIES:
        memories = getattr(model, 'memories', {})
        found = getattr(dataset, f'num_target_{modality}', 0)
        name = f'target_{modality}'
        if name in memories and memories[name].size < found:
            runner.logger.warning(
                f'The memory holds {memories[name].size} of {found} target {modality}. '
                f'Balanced assignment wants all of them: raise model.memory_size, or '
                f'set model.labels.assignment.relaxation'
            )


def _branch_off(runner: Runner, path: str) -> None:
    """Go to where the source stage of ``path`` has ended."""
    model, loop = unwrapped(runner.model), runner.train_loop
    checkpoint = read_checkpoint(path)
    _load_source_stage(model, checkpoint, path)
    loop._iter = model.source_iters
    runner.optim_wrapper.initialize_count_status(
        runner.model, model.source_iters, loop.max_iters
    )
    _advance_schedulers(runner, model.source_iters)
    for hook in runner.hooks:
        if isinstance(hook, IterTimerHook):
            hook.start_iter = model.source_iters  # what it estimates the end from
    trained = checkpoint.get('meta', {}).get('iter', 'an unknown number of')
    runner.logger.info(
        f'The adaptation of {path} ({trained} iterations) begins at iteration '
        f'{model.source_iters}'
    )


def _load_source_stage(model: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    refuse_foreign(checkpoint, path)
    given = without_wrapper(checkpoint.get('state_dict', checkpoint))
    of_teacher = steps_of_teacher(given, path)
    if checkpoint.get('meta', {}).get(ADAPTATION_STEPS, 0) > 0 or of_teacher > 0:
        raise InputError(
            f'{path}: has been adapted already; give what a source stage ended with '
            f'({SOURCE_CHECKPOINT} in the work dir), or a source-only checkpoint'
        )
    student = nn.ModuleDict(
        {
            name: module
            for name, module in model.named_children()
            if name in _SOURCE_MODULES
        }
    )
    weights = {
        key: value
        for key, value in given.items()
        if key.partition('.')[0] in _SOURCE_MODULES
    }
    load_weights(student, {'state_dict': weights}, where=path)


def _advance_schedulers(runner: Runner, iters: int) -> None:
    """Step as often as the iterations have, in their order: the values are chained."""
    wrapper: Any = runner.optim_wrapper
    # The count of the optimiser's steps, by which schedulers tell that they come first.
    wrapper._global_step = iters // wrapper._accumulative_counts - 1
    schedulers = [s for s in runner.param_schedulers or [] if not s.by_epoch]
    for _ in range(iters):
        for scheduler in schedulers:
            scheduler.step()
