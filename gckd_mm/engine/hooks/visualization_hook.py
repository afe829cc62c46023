"""Write figures of rank lists, embeddings and the graph while training."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from gckd_mm.engine.hooks.evaluation_hook import EvaluationHook
from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.errors import InputError
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.models import GCKD
from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.registry import HOOKS
from gckd_mm.visualization.embedding_map import (
    COLOURS,
    METHODS,
    Panel,
    plot_embedding_map,
    project,
    require,
    sample_people,
)
from gckd_mm.visualization.figure_files import pixels_of
from gckd_mm.visualization.graph_figure import plot_propagation_graph
from gckd_mm.visualization.propagation_graph import held_samples, neighbourhood
from gckd_mm.visualization.rank_lists import render_rank_lists
from gckd_mm.visualization.searched_set import (
    SearchedSet,
    evenly_spaced_rank_lists,
    searched_sets,
)

_FEWEST_POINTS = 20


@HOOKS.register_module()
class VisualizationHook(EvaluationHook):
    """Write figures of the test sets to the backends of the runner's visualizer.

    ``rank_lists`` shows what the same captions find at every iteration shown,
    ``embedding_map`` the same people's images and captions, and ``propagation_graph``,
    once a GCKD adapts, the in-edges of some samples of the target.

    **Test sets carry labels, and those of the target are what an adaptation must not
    know.** Nothing that trains or chooses reads the figures: a run with the hook ends
    with identical weights. Choose nothing by those of a target's test set: no
    checkpoint, no setting, no end of a run. No config of ours has this hook.

    Args:
        test_sets: Name -> ``dict(gallery=…, query=…)`` of loader configs. Defaults to
            None: the run's ``test_dataloader``, or else its ``val_dataloader``.
        interval: Iterations between two evaluations.
        num_rank_lists: Captions of each test set, spread evenly over it; may be 0.
        max_points: Of the map; 0 for no map, and at least 20 otherwise. t-SNE of 600
            takes some seconds on a CPU.
        method: ``'tsne'`` or ``'umap'``.
        num_seeds: Samples of the target in the graph whose neighbours are shown; 0 for
            no graph.
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
        """Build the test sets."""
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
        """Write the figures, where the embeddings of all ranks are."""
        if not is_main_process():
            return
        metric: Any = loop.evaluator.metrics[0]
        test_sets = searched_sets(loop.dataloader, metric.embeddings)
        if self._num_rank_lists:
            rank_lists = evenly_spaced_rank_lists(test_sets, self._num_rank_lists)
            image = np.asarray(render_rank_lists(rank_lists))
            runner.visualizer.add_image('rank_lists', image, step=done)
        if self._max_points:
            image = self._map(test_sets, f'iteration {done}')
            runner.visualizer.add_image('embedding_map', image, step=done)
        model = unwrapped(runner.model)
        if self._num_seeds and _propagates(model):
            samples = held_samples(model)
            dataset = runner.train_dataloader.dataset
            shown = neighbourhood(model, dataset, samples, self._num_seeds)
            image = pixels_of(plot_propagation_graph(shown, f'iteration {done}'))
            runner.visualizer.add_image('propagation_graph', image, step=done)
        runner.logger.info(
            f'Figures of {", ".join(loop.dataloader)} at {done}: nothing may be chosen '
            f'by what a test set of the target shows'
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
        return pixels_of(plot_embedding_map([Panel(title, positions)]))


def _propagates(model: Any) -> bool:
    """Return whether a model has a graph, and memories that it leads along."""
    adapts = isinstance(model, GCKD) and model.graph.neck is not None
    return adapts and int(model.teacher.steps) > 0


def _named_by(cfg: Any) -> dict[str, dict[str, dict]]:
    test_sets = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not test_sets:
        raise InputError(
            'VisualizationHook: the config has neither test_dataloader nor '
            'val_dataloader: name the sets to be shown in test_sets'
        )
    return test_sets
