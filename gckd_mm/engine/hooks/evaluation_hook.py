"""Evaluate on test sets while training, without touching the training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.engine.evaluation_guard import evaluating
from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped


class EvaluationHook(Hook, ABC):
    """Base of hooks that evaluate on test sets; a run with one ends with equal weights.

    It evaluates every ``interval`` iterations and after the last one, a model that
    adapts also when the adaptation starts.
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
        self._evaluated: int | None = None

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
        """Show the scores, ``<test set>/<metric>`` -> value, after ``done`` iterations.

        The metrics of ``loop`` hold the embeddings, on the main process.
        """

    def before_train(self, runner: Runner) -> None:
        """Build the test sets, so that a missing file is known now."""
        self._loop = self.build_loop(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Evaluate before the first step of the adaptation."""
        start = getattr(unwrapped(runner.model), 'source_iters', None)
        if runner.iter == start:
            self._evaluate(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Evaluate every ``interval`` iterations, and after the last one."""
        done = runner.iter + 1
        if self.every_n_train_iters(runner, self._interval) or done == runner.max_iters:
            self._evaluate(runner, done)

    def _evaluate(self, runner: Runner, done: int) -> None:
        if self._loop is None or self._evaluated == done:
            return
        self._evaluated = done
        with evaluating(runner.model):
            scores = self._loop.score(call_hooks=False)
            self.show(runner, self._loop, scores, done)
