"""The whole path on real pictures and sentences, as both source and target."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from gckd_mm.checkpoint import read_checkpoint
from tests.training import in_process, last_checkpoint, small_config, train


def _config(store: Path, work_dir: Path, **overrides: object) -> Config:
    cfg = small_config(store.parent, work_dir, **overrides)
    real = dict(type='RSTPReid', data_root=str(store))
    source = {**cfg.train_dataloader.dataset, **real}
    cfg.train_dataloader.dataset = dict(
        type='CrossDomainDataset', source=source, target=source
    )
    cfg.train_dataloader.sampler = dict(type='CrossDomainSampler', num_instances=2)
    cfg.test_dataloader = dict(store=cfg.test_dataloader.rstpreid)
    for role in ('gallery', 'query'):
        cfg.test_dataloader.store[role].dataset.update(real)
    return cfg


def _train(store: Path, work_dir: Path) -> None:
    train(_config(store, work_dir, train_cfg__max_iters=4))


def _resume_and_test(store: Path, work_dir: Path) -> None:
    metrics = train(_config(store, work_dir, resume=True)).test()
    # 6 people, 45 crops, two captions each, one of them chance.
    assert metrics['store/num_queries'] == 90
    assert metrics['store/num_unmatched'] == 0
    assert metrics['store/R10'] >= metrics['store/R1'] > 0


def test_trains_resumes_and_tests(store: Path, tmp_path: Path) -> None:
    assert in_process(_train, store, tmp_path) == 0
    assert in_process(_resume_and_test, store, tmp_path) == 0
    assert read_checkpoint(last_checkpoint(tmp_path))['meta']['iter'] == 8
