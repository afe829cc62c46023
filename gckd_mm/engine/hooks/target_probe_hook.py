"""Look at the target's labels while training, without touching the training."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import HOOKS


@HOOKS.register_module()
class TargetProbeHook(Hook):
    """Score labelled target data every few iterations, for the log alone.

    The labels live in this hook's own datasets. Scores go to the log and to the
    visualizer under ``probe/``, and nowhere that a checkpoint, a selection or a
    schedule could read: a run with the probe ends with identical weights.

    A model that adapts is also looked at when the adaptation starts.

    Args:
        test_sets: Name -> ``dict(gallery=…, query=…)`` of loader configs, as in
            ``test_dataloader``.
        evaluator: Config. Defaults to :class:`PersonRetrievalMetric`.
        interval: Iterations between two looks. Defaults to 100.
    """

    priority = 'LOW'

    def __init__(
        self,
        test_sets: dict[str, dict[str, dict]],
        evaluator: dict | None = None,
        interval: int = 100,
    ) -> None:
        self._test_sets = test_sets
        self._evaluator = evaluator or {'type': 'gckd_mm.PersonRetrievalMetric'}
        self._interval = interval
        self._loop: RetrievalValLoop | None = None
        self._seen: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Build the labelled datasets, so that a missing file is known now."""
        self._loop = RetrievalValLoop(runner, self._test_sets, self._evaluator)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Score before the first step of the adaptation."""
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
        """Score every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self._interval):
            self._look(runner, runner.iter + 1)

    def _look(self, runner: Runner, done: int) -> None:
        if self._loop is None or self._seen == done:
            return
        self._seen = done
        with torch.random.fork_rng():
            scores = self._loop.score(call_hooks=False)
        runner.model.train()
        shown = {f'probe/{name}': value for name, value in scores.items()}
        runner.visualizer.add_scalars(shown, step=done)
        runner.logger.info(
            f'Probe (labels of the target, for the log alone) at {done}: '
            + '  '.join(f'{name}: {value:.2f}' for name, value in shown.items())
        )
