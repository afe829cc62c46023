"""Every config can be read, and names what is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from gckd_mm.checkpoint import local_path
from gckd_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob('*.py')
    if '_base_' not in path.relative_to(ROOT).parts
)


def datasets(node: Any) -> Iterator[dict]:
    """Every config of a dataset below a loader."""
    if isinstance(node, dict):
        if 'data_root' in node:
            yield node
        for part in node.values():
            yield from datasets(part)
    elif isinstance(node, list | tuple):
        for part in node:
            yield from datasets(part)


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_its_model_and_finds_its_start(name: str) -> None:
    cfg = Config.fromfile(ROOT / name)
    MODELS.build({**cfg.model, '_scope_': 'gckd_mm'})
    if cfg.load_from is not None:
        assert Path(local_path(cfg.load_from)).is_file()
    else:
        assert cfg.default_hooks.tokenizer is not None
    found = [*datasets(cfg.train_dataloader), *datasets(cfg.test_dataloader)]
    assert found
    for dataset in found:
        assert dataset['type'] in DATASETS.module_dict
        assert dataset['data_root'].startswith('data/')


@pytest.mark.parametrize('source', ['street', 'mall', 'campus'])
@pytest.mark.parametrize('target', ['street', 'mall', 'campus'])
def test_directions_between_the_domains(source: str, target: str) -> None:
    if source == target:
        cfg = Config.fromfile(ROOT / f'baselines/oracle_{source}.py')
        assert [d['data_root'] for d in datasets(cfg.train_dataloader)] == [
            f'data/synthpedes/world0/{source}'
        ]
        return
    alone, both = (
        Config.fromfile(ROOT / f'baselines/{kind}_{source}2{target}.py')
        for kind in ('source_only', 'oracle')
    )
    roots = [
        [Path(d['data_root']).name for d in datasets(cfg.train_dataloader)]
        for cfg in (alone, both)
    ]
    assert roots == [[source], [source, target]]
    assert list(alone.test_dataloader) == [target, source]
    assert all(
        Path(d['data_root']).name == name
        for name, loaders in alone.test_dataloader.items()
        for d in datasets(loaders)
    )
    # equal budget, equal start
    for key in ('model', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'load_from'):
        assert alone[key] == both[key]


def test_no_two_configs_share_a_name() -> None:
    """`mim` finds a config by its file's name alone."""
    names = [Path(name).name for name in CONFIGS]
    assert len(set(names)) == len(names)
