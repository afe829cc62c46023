"""Embed test sets while training, without touching the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.datasets.draw import seeded_augmentation
from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped


class RetrievalLookHook(Hook, ABC):
    """Base of hooks that look at test sets, and that no run notices.

    A look is taken every ``interval`` iterations and after the last one, of a model
    that adapts also when the adaptation starts. Random generators and the model's mode
    are afterwards what they were: a run with the hook ends with identical weights.

    Args:
        interval: Iterations between two looks.

    Raises:
        InputError: If ``interval`` is below 1.
    """

    # After the step, and before the checkpoint is written.
    priority = 'LOW'

    def __init__(self, interval: int) -> None:
        if interval < 1:
            raise InputError(
                f'{type(self).__name__}: interval must be at least 1, got {interval}'
            )
        self._interval = interval
        self._loop: RetrievalValLoop | None = None
        self._seen: int | None = None

    @abstractmethod
    def build_loop(self, runner: Runner) -> RetrievalValLoop:
        """Build the test sets and what scores them."""

    @abstractmethod
    def show(
        self,
        runner: Runner,
        loop: RetrievalValLoop,
        scores: dict[str, float],
        done: int,
    ) -> None:
        """Show what was seen.

        Args:
            runner: Of the run.
            loop: Its metrics hold the embeddings, on the main process.
            scores: ``<test set>/<metric>`` -> value.
            done: Iterations that have been trained.
        """

    def before_train(self, runner: Runner) -> None:
        """Build the test sets, so that a missing file is known now."""
        self._loop = self.build_loop(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Look before the first step of the adaptation."""
        start = getattr(unwrapped(runner.model), 'source_iters', None)
        if runner.iter == start:
            self._look(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Look every ``interval`` iterations, and after the last one."""
        done = runner.iter + 1
        if self.every_n_train_iters(runner, self._interval) or done == runner.max_iters:
            self._look(runner, done)

    def _look(self, runner: Runner, done: int) -> None:
        if self._loop is None or self._seen == done:
            return
        self._seen = done
        training = runner.model.training
        device = next(runner.model.parameters()).device
        devices = [device] if device.type == 'cuda' else []
        with seeded_augmentation(0), torch.random.fork_rng(devices):
            scores = self._loop.score(call_hooks=False)
            self.show(runner, self._loop, scores, done)
        runner.model.train(training)
