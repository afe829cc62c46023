"""Checkpoints that a kill at any moment leaves whole and resumable."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop, Runner

import gckd_mm.fileio  # noqa: F401 - registers the backend 'atomic'
from gckd_mm.checkpoint import check_state_dict
from gckd_mm.errors import InputError
from gckd_mm.fileio import write_atomically
from gckd_mm.registry import HOOKS

SELECTIONS = ('last', 'source_val', 'oracle')


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, made safe against kills and honest about selection.

    - A checkpoint, and the file ``last_checkpoint``, appear whole or not at all, and an
      older checkpoint is deleted only after the newer one is there.
    - Checkpoints are written when the optimiser has just stepped: sums of accumulated
      gradients are in no state dict.
    - Whatever is loaded must fit the model: resuming wants every key.
    - ``meta['selection']`` of a checkpoint says how it was chosen.

    Args:
        interval: Iterations between checkpoints.
        max_keep_ckpts: How many to keep; -1 keeps all. Defaults to 1.
        selection: How the checkpoint is chosen: the ``'last'`` iteration (no
            ``save_best``), ``'source_val'`` (``save_best`` names a metric of the
            source's val split) or ``'oracle'`` (of the target's labelled test split,
            which no one has in deployment). Defaults to ``'last'``.
        **kwargs: Further arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        InputError: If ``selection`` and ``save_best`` contradict each other, or if a
            test split would select without being called ``'oracle'``.
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
        if selection not in SELECTIONS:
            raise InputError(
                f'selection must be one of {SELECTIONS}, got {selection!r}'
            )
        if (selection == 'last') != (kwargs.get('save_best') is None):
            raise InputError(
                f'selection={selection!r} and save_best={kwargs.get("save_best")!r} '
                f"contradict each other: name a metric for 'source_val' and 'oracle', "
                f"none for 'last'"
            )
        super().__init__(interval, max_keep_ckpts=max_keep_ckpts, **kwargs)
        self.keep_ckpt_ids: deque[int] = deque()
        self.file_backend: Any = None
        self.selection = selection
        self._due = False
        self._saving_best = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another architecture.

        Raises:
            CheckpointError: See :func:`gckd_mm.checkpoint.check_state_dict`.
        """
        check_state_dict(
            runner.model,
            checkpoint.get('state_dict', checkpoint),
            where='the checkpoint to load',
            partial=not runner._resume,
        )

    def before_train(self, runner: Runner) -> None:
        """Find what an interrupted run left behind.

        Raises:
            InputError: If the train loop counts epochs, or if the selection
                contradicts the validation data.
        """
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise InputError(
                f'AtomicCheckpointHook needs train_cfg.type IterBasedTrainLoop, got '
                f'{type(runner.train_loop).__name__}: our samplers never end, and so '
                f'would an epoch'
            )
        super().before_train(runner)
        if self.save_best is not None:
            self._check_selection(runner)
        if runner.iter > 0:
            self._adopt_orphans(runner)
            # Killed after the checkpoint, before the validation at the same iteration.
            loop = runner.train_loop
            if self.save_best is not None and runner.iter % loop.val_interval == 0:
                runner.val_loop.run()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Save if due, as soon as the optimiser has stepped."""
        self._due |= self.every_n_train_iters(runner, self.interval, self.save_begin)
        self._due |= self.save_last and self.is_last_train_iter(runner)
        if self._due and runner.optim_wrapper.should_update():
            runner.logger.info(f'Saving checkpoint at {runner.iter + 1} iterations')
            self._save_checkpoint(runner)
            self._due = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write down how this checkpoint was chosen."""
        chosen = self.selection if self._saving_best else 'last'
        checkpoint['meta']['selection'] = chosen

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        outdated = self._rotate(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = os.path.join(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        saving_best, self._saving_best = self._saving_best, False
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
            write_atomically(
                os.path.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt
            )
            self._remove(outdated)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        # The parent deletes the previous best before it writes the new one.
        backend: Any = self.file_backend
        deferred = _DeferredRemoval(backend)
        self.file_backend = deferred
        self._saving_best = True
        try:
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
        return [self._path(old) for old in outdated]

    def _adopt_orphans(self, runner: Runner) -> None:
        """Take up older checkpoints that a kill kept from being deleted."""
        if self.max_keep_ckpts <= 0:
            return
        prefix, suffix = self.filename_tmpl.split('{}')
        found = [
            int(name[len(prefix) : -len(suffix)])
            for name in os.listdir(self.out_dir)
            if name.startswith(prefix)
            and name.endswith(suffix)
            and name[len(prefix) : -len(suffix)].isdigit()
        ]
        self.keep_ckpt_ids = deque(
            sorted({step for step in found if step <= runner.iter})
        )

    def _check_selection(self, runner: Runner) -> None:
        if runner.val_loop is None:
            raise InputError('save_best needs a val_dataloader')
        for name, loaders in runner.val_loop.dataloader.items():
            split = getattr(loaders['query'].dataset, 'split', None)
            if split == 'test' and self.selection != 'oracle':
                raise InputError(
                    f'val_dataloader {name!r} is a test split: choosing a checkpoint '
                    f"by it must be called selection='oracle', got {self.selection!r}"
                )

    def _path(self, step: int) -> str:
        return os.path.join(self.out_dir, self.filename_tmpl.format(step))

    @staticmethod
    def _remove(paths: list[str]) -> None:
        for path in paths:
            if is_main_process() and os.path.isfile(path):
                os.remove(path)


class _DeferredRemoval:
    """A file backend that only notes what it is told to remove."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def remove(self, path: str) -> None:
        self.removed.append(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
