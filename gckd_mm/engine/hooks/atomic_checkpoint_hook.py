"""Checkpoints that a kill at any moment leaves whole and resumable."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop

import gckd_mm.fileio  # noqa: F401 - registers the backend 'atomic'
from gckd_mm.checkpoint import (
    check_resumable,
    check_state_dict,
    find_last_checkpoint,
    first_non_finite,
    refuse_foreign,
)
from gckd_mm.checkpoint.resume import check_run_state
from gckd_mm.engine.error_messages import check_options_of_saving
from gckd_mm.engine.hooks.checkpoint_selection import (
    check_selection,
    check_settings,
)
from gckd_mm.engine.training_lock import (
    hold_work_dir_on_all_ranks,
    release_work_dir,
)
from gckd_mm.errors import CheckpointError, DivergedError, InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.model_wrapper import unwrapped, without_wrapper
from gckd_mm.registry import HOOKS
from gckd_mm.work_dir import (
    BEGUN,
    POINTER,
    checkpoint_to_resume,
    checkpoints_in,
)

#: in the message hub: checkpoints of this run that are deleted next
_OUTDATED = 'outdated_ckpt_ids'
_FILE_NAME = re.compile(r'[^{}/\\]*\{(:\w+)?\}[^{}/\\]*\.pth')


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, made safe against kills and honest about selection.

    - A checkpoint, and the file ``last_checkpoint``, appear whole or not at all, and an
      older checkpoint is deleted only after the newer one is there.
    - Checkpoints are written when the optimiser has just stepped: sums of accumulated
      gradients are in no state dict.
    - Weights that are not finite are not saved: they would take the place of the last
      good checkpoint.
    - Nothing is deleted that this run did not write: a run that begins afresh where
      another has been leaves the older checkpoints, unless it writes the same names.
    - A training holds its work dir: a second one there is refused. Testing is not.
    - Whatever is loaded must fit the model: resuming wants every key. To resume without
      a path takes what ``last_checkpoint`` names, and fails if that is none although
      there are checkpoints.
    - ``meta['selection']`` of a checkpoint says how it was chosen.

    Args:
        interval: Iterations between checkpoints.
        max_keep_ckpts: How many to keep; -1 keeps all.
        selection: How the checkpoint is chosen: the ``'last'`` iteration (no
            ``save_best``), ``'source_val'`` (``save_best`` names a metric of the
            source's val split) or ``'oracle'``: labels that no one has in deployment
            may choose, by ``save_best`` or by stopping early. Validation on anything
            but the source's val split needs it.
        **kwargs: Further arguments of :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(
        self,
        interval: int = -1,
        max_keep_ckpts: int = 1,
        selection: str = 'last',
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault('by_epoch', False)
        kwargs.setdefault('backend_args', {'backend': 'atomic'})
        if kwargs['by_epoch']:
            raise InputError(
                'AtomicCheckpointHook counts iterations: resuming inside an epoch is '
                'exact only with IterBasedTrainLoop; remove by_epoch=True'
            )
        check_settings(selection, kwargs.get('save_best'))
        for name, number in {
            'interval': interval,
            'max_keep_ckpts': max_keep_ckpts,
        }.items():
            if type(number) is not int:
                raise InputError(
                    f'AtomicCheckpointHook: {name} must be a whole number, got '
                    f'{number!r}'
                )
        _check_keys(kwargs)
        if kwargs.get('out_dir') is not None:
            raise InputError(
                f'AtomicCheckpointHook: out_dir={kwargs["out_dir"]!r}: checkpoints lie '
                f'in the work dir, where --resume finds them: remove out_dir, and name '
                f'the folder with work_dir or --work-dir'
            )
        if kwargs.get('save_best') is not None:
            kwargs.setdefault('rule', 'greater')  # as for all of our metrics
        super().__init__(interval, max_keep_ckpts=max_keep_ckpts, **kwargs)
        self.keep_ckpt_ids: deque[int] = deque()
        self.file_backend: Any = None
        self.selection = selection
        self._due = False
        self._saving_best = False

    def before_run(self, runner: Runner) -> None:
        """Hold the work dir, and find the checkpoint to resume."""
        if not _is_about_to_train(runner):
            return
        hold_work_dir_on_all_ranks(runner.work_dir)
        if runner._resume and runner._load_from is None:
            runner._load_from = checkpoint_to_resume(runner.work_dir)
            runner._resume = runner._load_from is not None

    def after_run(self, runner: Runner) -> None:
        """Let others train in the work dir."""
        release_work_dir(runner.work_dir)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another architecture, and to resume another run."""
        where = str(runner._load_from or 'the checkpoint to load')
        refuse_foreign(checkpoint, where)
        # mmengine, which loads it next, strips the prefix of DDP alone
        if 'state_dict' in checkpoint:
            checkpoint['state_dict'] = without_wrapper(checkpoint['state_dict'])
        if runner._resume:
            check_resumable(checkpoint, where)
        check_state_dict(
            runner.model,
            checkpoint.get('state_dict', checkpoint),
            where=where,
            partial=not runner._resume,
        )
        if runner._resume:
            _check_same_run(runner, checkpoint['meta'])
            check_run_state(
                checkpoint, runner.optim_wrapper, runner.param_schedulers, where
            )

    def before_train(self, runner: Runner) -> None:
        """Find what an interrupted run left behind."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise InputError(
                f'AtomicCheckpointHook needs train_cfg.type IterBasedTrainLoop, got '
                f'{type(runner.train_loop).__name__}: our samplers never end, and so '
                f'would an epoch'
            )
        super().before_train(runner)
        check_selection(runner, self.selection, self.save_best)
        if runner.iter > 0:
            self._adopt(runner)
            # Killed after the checkpoint, before the validation at the same iteration.
            loop = runner.train_loop
            was_due = loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters
            if self.save_best is not None and was_due and loop.iter >= loop.val_begin:
                runner.val_loop.run()
        elif is_main_process():
            self._leave_older_run(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save if due, as soon as the optimiser has stepped."""
        self._due |= self.every_n_train_iters(runner, self.interval, self.save_begin)
        self._due |= self.save_last and self.is_last_train_iter(runner)
        if self._due and runner.optim_wrapper.should_update():
            runner.logger.info(f'Saving checkpoint at {runner.iter + 1} iterations')
            self._save_checkpoint(runner)
            self._due = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write down how this checkpoint was chosen, and of what run it is."""
        model = unwrapped(runner.model)
        spoilt = first_non_finite(model.state_dict(), model)
        if spoilt is not None:
            last_good = find_last_checkpoint(runner.work_dir) or 'none yet'
            raise DivergedError(
                f'iteration {checkpoint["meta"].get("iter")}: {spoilt} is not finite: '
                f'the training has diverged, and this checkpoint is not written. Last '
                f'checkpoint: {last_good}. Lower optim_wrapper.optimizer.lr, or clip '
                f'the gradients with optim_wrapper.clip_grad=dict(max_norm=1.0)'
            )
        by_labels = self._saving_best or self.selection == 'oracle'
        checkpoint['meta']['selection'] = self.selection if by_labels else 'last'
        checkpoint['meta']['global_batch_size'] = _global_batch_size(runner)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        # mmengine saves again after a validation that found a better one.
        if not runner.optim_wrapper.should_update():
            return
        outdated = self._rotate(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = os.path.join(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        saving_best, self._saving_best = self._saving_best, False
        with _naming_what_is_left(runner):
            runner.save_checkpoint(
                self.out_dir,
                filename,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=False,
                backend_args=self.backend_args,
                **self.args,
            )
            self._saving_best = saving_best
            if is_main_process():
                write_atomically(os.path.join(runner.work_dir, POINTER), self.last_ckpt)
                Path(runner.work_dir, BEGUN).unlink(missing_ok=True)
                self._remove(outdated)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        # The parent deletes the previous best before it writes the new one.
        backend: Any = self.file_backend
        deferred = _DeferredRemoval(backend)
        self.file_backend = deferred
        self._saving_best = True
        try:
            with _naming_what_is_left(runner):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
            self._saving_best = False
        current = {runner.message_hub.runtime_info.get('best_ckpt')}
        current |= set(getattr(self, 'best_ckpt_path_dict', {}).values())
        self._remove([path for path in deferred.removed if path not in current])

    def _rotate(self, runner: Runner, step: int) -> list[str]:
        """Note a new checkpoint; return the paths of those that it makes outdated."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return []
        steps = [*self.keep_ckpt_ids, step]
        outdated, kept = steps[: -self.max_keep_ckpts], steps[-self.max_keep_ckpts :]
        self.keep_ckpt_ids = deque(kept)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        # A kill before they are deleted leaves them to the run that resumes this one.
        runner.message_hub.update_info(_OUTDATED, outdated)
        return [self._path(old) for old in outdated]

    def _adopt(self, runner: Runner) -> None:
        """Take up the checkpoints that this run has written so far, and no others."""
        folder = os.path.dirname(runner._load_from)
        elsewhere = os.path.realpath(folder) != os.path.realpath(self.out_dir)
        if elsewhere:  # those lie in the work dir of another run
            self.keep_ckpt_ids = deque()
            runner.message_hub.update_info('keep_ckpt_ids', [])
        elif self.max_keep_ckpts > 0:
            outdated = runner.message_hub.runtime_info.get(_OUTDATED, [])
            steps = {*self.keep_ckpt_ids, *(outdated or [])}
            self.keep_ckpt_ids = deque(
                sorted(step for step in steps if os.path.isfile(self._path(step)))
            )
        best: str | None = getattr(self, 'best_ckpt_path', None)
        if best:
            self.best_ckpt_path = self._own(best, elsewhere)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[key] = self._own(path, elsewhere)

    def _own(self, path: str | None, elsewhere: bool) -> str | None:
        """Return where a file of this run is, whose work dir may have been moved."""
        if path is None or elsewhere:
            return None
        path = os.path.join(self.out_dir, os.path.basename(path))
        return path if os.path.isfile(path) else None

    def _leave_older_run(self, runner: Runner) -> None:
        """Note that this run begins from the beginning, whatever lies in its folder."""
        older = checkpoints_in(runner.work_dir)
        if older:
            runner.logger.warning(
                f'{runner.work_dir} holds {len(older)} checkpoints of an earlier run, '
                f'the newest is {older[0]}. They stay until this run writes files of '
                f'the same names; to continue the earlier run, stop this one and name '
                f'its checkpoint: --resume PATH'
            )
        Path(runner.work_dir, BEGUN).touch()
        # Resuming must not take an older run's checkpoint for one of this.
        self._remove([os.path.join(runner.work_dir, POINTER)])

    def _path(self, step: int) -> str:
        return os.path.join(self.out_dir, self.filename_tmpl.format(step))

    @staticmethod
    def _remove(paths: list[str]) -> None:
        for path in paths:
            if is_main_process() and os.path.isfile(path):
                os.remove(path)


def _is_about_to_train(runner: Runner) -> bool:
    """Tell :meth:`Runner.train` from a test or a validation, which start alike."""
    loop = runner._train_loop
    return isinstance(loop, BaseLoop) and loop.iter < loop.max_iters


@contextmanager
def _naming_what_is_left(runner: Runner) -> Iterator[None]:
    """Say of a checkpoint that could not be written which one is still there."""
    try:
        yield
    except OSError as error:
        last_good = find_last_checkpoint(runner.work_dir) or 'none yet'
        raise InputError(
            f'a checkpoint in {runner.work_dir} could not be written '
            f'({error.strerror or error}). Last good checkpoint: {last_good}. Make '
            f'room or restore the folder, then continue with --resume'
        ) from error


def _check_keys(options: dict[str, Any]) -> None:
    """Refuse what neither mmengine's hook nor its saving knows, before any training."""
    check_options_of_saving('AtomicCheckpointHook', set(options), ['selection'])
    name = options.get('filename_tmpl')
    if name is not None and not _FILE_NAME.fullmatch(str(name)):
        raise InputError(
            f'AtomicCheckpointHook: filename_tmpl must be a file name such as '
            f"'iter_{{}}.pth', with {{}} for the iteration, got {name!r}"
        )


def _global_batch_size(runner: Runner) -> int:
    return (runner.train_dataloader.batch_size or 1) * runner.world_size


def _check_same_run(runner: Runner, meta: dict[str, Any]) -> None:
    current = {'seed': runner.seed, 'global_batch_size': _global_batch_size(runner)}
    for name, value in current.items():
        if meta.get(name, value) != value:
            raise CheckpointError(
                f'the run to resume had {name} {meta[name]}, this one has {value}: '
                f'the result would be that of neither'
            )


class _DeferredRemoval:
    """A file backend that only notes what it is asked to remove."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def remove(self, path: str) -> None:
        self.removed.append(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
