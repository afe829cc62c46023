"""Several test sets are embedded and scored in one run."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.runner import Runner

from gckd_mm.checkpoint import load_weights, read_checkpoint
from gckd_mm.errors import InputError
from gckd_mm.evaluation import rank_metrics
from tests.training import last_checkpoint, small_config


def _runner(data: Path, work_dir: Path, trained: Path) -> Runner:
    cfg = small_config(data, work_dir)
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    load_weights(runner.model, read_checkpoint(last_checkpoint(trained)), 'checkpoint')
    return runner


def test_scores_equal_those_of_the_embeddings(
    miniature: Path, tmp_path: Path, trained: Path
) -> None:
    runner = _runner(miniature, tmp_path, trained)
    metrics = runner.test()
    (metric,) = runner.test_loop.evaluator.metrics
    for name, num_queries in (('rstpreid', 160), ('cuhk_pedes', 64)):
        images, captions = (metric.embeddings[name][m] for m in ('images', 'captions'))
        expected = rank_metrics(
            captions.feats, images.feats, captions.pids, images.pids
        )
        for key, value in expected.items():
            assert metrics[f'{name}/{key}'] == value
        assert metrics[f'{name}/num_queries'] == num_queries
    assert len(metrics) == 14
    # The same again, to the last digit; and the batch size changes nothing of note.
    assert runner.test_loop.score() == metrics


def test_length_is_the_number_of_batches(
    miniature: Path, tmp_path: Path, trained: Path
) -> None:
    loop = _runner(miniature, tmp_path, trained).test_loop
    # 80 images and 160 captions, 32 and 64, in batches of 128.
    assert len(loop.dataloader) == 1 + 2 + 1 + 1


def test_loaders_that_are_not_gallery_and_query(
    miniature: Path, tmp_path: Path, trained: Path
) -> None:
    runner = _runner(miniature, tmp_path, trained)
    del runner._test_dataloader['rstpreid']['query']
    with pytest.raises(InputError, match=r"test_dataloader\['rstpreid'\] must be"):
        _ = runner.test_loop
