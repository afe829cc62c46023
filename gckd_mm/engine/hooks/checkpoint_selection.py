"""By what a checkpoint may be chosen: never by labels that no one has, unsaid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.runner import Runner

from gckd_mm.engine.loops.retrieval_loop import RetrievalValLoop
from gckd_mm.errors import InputError
from gckd_mm.evaluation.metrics import PersonRetrievalMetric

SELECTIONS = ('last', 'source_val', 'oracle')


def check_settings(selection: str, save_best: Any) -> None:
    """Refuse a selection that does not exist, or that ``save_best`` contradicts."""
    if selection not in SELECTIONS:
        raise InputError(f'selection must be one of {SELECTIONS}, got {selection!r}')
    if selection == 'last' and save_best is not None:
        raise InputError(
            f"save_best={save_best!r} contradicts selection='last': set "
            f"selection='source_val', or 'oracle' if the target's labels choose"
        )


def check_selection(
    runner: Runner, selection: str, save_best: Sequence[str] | None
) -> None:
    """Refuse validation data and metrics that do not fit a selection.

    Labels of any split but the source's val split could choose a checkpoint, or the end
    of the run: only ``'oracle'`` may see them.
    """
    loop = runner.val_loop
    if loop is None:
        if save_best is not None:
            raise InputError('save_best needs a val_dataloader')
        return
    if not isinstance(loop, RetrievalValLoop):
        raise InputError(
            f'AtomicCheckpointHook needs val_cfg.type RetrievalValLoop, got '
            f'{type(loop).__name__}'
        )
    _check_save_best(loop, save_best or ())
    if selection == 'oracle':
        return
    train = runner.train_dataloader.dataset
    source = getattr(train, 'source', train)
    for name, loaders in loop.dataloader.items():
        for loader in loaders.values():
            if not _is_val_split_of(source, loader.dataset):
                raise InputError(
                    f'val_dataloader {name!r} is not the val split of the training '
                    f'source, and could choose a checkpoint by labels that no one has '
                    f"in deployment: call it selection='oracle', or look at it with "
                    f'TargetProbeHook, which chooses nothing'
                )


def _check_save_best(loop: RetrievalValLoop, save_best: Sequence[str]) -> None:
    """Refuse a metric that no validation will compute."""
    metrics = loop.evaluator.metrics
    if not all(isinstance(metric, PersonRetrievalMetric) for metric in metrics):
        return  # what another metric computes is known only afterwards
    known = [
        f'{test_set}/{name}'
        for test_set in loop.dataloader
        for metric in metrics
        for name in metric.score_names
    ]
    for key in save_best:
        if key not in (*known, 'auto'):
            raise InputError(
                f'save_best={key!r} is no metric of val_evaluator: choose one of '
                f'{", ".join(known)}'
            )


def _is_val_split_of(source: Any, dataset: Any) -> bool:
    return (
        type(dataset) is type(source)
        and getattr(dataset, 'split', None) == 'val'
        and os.path.realpath(dataset.ann_file) == os.path.realpath(source.ann_file)
    )
