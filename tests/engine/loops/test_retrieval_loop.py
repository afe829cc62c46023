"""Several test sets are embedded and scored in one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from gckd_mm.checkpoint import load_weights, read_checkpoint
from gckd_mm.engine.loops import RetrievalTestLoop
from gckd_mm.errors import InputError
from gckd_mm.evaluation import rank_metrics
from tests.training import last_checkpoint, small_config, small_gckd_config


def _runner(data: Path, work_dir: Path, trained: Path) -> Runner:
    runner = _untrained(small_config(data, work_dir))
    load_weights(runner.model, read_checkpoint(last_checkpoint(trained)), 'checkpoint')
    return runner


def _untrained(cfg: Config) -> Runner:
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    cfg.custom_hooks = []
    return Runner.from_cfg(cfg)


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


def test_a_metric_that_reranks_calls_the_matching_head(
    miniature: Path, tmp_path: Path
) -> None:
    top, weight = 4, 0.5
    matching = dict(
        type='ImageTextMatchingHead',
        image_channels=16,
        caption_channels=16,
        channels=8,
        num_heads=2,
        grid=(2, 1),
    )
    cfg = small_gckd_config(
        miniature,
        tmp_path,
        model__type='GCKDWithMatching',
        model__matching=matching,
        test_evaluator__rerank=dict(top=top, weight=weight),
    )
    del cfg.test_dataloader['rstpreid']
    runner = _untrained(cfg)
    model = runner.model
    model.data_preprocessor.tokenizer.fit(['a person in a red coat and black jeans'])

    metrics = runner.test()

    (metric,) = runner.test_loop.evaluator.metrics
    images, captions = (
        metric.embeddings['cuhk_pedes'][role] for role in ('images', 'captions')
    )
    total = captions.feats.astype(np.float64) @ images.feats.T
    for query, row in enumerate(total):
        for image in np.argsort(-row)[:top]:
            used = captions.token_mask[query]
            with torch.no_grad():
                logit = model.matching.score(
                    torch.from_numpy(images.tokens[image]).float()[None],
                    torch.from_numpy(captions.tokens[query][used]).float()[None],
                    torch.ones(1, used.sum(), dtype=torch.bool),
                )
            # 10: what was not compared comes after all that was
            row[image] += 10 + weight * logit.sigmoid().item()
    expected = rank_metrics(total, np.eye(len(images.pids)), captions.pids, images.pids)
    for name in ('R1', 'R5', 'R10', 'mAP', 'mINP'):
        assert metrics[f'cuhk_pedes/reranked_{name}'] == pytest.approx(expected[name])
    assert metrics['cuhk_pedes/reranked_mAP'] != metrics['cuhk_pedes/mAP']
    # A test that does not ask for it keeps no tokens.
    metric.rerank = None
    runner.test_loop.score()
    assert metric.embeddings['cuhk_pedes']['images'].tokens is None
    assert not model.keep_tokens


def test_a_metric_that_reranks_needs_a_model_with_a_matching_head(
    miniature: Path, tmp_path: Path, trained: Path
) -> None:
    runner = _runner(miniature, tmp_path, trained)
    runner._test_evaluator['rerank'] = {'top': 4}
    with pytest.raises(InputError, match='matching head, which DualEncoder has not'):
        runner.test()


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('gallery.dataset.view', 'captions', "gallery.dataset: needs view='images'"),
        ('query.dataset.view', 'pairs', "query.dataset: needs view='captions'"),
        ('query.dataset.split', 'val', 'rstpreid: none of the 80 captions has an'),
    ],
)
def test_a_gallery_and_queries_that_do_not_belong_together(
    miniature: Path, tmp_path: Path, key: str, value: str, message: str
) -> None:
    cfg = small_config(miniature, tmp_path)
    cfg.merge_from_dict({f'test_dataloader.rstpreid.{key}': value})
    runner = _untrained(cfg)
    with pytest.raises(InputError, match=message):
        _ = runner.test_loop


@pytest.mark.parametrize('loaders', [{}, [], 'abc'])
def test_test_sets_that_are_none(miniature: Path, tmp_path: Path, loaders) -> None:
    runner = _untrained(small_config(miniature, tmp_path))
    with pytest.raises(InputError, match=r'test_dataloader must be dict\(NAME='):
        RetrievalTestLoop(runner, loaders, dict(type='PersonRetrievalMetric'))
