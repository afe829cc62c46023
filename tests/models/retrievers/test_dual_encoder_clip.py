"""A dual encoder of CLIP's towers: pretrained, trained, and tested without them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement

from gckd_mm.checkpoint import config_of, load_weights, read_checkpoint
from gckd_mm.models import DualEncoder
from gckd_mm.registry import MODELS
from tests.training import (
    in_process,
    last_checkpoint,
    small_config,
    small_gckd_config,
    train,
)

tiny_clip = pytest.importorskip('tests.models.tiny_clip')

CAPTIONS = ['a man in a red coat', '', 'blue jeans', 'a man wears a hat 😀']


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def collated() -> dict[str, Any]:
    shape = (len(CAPTIONS), 3, 64, 32)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    samples = [BaseDataElement(pid=pid) for pid in (4, 9, 4, 2)]
    inputs = {'images': list(images), 'captions': CAPTIONS}
    return {'inputs': inputs, 'data_samples': samples}


def build(folder: Path) -> DualEncoder:
    return MODELS.build(dict(tiny_clip.towers(folder), type='DualEncoder'))


def test_a_pretrained_clip_embeds_as_transformers_does(clip_folder: Path) -> None:
    model = build(clip_folder)
    model.init_weights()
    batch = model.data_preprocessor(collated())

    feats = model.eval()(**batch)

    clip = tiny_clip.clip_model()
    expected = {
        'images': clip.get_image_features(
            batch['inputs']['images'], interpolate_pos_encoding=True
        ),
        'captions': clip.get_text_features(**batch['inputs']['captions']),
    }
    for name, output in expected.items():
        judge = torch.nn.functional.normalize(tiny_clip.features(output), dim=1)
        torch.testing.assert_close(feats[name], judge, rtol=1e-5, atol=1e-5)
    model.train()(**batch, mode='loss')['loss_sdm'].backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_names_of_a_clips_weights(clip_folder: Path) -> None:
    clip = tiny_clip.clip_model()

    keys = set(build(clip_folder).state_dict())

    assert keys == {
        'data_preprocessor.tokenizer._extra_state',
        'image_neck.projection.weight',
        'text_neck.projection.weight',
        *(f'image_backbone.model.{key}' for key in clip.vision_model.state_dict()),
        *(f'text_backbone.model.{key}' for key in clip.text_model.state_dict()),
    }


def test_the_tokenizer_of_another_encoder_is_refused(
    clip_folder: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gckd_mm.models.retrievers import dual_encoder

    monkeypatch.setattr(dual_encoder, 'SPARE_ROWS', 100)
    config = tiny_clip.towers(clip_folder)
    config['data_preprocessor']['tokenizer']['pretrained'] = str(bert_folder)
    with pytest.raises(ValueError, match=r'has 60 tokens.*not the one that'):
        MODELS.build(dict(config, type='DualEncoder'))

    config = tiny_clip.towers(clip_folder)
    config['text_backbone'] = dict(type='HFTextBackbone', pretrained=str(bert_folder))
    with pytest.raises(ValueError, match=r'tokens, but the text backbone embeds 60'):
        MODELS.build(dict(config, type='DualEncoder'))


def test_captions_longer_than_the_context_are_refused(clip_folder: Path) -> None:
    config = tiny_clip.towers(clip_folder)
    config['data_preprocessor']['tokenizer']['max_length'] = 80

    with pytest.raises(ValueError, match=r'to 80 tokens.*77 positions.*max_length'):
        MODELS.build(dict(config, type='DualEncoder'))


def test_learning_rates_decay_with_depth(clip_folder: Path) -> None:
    from mmengine.optim import build_optim_wrapper

    config = tiny_clip.towers(clip_folder)
    config['image_backbone']['frozen_stages'] = 1
    model = MODELS.build(dict(config, type='DualEncoder'))
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5, norm_decay_mult=0.0),
        ),
    )

    groups = wrapper.optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in groups}
    # Depths 0 to 4 in the image tower of three layers, 0 to 3 in the text tower of two.
    layer = '{}_backbone.model.encoder.layers.{}.mlp.fc1.weight'.format
    assert rates['text_backbone.model.embeddings.token_embedding.weight'] == 0.5**3
    assert rates[layer('text', 0)] == 0.5**2
    assert rates[layer('text', 1)] == 0.5
    assert rates['text_backbone.model.final_layer_norm.weight'] == 1
    assert rates[layer('image', 1)] == 0.5**2
    assert rates['image_backbone.model.post_layernorm.weight'] == 1
    assert rates['image_neck.projection.weight'] == 1
    assert layer('image', 0) not in rates
    assert 'image_backbone.model.embeddings.class_embedding' not in rates


def test_autocast_gives_nearly_the_same(clip_folder: Path) -> None:
    model = build(clip_folder).eval()
    batch = model.data_preprocessor(collated())

    with torch.autocast('cpu', torch.bfloat16):
        low = model(**batch)

    for name, feats in model(**batch).items():
        similarity = (low[name].float() * feats).sum(1)
        assert similarity.min() > 0.99, name


def _train(data: Path, work_dir: Path, folder: Path) -> None:
    cfg = small_config(data, work_dir, train_cfg__max_iters=2)
    cfg.model = dict(tiny_clip.towers(folder, sizes=True), type='DualEncoder')
    train(cfg)


def _adapt(data: Path, work_dir: Path, folder: Path) -> None:
    cfg = small_gckd_config(data, work_dir)
    for name, part in tiny_clip.towers(folder).items():
        cfg.model[name] = part  # `update` would merge them with the tiny encoders
    cfg.model.embedding_size = 16
    train(cfg)


def test_the_documented_config_is_vit_b_16(offline: None) -> None:
    page = (Path(__file__).parents[3] / 'docs/encoders.md').read_text(encoding='utf-8')
    block = page.split('```python\n')[1].split('```')[0]
    config: dict[str, Any] = {}
    exec(block, config)

    with torch.device('meta'):  # nothing is read, and no memory taken
        model = MODELS.build(config['model'])

    weights = {name: weight.numel() for name, weight in model.named_parameters()}
    positions = (197 - (1 + 24 * 8)) * 768
    # CLIP ViT-B/16 is published with 149,620,737 weights, one of them the logit scale.
    assert sum(weights.values()) == 149_620_737 - 1 - positions


def test_a_checkpoint_is_tested_without_the_folder(
    clip_folder: Path, miniature: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / 'clip'))
    assert in_process(_train, miniature, tmp_path / 'work', folder) == 0
    shutil.rmtree(folder)
    checkpoint = read_checkpoint(last_checkpoint(tmp_path / 'work'))

    model = MODELS.build(config_of(checkpoint, 'it').model)
    load_weights(model, checkpoint, 'it')
    model.eval()
    batch = model.data_preprocessor(collated())
    feats = model(**batch)

    # Two steps from CLIP's weights are not far from them, and random ones are.
    pretrained = build(clip_folder)
    pretrained.init_weights()
    batch = pretrained.data_preprocessor(collated())
    for name, expected in pretrained.eval()(**batch).items():
        assert (feats[name] * expected).sum(1).min() > 0.9, name
        assert not torch.equal(feats[name], expected), name


def test_gckd_adapts_a_clip(clip_folder: Path, miniature: Path, tmp_path: Path) -> None:
    assert in_process(_adapt, miniature, tmp_path, clip_folder) == 0

    state = read_checkpoint(last_checkpoint(tmp_path))['state_dict']
    key = 'image_backbone.model.encoder.layers.0.mlp.fc1.weight'
    start = build(clip_folder).state_dict()[key]
    student, teacher = state[key], state[f'teacher.module.{key}']
    assert not torch.equal(student, start)
    # The teacher follows from the pretrained weights.
    assert (teacher - student).abs().max() < (teacher.std() / 10)
