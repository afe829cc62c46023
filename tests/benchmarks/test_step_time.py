"""The benchmark of the training step, on toy sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config

SCRIPT = Path(__file__).resolve().parents[2] / 'benchmarks/step_time.py'
PARTS = {
    'student forward',
    'teacher forward',
    'push',
    'neighbour lists',
    'propagation',
    'soft labels',
    'distillation loss',
    'consistency loss',
    'source loss',
    'backward',
    'optimiser',
    'teacher update',
}


@pytest.fixture
def step_time(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # the script puts its own folder on the path
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('step_time', SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(shipped: Callable[[], Config]) -> Config:
    """The config of CLIP, one layer deep."""
    cfg = shipped()
    few = dict(num_hidden_layers=1, hidden_size=16, num_attention_heads=2)
    few['intermediate_size'] = 16
    cfg.model.image_backbone.config.update(few)
    cfg.model.image_backbone.image_size = (32, 16)
    cfg.model.text_backbone.config.update(few)
    for neck in ('image_neck', 'text_neck'):
        cfg.model[neck].update(in_channels=16, out_channels=16)
    return cfg


def test_it_measures_and_reports_everything(
    step_time: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(step_time, 'clip_config', partial(tiny, step_time.clip_config))
    monkeypatch.setattr(step_time, 'CLIP_BATCH', 2)
    monkeypatch.setattr(step_time, 'GROWTH_DIM', 8)
    path = tmp_path / 'step_time.json'
    options = '--threads 1 --repeats 1 --batch-size 2 --vit 2 --sizes 16 48'
    small = 'model.memory_size=32 model.graph.refresh=2 model.labels.refresh=2'
    arguments = f'step_time.py {options} --json {path} --cfg-options {small}'
    monkeypatch.setattr(sys, 'argv', arguments.split())

    code = step_time.main()

    figures = json.loads(path.read_text())['figures']
    printed = capsys.readouterr().out
    growth = figures['growth']
    assert set(growth['step_ms']) == {'16 rows', '48 rows'}
    # 4 memories of 48 rows: 8 float32 and 2 int64 each, and a counter
    assert growth['memories_mb'] == pytest.approx(4 * (48 * (32 + 16) + 8) / 1e6)
    clip = figures['clip']
    assert len(clip['text_ms']['ours']) == len(clip['step_ms']['padded, eager']) == 1
    met = [
        growth['ratio'] <= 20,
        clip['text_ratio'] <= 0.75,
        clip['step_ratio'] <= 0.95,
    ]
    for name, aim in (('tiny', 1.6), ('ViT-B/16', 1.45)):
        times = figures[name]['step_ms']
        assert set(times) == PARTS | {'source-only', 'GCKD'}
        assert all(len(laps) == 1 and min(laps) > 0 for laps in times.values())
        for lap, whole in enumerate(times['GCKD']):
            assert sum(times[part][lap] for part in PARTS) < whole
        met.append(figures[name]['ratio'] <= aim)
    assert code == (0 if all(met) else 1)
    assert ('targets met' if all(met) else 'targets MISSED') in printed


def test_a_random_sample_is_nearest_to_itself_and_its_caption(
    step_time: ModuleType,
) -> None:
    train_set = step_time.TrainSet(64)
    keys = torch.arange(300)
    images = train_set.embed('target_images', keys)
    again = train_set.embed('target_images', keys)
    captions = train_set.embed('target_captions', keys)

    assert (images @ again.t()).argmax(dim=1).equal(keys)
    found = (images @ captions.t()).argmax(dim=1)
    assert (found == keys).float().mean() > 0.9
    torch.testing.assert_close(images.norm(dim=1), torch.ones(300))


def test_drawn_captions_have_the_length_of_real_ones(step_time: ModuleType) -> None:
    clip_step = sys.modules['clip_step']
    lengths = clip_step.caption_lengths(48)
    assert len(lengths) == 48
    assert 24 < sum(lengths) / 48 < 35  # CUHK-PEDES: 23.5 words on average
    captions = clip_step.captions_of(lengths[:8], max(lengths[:8]), 100)
    assert captions['attention_mask'].sum(dim=1).tolist() == lengths[:8]
    assert (captions['input_ids'] > 0).equal(captions['attention_mask'])
