"""Every config trains for two iterations and is tested, on miniature data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from gckd_mm.checkpoint import read_checkpoint
from tests.models.tiny_clip import (
    BERT,
    TEXT,
    VISION,
    clip_vocabulary,
    write_bert,
    write_clip,
)
from tests.test_configs import CONFIGS, ROOT
from tests.training import in_process, last_checkpoint, train

FOLDERS = {'CUHKPEDES': 'cuhk_pedes', 'ICFGPEDES': 'icfg_pedes', 'RSTPReid': 'rstpreid'}
#: of ViT-B/16, on fewer of them
PATCHES = {'patch_size': 16, 'image_size': 64}
#: iterations of the source stage, and of all
SOURCE_ITERS, MAX_ITERS = 1, 2


@pytest.fixture(scope='module')
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP, a tiny BERT, and weights of an EfficientNet-lite0."""
    folder = tmp_path_factory.mktemp('encoders')
    write_clip(folder / 'clip', **PATCHES)
    write_bert(folder / 'bert')
    return folder


def shrink(cfg: Config, data: Path, encoders: Path, work_dir: Path) -> None:
    """Let a config run on miniature data within seconds; all else stays as shipped."""
    _walk(cfg._cfg_dict, data)
    _shrink_encoders(cfg.model, encoders)
    cfg.train_dataloader.batch_size = 8
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    if 'adapt_iters' in cfg.train_cfg:
        cfg.train_cfg.update(
            source_iters=SOURCE_ITERS, adapt_iters=MAX_ITERS - SOURCE_ITERS
        )
    else:
        cfg.train_cfg.max_iters = MAX_ITERS


def _walk(node: Any, data: Path) -> None:
    if isinstance(node, list | tuple):
        for part in node:
            _walk(part, data)
    if not isinstance(node, dict):
        return
    if node.get('type') in FOLDERS:
        node['data_root'] = str(data / FOLDERS[node['type']])
    if 'num_workers' in node:
        node.update(num_workers=0, persistent_workers=False, pin_memory=False)
    if 'memory_size' in node:
        node['memory_size'] = 64
    for part in node.values():
        _walk(part, data)


def _shrink_encoders(model: dict, encoders: Path) -> None:
    text, image = model['text_backbone'], model['image_backbone']
    if image['type'] == 'CLIPImageBackbone':
        assert image['config'] == {'patch_size': 16}
        image.update(pretrained=str(encoders / 'clip'), config={**VISION, **PATCHES})
        model['image_neck'].update(
            in_channels=VISION['hidden_size'], pretrained=str(encoders / 'clip')
        )
        size = len(clip_vocabulary())
        text.update(config=dict(TEXT, vocab_size=size))
        _shrink_text(model, encoders / 'clip', TEXT['hidden_size'], size)
        model['text_neck']['pretrained'] = str(encoders / 'clip')
        for neck in ('image_neck', 'text_neck'):
            model[neck]['out_channels'] = 16
        model.update(embedding_size=16) if 'embedding_size' in model else None
    elif text['type'] == 'HFTextBackbone':
        text.update(config=dict(BERT, model_type='bert'))
        image['init_cfg'] = None
        size = BERT['vocab_size']
        _shrink_text(model, encoders / 'bert', BERT['hidden_size'], size)
        model['data_preprocessor']['tokenizer']['max_length'] = 40


def _shrink_text(model: dict, folder: Path, channels: int, vocab_size: int) -> None:
    model['text_backbone']['pretrained'] = str(folder)
    model['text_neck']['in_channels'] = channels
    model['data_preprocessor']['tokenizer'].update(
        pretrained=str(folder), vocab_size=vocab_size
    )


def _run(name: str, data: Path, encoders: Path, work_dir: Path) -> None:
    cfg = Config.fromfile(ROOT / name)
    shrink(cfg, data, encoders, work_dir)
    metrics = train(cfg).test()
    (work_dir / 'metrics.json').write_text(json.dumps(metrics))


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_tests(
    name: str, miniature: Path, encoders: Path, tmp_path: Path
) -> None:
    if 'lite0' in name:
        pytest.importorskip('timm')
    assert in_process(_run, name, miniature, encoders, tmp_path) == 0

    checkpoint = read_checkpoint(last_checkpoint(tmp_path))
    assert checkpoint['meta']['iter'] == MAX_ITERS
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert all(math.isfinite(value) for value in metrics.values())
    for test_set in Config.fromfile(ROOT / name).test_dataloader:
        assert metrics[f'{test_set}/R10'] > 0
        assert metrics[f'{test_set}/num_queries'] > 0
