"""Draw rank lists and a map of the embeddings while training, to be looked at."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from gckd_mm.engine.hooks.retrieval_look_hook import RetrievalLookHook
from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.errors import InputError
from gckd_mm.evaluation.metrics import PersonRetrievalMetric
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.models import GCKD
from gckd_mm.models.gckd.relations import MODALITIES
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
from gckd_mm.visualization.graph_picture import draw_propagation_graph
from gckd_mm.visualization.propagation_graph import held_samples, neighbourhood
from gckd_mm.visualization.rank_lists import draw_rank_lists
from gckd_mm.visualization.searched_set import (
    SearchedSet,
    evenly_spaced_rank_lists,
    searched_sets,
)

_FEWEST_POINTS = 20


@HOOKS.register_module()
class VisualizationHook(RetrievalLookHook):
    """Write pictures of the test sets to the backends of the runner's visualizer.

    ``rank_lists`` shows what the same captions find at every look, ``embedding_map``
    the same people's images and captions, and ``propagation_graph``, once a GCKD
    adapts, what some samples of the target hear; each under the iteration.

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
        num_seeds: Samples of the target in the graph whose neighbours are shown; 0
            draws none. Defaults to 8.

    Raises:
        InputError: If a number is too small or the method unknown.
    """

    def __init__(
        self,
        test_sets: dict[str, dict[str, dict]] | None = None,
        interval: int = 500,
        num_rank_lists: int = 4,
        max_points: int = 600,
        method: str = 'tsne',
        num_seeds: int = 8,
    ) -> None:
        super().__init__(interval)
        if min(num_rank_lists, num_seeds) < 0:
            raise InputError(
                'VisualizationHook: num_rank_lists and num_seeds must not be negative, '
                f'got {num_rank_lists} and {num_seeds}'
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
        self._num_rank_lists = num_rank_lists
        self._max_points = max_points
        self._method = method
        self._num_seeds = num_seeds

    def build_loop(self, runner: Runner) -> RetrievalValLoop:
        """Build the test sets.

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
        return RetrievalValLoop(runner, test_sets, evaluator)

    def show(
        self,
        runner: Runner,
        loop: RetrievalValLoop,
        scores: dict[str, float],
        done: int,
    ) -> None:
        """Draw, where the embeddings of all ranks are."""
        if not is_main_process():
            return
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
        model = unwrapped(runner.model)
        if self._num_seeds and _propagates(model):
            samples = held_samples(model)
            dataset = runner.train_dataloader.dataset
            shown = neighbourhood(model, dataset, samples, self._num_seeds)
            image = pixels_of(draw_propagation_graph(shown, f'iteration {done}'))
            runner.visualizer.add_image('propagation_graph', image, step=done)
        runner.logger.info(
            f'Pictures of {", ".join(loop.dataloader)} at {done}, to be looked at '
            f'alone: nothing may be chosen by what a test set of the target shows'
        )

    def _map(self, test_sets: list[SearchedSet], title: str) -> np.ndarray:
        parts = {
            (test_set.name, modality): getattr(test_set, modality)
            for test_set in test_sets
            for modality in MODALITIES
        }
        rows = sample_people(
            {group: part.pids for group, part in parts.items()}, self._max_points
        )
        feats = {group: parts[group].feats[rows[group]] for group in parts}
        positions = project(feats, self._method)
        return pixels_of(draw_embedding_map([Panel(title, positions)]))


def _propagates(model: Any) -> bool:
    """Return whether a model has a graph, and memories that it leads along."""
    adapts = isinstance(model, GCKD) and model.graph.neck is not None
    return adapts and int(model.teacher.steps) > 0


def _named_by(cfg: Any) -> dict[str, dict[str, dict]]:
    test_sets = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not test_sets:
        raise InputError(
            'VisualizationHook: the config has neither test_dataloader nor '
            'val_dataloader: name what is to be drawn in test_sets'
        )
    return test_sets
