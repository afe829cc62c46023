"""Draw rank lists and a map of the embeddings while training, to be looked at."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from gckd_mm.datasets.draw import seeded_augmentation
from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.errors import InputError
from gckd_mm.evaluation.metrics import PersonRetrievalMetric
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import HOOKS
from gckd_mm.visualization.embedding_map import (
    COLOURS,
    METHODS,
    Panel,
    draw_embedding_map,
    project,
    require,
    sample_people,
)
from gckd_mm.visualization.figure_files import pixels_of
from gckd_mm.visualization.rank_lists import draw_rank_lists
from gckd_mm.visualization.searched_set import (
    SearchedSet,
    evenly_spaced_rank_lists,
    searched_sets,
)

_FEWEST_POINTS = 20


@HOOKS.register_module()
class VisualizationHook(Hook):
    """Write pictures of the test sets to the backends of the runner's visualizer.

    ``rank_lists`` shows what the same captions find at every look, ``embedding_map``
    the same people's images and captions; each under the iteration.

    **Test sets carry labels, and those of the target are what an adaptation must not
    know.** What is drawn goes to the visualizer alone, and nothing that trains or
    chooses reads it: a run with the hook ends with identical weights. Whoever looks at
    a target's test set must choose nothing by it: no checkpoint, no setting, no end of
    a run. No config of ours has this hook.

    A look is taken every ``interval`` iterations and after the last one, of a model
    that adapts also when the adaptation starts. It embeds all of the test sets.

    Args:
        test_sets: Name -> ``dict(gallery=…, query=…)`` of loader configs. Defaults to
            None: the run's ``test_dataloader``, or else its ``val_dataloader``.
        interval: Iterations between two looks. Defaults to 500.
        num_rank_lists: Captions of each test set, spread evenly over it; 0 draws none.
            Defaults to 4.
        max_points: Of the map; 0 draws none, and at least 20 otherwise. t-SNE of 600
            takes some seconds on a CPU. Defaults to 600.
        method: ``'tsne'`` or ``'umap'``. Defaults to ``'tsne'``.

    Raises:
        InputError: If a number is too small or the method unknown.
    """

    # After the step, and before the checkpoint is written.
    priority = 'LOW'

    def __init__(
        self,
        test_sets: dict[str, dict[str, dict]] | None = None,
        interval: int = 500,
        num_rank_lists: int = 4,
        max_points: int = 600,
        method: str = 'tsne',
    ) -> None:
        if interval < 1 or num_rank_lists < 0:
            raise InputError(
                'VisualizationHook: interval must be at least 1 and num_rank_lists not '
                f'negative, got {interval} and {num_rank_lists}'
            )
        if max_points and max_points < _FEWEST_POINTS:
            raise InputError(
                f'VisualizationHook: max_points must be 0 or at least '
                f'{_FEWEST_POINTS}, got {max_points}'
            )
        if method not in METHODS:
            raise InputError(
                f'VisualizationHook: method must be one of {METHODS}, got {method!r}'
            )
        self._test_sets = test_sets
        self._interval = interval
        self._num_rank_lists = num_rank_lists
        self._max_points = max_points
        self._method = method
        self._loop: RetrievalValLoop | None = None
        self._seen: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Build the test sets, so that whatever is missing is known now.

        Raises:
            InputError: If there are no test sets, more than a map has colours for, or
                if what draws the map is not installed.
        """
        test_sets = self._test_sets or _named_by(runner.cfg)
        if self._max_points:
            require(self._method)
            if len(test_sets) > len(COLOURS):
                raise InputError(
                    f'VisualizationHook: a map shows at most {len(COLOURS)} test sets, '
                    f'got {len(test_sets)}: name some of them in test_sets'
                )
        evaluator = {'type': 'gckd_mm.PersonRetrievalMetric'}
        self._loop = RetrievalValLoop(runner, test_sets, evaluator)

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
        loop = self._loop
        if loop is None or self._seen == done:
            return
        self._seen = done
        training = runner.model.training
        device = next(runner.model.parameters()).device
        devices = [device] if device.type == 'cuda' else []
        with seeded_augmentation(0), torch.random.fork_rng(devices):
            loop.score(call_hooks=False)
            # The main process has the embeddings of all ranks.
            if is_main_process():
                self._show(runner, loop, done)
        runner.model.train(training)

    def _show(self, runner: Runner, loop: RetrievalValLoop, done: int) -> None:
        (metric,) = loop.evaluator.metrics
        embeddings = cast(PersonRetrievalMetric, metric).embeddings
        test_sets = searched_sets(loop.dataloader, embeddings)
        if self._num_rank_lists:
            rank_lists = evenly_spaced_rank_lists(test_sets, self._num_rank_lists)
            image = np.asarray(draw_rank_lists(rank_lists))
            runner.visualizer.add_image('rank_lists', image, step=done)
        if self._max_points:
            image = self._map(test_sets, f'iteration {done}')
            runner.visualizer.add_image('embedding_map', image, step=done)
        runner.logger.info(
            f'Pictures of {", ".join(loop.dataloader)} at {done}, to be looked at '
            f'alone: nothing may be chosen by what a test set of the target shows'
        )

    def _map(self, test_sets: list[SearchedSet], title: str) -> np.ndarray:
        parts = {
            (test_set.name, modality): getattr(test_set, modality)
            for test_set in test_sets
            for modality in ('images', 'captions')
        }
        rows = sample_people(
            {group: part.pids for group, part in parts.items()}, self._max_points
        )
        feats = {group: parts[group].feats[rows[group]] for group in parts}
        positions = project(feats, self._method)
        return pixels_of(draw_embedding_map([Panel(title, positions)]))


def _named_by(cfg: Any) -> dict[str, dict[str, dict]]:
    test_sets = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not test_sets:
        raise InputError(
            'VisualizationHook: the config has neither test_dataloader nor '
            'val_dataloader: name what is to be drawn in test_sets'
        )
    return test_sets
