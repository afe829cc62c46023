"""Score the target by its labels while training, without touching the training."""

from __future__ import annotations

from mmengine.runner import Runner

from gckd_mm.engine.hooks.evaluation_hook import EvaluationHook
from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.registry import HOOKS


@HOOKS.register_module()
class TargetProbeHook(EvaluationHook):
    """Score labelled target data every few iterations, for the log alone.

    The labels live in this hook's own datasets. Scores go to the log and to the
    visualizer under ``probe/``, and nowhere that a checkpoint, a selection or a
    schedule could read: a run with the probe ends with identical weights. When it
    scores: see :class:`EvaluationHook`.

    Args:
        test_sets: Name -> ``dict(gallery=…, query=…)`` of loader configs, as in
            ``test_dataloader``.
        evaluator: Config. Defaults to :class:`PersonRetrievalMetric`.
        interval: Iterations between two evaluations.
    """

    def __init__(
        self,
        test_sets: dict[str, dict[str, dict]],
        evaluator: dict | None = None,
        interval: int = 100,
    ) -> None:
        super().__init__(interval)
        self._test_sets = test_sets
        self._evaluator = evaluator or {'type': 'gckd_mm.PersonRetrievalMetric'}

    def build_loop(self, runner: Runner) -> RetrievalValLoop:
        """Build the labelled datasets."""
        return RetrievalValLoop(runner, self._test_sets, self._evaluator)

    def show(
        self,
        runner: Runner,
        loop: RetrievalValLoop,
        scores: dict[str, float],
        done: int,
    ) -> None:
        """Log the scores."""
        shown = {f'probe/{name}': value for name, value in scores.items()}
        runner.visualizer.add_scalars(shown, step=done)
        runner.logger.info(
            f'Probe (labels of the target, for the log alone) at {done}: '
            + '  '.join(f'{name}: {value:.2f}' for name, value in shown.items())
        )
