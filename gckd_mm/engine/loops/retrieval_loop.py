"""Validation and test loops over several named test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor
from torch.utils.data import DataLoader

from gckd_mm.errors import InputError
from gckd_mm.evaluation.metrics import PersonRetrievalMetric
from gckd_mm.evaluation.metrics.person_retrieval_metric import (
    no_match_message,
    num_unmatched,
)
from gckd_mm.model_wrapper import unwrapped
from gckd_mm.registry import LOOPS

ROLES = ('gallery', 'query')


class TestSets(dict[str, dict[str, DataLoader]]):
    """Name -> gallery and query loaders. Its length is the number of batches in all.

    mmengine's log processor and timers ask a loop's ``dataloader`` for that length.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    def __len__(self) -> int:
        return sum(len(self[name][role]) for name in self for role in ROLES)

    def batches(self, name: str) -> Iterator[Any]:
        """Yield the batches of one test set, the gallery first."""
        for role in ROLES:
            yield from self[name][role]

    def num_samples(self, name: str) -> int:
        """Return how many images and captions one test set has."""
        datasets: list[Any] = [self[name][role].dataset for role in ROLES]
        return sum(map(len, datasets))


class _RetrievalLoop(BaseLoop):
    """Embed the gallery and the queries of every test set once, then score each set.

    Args:
        runner: The runner.
        dataloader: Name of the test set -> ``dict(gallery=…, query=…)`` of loader
            configs, whose datasets show images and captions.
        evaluator: Config of the metrics; each is computed per test set and reported as
            ``<test set>/<metric>``.
        fp16: Whether to embed under autocast.
    """

    stage = 'val'

    def __init__(
        self,
        runner: Runner,
        dataloader: dict[str, dict[str, dict]],
        evaluator: dict | list | Evaluator,
        fp16: bool = False,
    ) -> None:
        # Not BaseLoop's: it would build the whole dict as one dataloader.
        self._runner = runner
        if not isinstance(dataloader, dict) or not dataloader:
            raise InputError(
                f'{self.stage}_dataloader must be dict(NAME=dict(gallery=…, query=…)), '
                f'got {dataloader!r}'
            )
        self.dataloader = TestSets(
            {
                str(name): _build_loaders(runner, str(name), loaders, self.stage)
                for name, loaders in dataloader.items()
            }
        )
        self.evaluator = runner.build_evaluator(evaluator)
        self.fp16 = fp16

    def run(self) -> dict[str, float]:
        """Score all test sets, calling the runner's hooks as mmengine's loops do."""
        self.runner.call_hook(f'before_{self.stage}')
        self.runner.call_hook(f'before_{self.stage}_epoch')
        metrics = self.score()
        self.runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.stage}')
        return metrics

    @torch.no_grad()
    def score(self, call_hooks: bool = True) -> dict[str, float]:
        """Score all test sets."""
        self.runner.model.eval()
        self._connect_matching()
        metrics = {}
        batch_idx = 0
        for name in self.dataloader:
            self.evaluator.dataset_meta = {'test_set': name}
            for data_batch in self.dataloader.batches(name):
                self._run_iter(batch_idx, data_batch, call_hooks)
                batch_idx += 1
            scores = self.evaluator.evaluate(self.dataloader.num_samples(name))
            metrics.update({f'{name}/{key}': value for key, value in scores.items()})
        return metrics

    def _connect_matching(self) -> None:
        """Let the metrics that re-rank call the matching head of the model."""
        model = unwrapped(self.runner.model)
        asking = [
            metric
            for metric in self.evaluator.metrics
            if isinstance(metric, PersonRetrievalMetric) and metric.asks_matcher
        ]
        if getattr(model, 'matching', None) is not None:
            model.keep_tokens = bool(asking)
        elif asking:
            raise InputError(
                'rerank (--rerank) needs a model with a matching head, which '
                f"{type(model).__name__} has not: train it with type='GCKDWithMatching'"
                " and matching=dict(type='ImageTextMatchingHead', …)"
            )
        for metric in asking:
            metric.matcher = _matcher(model)

    def _run_iter(self, batch_idx: int, data_batch: Any, call_hooks: bool) -> None:
        if call_hooks:
            self.runner.call_hook(
                f'before_{self.stage}_iter', batch_idx=batch_idx, data_batch=data_batch
            )
        with autocast(enabled=self.fp16):
            outputs = self.runner.model.test_step(data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        if call_hooks:
            self.runner.call_hook(
                f'after_{self.stage}_iter',
                batch_idx=batch_idx,
                data_batch=data_batch,
                outputs=outputs,
            )


@LOOPS.register_module()
class RetrievalValLoop(_RetrievalLoop):
    """Validation over named test sets: see :class:`_RetrievalLoop`."""

    stage = 'val'


@LOOPS.register_module()
class RetrievalTestLoop(_RetrievalLoop):
    """Test over named test sets: see :class:`_RetrievalLoop`."""

    stage = 'test'


def _matcher(model: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the score of the matching head for tokens on any device."""
    device = next(model.matching.parameters()).device
    return lambda *tokens: model.matching.score(*(part.to(device) for part in tokens))


def _build_loaders(
    runner: Runner, name: str, loaders: Any, stage: str
) -> dict[str, DataLoader]:
    if not isinstance(loaders, dict) or set(loaders) != set(ROLES):
        found = sorted(loaders) if isinstance(loaders, dict) else loaders
        raise InputError(
            f'{stage}_dataloader[{name!r}] must be dict(gallery=…, query=…), got '
            f'{found}'
        )
    built = {
        role: runner.build_dataloader(loaders[role], seed=runner.seed) for role in ROLES
    }
    for role, view in zip(ROLES, ('images', 'captions'), strict=True):
        found = getattr(built[role].dataset, 'view', view)
        if found != view:
            raise InputError(
                f'{stage}_dataloader.{name}.{role}.dataset: needs view={view!r}, got '
                f'{found!r}'
            )
    images, captions = (getattr(built[r].dataset, 'pids', None) for r in ROLES)
    if images is None or captions is None or not len(captions):
        return built
    if num_unmatched(images, captions) == len(captions):
        raise InputError(
            f'{stage}_dataloader: {no_match_message(name, images, captions)}'
        )
    return built
