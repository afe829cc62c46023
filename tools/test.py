"""Test a checkpoint: python tools/test.py [CONFIG] CHECKPOINT [options]."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

import gckd_mm
from gckd_mm.checkpoint import (
    PACKAGED,
    as_tested,
    built_from,
    config_of,
    ended_in_source_stage,
    load_weights,
    local_path,
    read_checkpoint,
    use_strict_loading,
    with_teacher,
)
from gckd_mm.engine.config_checks import check_test
from gckd_mm.engine.direction import add_direction_options, turned
from gckd_mm.engine.launch import (
    add_run_options,
    apply_run_options,
    check_output,
    read_config,
    refuse_address,
    user_errors,
    whole_number,
)
from gckd_mm.engine.loops import RetrievalTestLoop
from gckd_mm.errors import InputError
from gckd_mm.evaluation.gallery_reranking import METHODS
from gckd_mm.evaluation.metrics import Embeddings, PersonRetrievalMetric
from gckd_mm.fileio import write_atomically
from gckd_mm.registry import type_name
from gckd_mm.visualization import render_rank_lists
from gckd_mm.visualization.rank_list_report import make_rank_list_report
from gckd_mm.visualization.searched_set import (
    evenly_spaced_rank_lists,
    searched_sets,
)

RERANKED = 'reranked_'
#: the method of re-ranking that needs a model trained for it
MATCHING = 'matching'


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Test a checkpoint.')
    parser.add_argument(
        'config', nargs='?', help='config file; the one in the checkpoint if left out'
    )
    parser.add_argument(
        'checkpoint', help=f'checkpoint file, or {PACKAGED}NAME for shipped weights'
    )
    parser.add_argument(
        '--teacher', action='store_true', help='test the teacher of an adapted model'
    )
    parser.add_argument('--out', metavar='JSON', help='write the scores')
    parser.add_argument(
        '--dump', metavar='NPZ', help='write the embeddings and person ids'
    )
    parser.add_argument(
        '--rank-lists', metavar='PNG', help='render what some captions find'
    )
    parser.add_argument(
        '--report',
        metavar='HTML',
        help='write a page of the captions whose first right image comes latest',
    )
    parser.add_argument(
        '--num-rank-lists',
        type=whole_number(1),
        default=3,
        help='captions of each test set to render',
    )
    parser.add_argument(
        '--rerank',
        type=int,
        metavar='K',
        help='also order the first K images of each caption anew',
    )
    parser.add_argument(
        '--rerank-method',
        choices=[MATCHING, *METHODS],
        default=MATCHING,
        help='by the matching head of the model (default), or by what the images of '
        'the gallery have in common, without any training',
    )
    parser.add_argument(
        '--rerank-weight',
        type=float,
        default=1.0,
        metavar='W',
        help='what a certain match of the matching head adds to the cosine similarity '
        '(default: 1.0)',
    )
    add_direction_options(parser)
    add_run_options(parser)
    return parser.parse_args(arguments)


def make_config(arguments: argparse.Namespace, checkpoint: dict[str, Any]) -> Config:
    """Read the config, from its file or from the checkpoint.

    Raises:
        InputError: If there is none, or if it names no test set.
    """
    if arguments.config is None:
        cfg = config_of(checkpoint, arguments.checkpoint)
        name = Path(local_path(arguments.checkpoint)).resolve().parent.name
        for role in ('source', 'target'):
            if getattr(arguments, role) is not None:
                raise InputError(f'--{role}: name a config before the checkpoint')
    else:
        cfg = read_config(arguments.config)
        cfg = turned(cfg, arguments.source, arguments.target)
        arguments.config = cfg.filename  # tells the results of a direction from others
        name = Path(cfg.filename).stem
    apply_run_options(cfg, arguments, f'{name}/test')
    check_test(cfg)
    if cfg.get('test_dataloader') is None:
        raise InputError(f'{arguments.config}: has no test_dataloader')
    # Training's parts need data that a test does not.
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator', 'load_from'):
        cfg[key] = None
    if arguments.rerank is not None:
        if arguments.rerank_method == MATCHING and ended_in_source_stage(checkpoint):
            raise InputError(
                f'{arguments.checkpoint}: its matching head is not trained: the '
                f'adaptation, which trains it, had not started'
            )
        rerank_with(cfg, rerank_settings(arguments))
    cfg.resume = False
    cfg.custom_hooks = []
    cfg.setdefault('log_processor', {})['by_epoch'] = False
    return cfg


def rerank_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the metric's re-ranking."""
    settings = dict(method=arguments.rerank_method, top=arguments.rerank)
    if arguments.rerank_method == MATCHING:
        settings['weight'] = arguments.rerank_weight
    return settings


def rerank_with(cfg: Config, settings: dict[str, Any]) -> None:
    """Let every :class:`PersonRetrievalMetric` of the test re-rank."""
    metrics = cfg.test_evaluator
    for metric in [metrics] if isinstance(metrics, dict) else metrics:
        if type_name(metric['type']) == PersonRetrievalMetric.__name__:
            metric['rerank'] = settings


def results_of(
    arguments: argparse.Namespace,
    checkpoint: dict[str, Any],
    scores: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Put the scores beside what produced them, the selection included."""
    meta = checkpoint.get('meta', {})
    return {
        'config': arguments.config,
        'checkpoint': arguments.checkpoint,
        'weights': 'teacher' if arguments.teacher else 'student',
        'selection': meta.get('selection', 'unknown'),
        'iteration': meta.get('iter'),
        'seed': meta.get('seed'),
        'rerank': arguments.rerank and rerank_settings(arguments),
        'gckd_mm': gckd_mm.__version__,
        'torch': torch.__version__,
        'metrics': {
            test_set: {k: None if math.isnan(v) else v for k, v in row.items()}
            for test_set, row in scores.items()
        },
    }


def print_table(scores: dict[str, dict[str, float]], title: str) -> None:
    """Print a row for each test set, and one below for its re-ranked scores."""
    table = Table(title=title, box=rich.box.SIMPLE_HEAVY, collapse_padding=True)
    table.add_column('test set', no_wrap=True)
    rows = {}
    for test_set, found in scores.items():
        plain = {k: v for k, v in found.items() if not k.startswith(RERANKED)}
        rows[test_set] = plain
        if plain.keys() != found.keys():
            rows[f'{test_set} (re-ranked)'] = {
                name: found.get(RERANKED + name, value) for name, value in plain.items()
            }
    for name in next(iter(rows.values())):
        table.add_column(name.removeprefix('num_'), justify='right')
    for test_set, row in rows.items():
        cells = [f'{v:.2f}' if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(test_set, *cells)
    Console().print(table)


def split_by_test_set(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Turn ``{'mall/R1': 1.0}`` into ``{'mall': {'R1': 1.0}}``."""
    scores: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        test_set, metric = name.rsplit('/', 1)
        scores.setdefault(test_set, {})[metric] = value
    return scores


def dump_embeddings(path: str, embeddings: dict[str, dict[str, Embeddings]]) -> None:
    """Write ``<test set>/<images or captions>/<feats, pids or indices>`` arrays."""
    arrays = {
        f'{test_set}/{modality}/{field}': getattr(part, field)
        for test_set, modalities in embeddings.items()
        for modality, part in modalities.items()
        for field in ('feats', 'pids', 'indices')
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def write_rank_lists(
    path: str, loop: RetrievalTestLoop, metric: PersonRetrievalMetric, n: int
) -> None:
    """Render the rank lists of n captions of each test set, spread evenly over it."""
    searched = searched_sets(loop.dataloader, metric.embeddings)
    buffer = io.BytesIO()
    render_rank_lists(evenly_spaced_rank_lists(searched, n)).save(buffer, format='PNG')
    write_atomically(path, buffer.getvalue())


def check_order(options: argparse.Namespace) -> None:
    """Refuse a config in the place of the checkpoint, and an address.

    Raises:
        InputError: If it is one.
    """
    refuse_address(
        None if options.checkpoint.startswith(PACKAGED) else options.checkpoint,
        'checkpoint',
    )
    if options.checkpoint.endswith(('.py', '.yaml', '.yml', '.json')):
        raise InputError(
            f'{options.checkpoint} is a config: name a checkpoint behind it: '
            f'tools/test.py {options.checkpoint} '
            f'{options.config or "work_dirs/<config>/iter_<n>.pth"}'
        )


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Test."""
    options = parse_arguments(arguments)
    check_order(options)
    for path in (options.out, options.dump, options.rank_lists, options.report):
        check_output(path)
    checkpoint = read_checkpoint(options.checkpoint)
    if options.teacher:
        checkpoint = with_teacher(checkpoint, options.checkpoint)
    use_strict_loading()
    cfg = make_config(options, checkpoint)
    weights = checkpoint
    matched = options.rerank is not None and options.rerank_method == MATCHING
    if isinstance(cfg.get('model'), dict) and not matched:
        cfg.model, weights = as_tested(cfg.model, checkpoint)
    # A config file is the user's own; the one in the checkpoint is anybody's.
    stored = options.config is None
    with built_from(checkpoint, options.checkpoint) if stored else nullcontext():
        runner = Runner.from_cfg(cfg)
        load_weights(runner.model, weights, options.checkpoint)
        scores = split_by_test_set(runner.test())
    if not is_main_process():
        return
    results = results_of(options, checkpoint, scores)
    name = options.checkpoint
    if not name.startswith(PACKAGED):
        name = os.path.relpath(name)
    if options.teacher:
        name = f'teacher of {name}'
    print_table(scores, f'{name} (selection: {results["selection"]})')
    if options.out:
        write_atomically(options.out, json.dumps(results, indent=2) + '\n')
    for metric in runner.test_loop.evaluator.metrics:
        if not isinstance(metric, PersonRetrievalMetric):
            continue
        if options.dump:
            dump_embeddings(options.dump, metric.embeddings)
        if options.rank_lists:
            write_rank_lists(
                options.rank_lists, runner.test_loop, metric, options.num_rank_lists
            )
        if options.report:
            searched = searched_sets(runner.test_loop.dataloader, metric.embeddings)
            page = make_rank_list_report(searched, options.num_rank_lists, name)
            write_atomically(options.report, page)


if __name__ == '__main__':
    main()
