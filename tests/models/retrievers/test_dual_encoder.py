"""The dual encoder: its modes, and company from other packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement

from gckd_mm.models import DualEncoder, WordPieceTokenizer
from gckd_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
CAPTIONS = ['a man in a red coat', 'a woman', 'blue jeans', 'a man wears a hat']
PIDS = [4, 9, 4, 2]
VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=32, num_layers=1, num_heads=4, feedforward_channels=48),
    img_size=(64, 32),
    out_type='raw',
)


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


def build(**changes: Any) -> DualEncoder:
    """The shipped tiny model, with a vocabulary, as it tests."""
    config = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    config.merge_from_dict({'model': changes})
    model = MODELS.build(config.model)
    model.data_preprocessor.tokenizer.fit(CAPTIONS)
    return model.eval()


def collated(*modalities: str, **extra: Any) -> dict[str, Any]:
    """A batch as the loader gives it."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(PIDS), 3, 64, 32)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    inputs = {'images': list(images), 'captions': CAPTIONS}
    return {
        'inputs': {name: inputs[name] for name in modalities or inputs},
        'data_samples': [BaseDataElement(pid=pid) for pid in PIDS],
        **extra,
    }


def run(model: DualEncoder, batch: dict[str, Any], mode: str) -> Any:
    return model(**model.data_preprocessor(batch), mode=mode)


def test_it_embeds_both_modalities_on_the_unit_sphere() -> None:
    feats = run(build(), collated(), 'tensor')

    assert set(feats) == {'images', 'captions'}
    for feat in feats.values():
        assert feat.shape == (4, 128)
        torch.testing.assert_close(feat.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize('modality', ['images', 'captions'])
def test_it_embeds_one_modality_alone(modality: str) -> None:
    model = build()

    feats = run(model, collated(modality), 'tensor')

    assert set(feats) == {modality}
    torch.testing.assert_close(
        feats[modality], run(model, collated(), 'tensor')[modality]
    )


def test_heads_name_the_losses() -> None:
    heads = dict(
        sdm=dict(type='SDMHead', temperature=0.1),
        nce=dict(type='InfoNCEHead', temperature=0.2, loss_weight=3.0),
    )
    model = build(heads=heads)

    losses = run(model, collated(), 'loss')

    feats = run(model, collated(), 'tensor')
    expected = {
        f'loss_{name}': model.heads[name].loss(
            feats['images'], feats['captions'], torch.tensor(PIDS)
        )
        for name in heads
    }
    assert losses.keys() == expected.keys()
    torch.testing.assert_close(losses, expected)
    assert losses['loss_sdm'] != losses['loss_nce']


def test_the_ids_reach_the_loss() -> None:
    model = build()
    other = collated()
    other['data_samples'] = [BaseDataElement(pid=pid) for pid in (1, 2, 3, 4)]

    assert run(model, collated(), 'loss') != run(model, other, 'loss')


def test_a_head_that_is_none_disappears() -> None:
    model = build(heads=dict(nce=dict(type='InfoNCEHead'), sdm=None))

    assert set(run(model, collated(), 'loss')) == {'loss_nce'}


def test_without_heads_it_can_still_embed() -> None:
    config = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    del config.model['heads']
    model = MODELS.build(config.model)
    model.data_preprocessor.tokenizer.fit(CAPTIONS)

    assert run(model, collated(), 'loss') == {}
    assert set(run(model, collated(), 'tensor')) == {'images', 'captions'}


@pytest.mark.parametrize('modality', ['images', 'captions'])
def test_predict_gives_each_sample_its_embedding(modality: str) -> None:
    model = build()

    samples = run(model, collated(modality), 'predict')

    feats = run(model, collated(modality), 'tensor')[modality]
    assert [sample.pid for sample in samples] == PIDS
    for sample, feat in zip(samples, feats, strict=True):
        assert sample.modality == modality
        assert torch.equal(sample.feat, feat)


def test_predict_refuses_both_modalities_at_once() -> None:
    with pytest.raises(ValueError, match=r"\['captions', 'images'\].*view='images'"):
        run(build(), collated(), 'predict')


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mode must be .*, got 'losses'"):
        run(build(), collated(), 'losses')


def test_a_vocabulary_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r'1500 tokens.*embeds 1000.*vocab_size'):
        build(text_backbone=dict(vocab_size=1000))


def test_the_source_only_model_leaves_the_target_alone() -> None:
    model = build()
    target = {
        'inputs': {'images': collated()['inputs']['images'][:3], 'captions': ['x'] * 3},
        'image_index': [0, 1, 2],
        'caption_index': [5, 6, 7],
    }

    assert run(model, collated(target=target), 'loss') == run(model, collated(), 'loss')


def test_every_weight_gets_a_gradient() -> None:
    model = build()

    sum(run(model, collated(), 'loss').values()).backward()

    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_training_lowers_the_loss() -> None:
    model = build(text_backbone=dict(dropout=0.0))
    batch = collated()
    batch['data_samples'] = [BaseDataElement(pid=pid) for pid in range(4)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    values = []
    for _ in range(15):
        loss = run(model, batch, 'loss')['loss_sdm']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())

    assert values[-1] < values[0] / 4
    feats = run(model, batch, 'tensor')
    nearest = (feats['captions'] @ feats['images'].t()).argmax(1)
    assert nearest.tolist() == [0, 1, 2, 3]


def test_the_weights_bring_the_vocabulary_with_them(tmp_path: Path) -> None:
    model = build()
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    fresh = build()
    fresh.data_preprocessor.tokenizer = WordPieceTokenizer()

    fresh.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))

    feats, expected = (run(one, collated(), 'tensor') for one in (fresh, model))
    assert all(torch.equal(feats[name], expected[name]) for name in expected)


def test_an_mmpretrain_backbone_inside_ours() -> None:
    config = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py')
    config.model.image_backbone = dict(
        type='mmpretrain.ResNet',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
    )
    config.model.image_neck.in_channels = 128
    model = MODELS.build(config.model)
    model.data_preprocessor.tokenizer.fit(CAPTIONS)
    model.init_weights()

    loss = run(model, collated(), 'loss')['loss_sdm']
    loss.backward()

    assert type(model.image_backbone).__module__.startswith('mmpretrain.')
    assert loss.isfinite()
    assert model.image_backbone.conv1.weight.grad.abs().sum() > 0


def test_our_backbone_inside_mmpretrain() -> None:
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
    from mmpretrain.structures import DataSample

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        classifier = MMPRETRAIN_MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='gckd_mm.TinyImageEncoder'),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
            )
        )
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    images = torch.randn(2, 3, 64, 32)

    losses = classifier(images, samples, mode='loss')
    losses['loss'].backward()

    assert losses['loss'].isfinite()
    assert classifier.backbone.layers[0].weight.grad.abs().sum() > 0
    assert classifier.extract_feat(images)[0].shape == (2, 128)


@pytest.mark.parametrize(
    ('backbone', 'neck'),
    [
        (
            dict(type='gckd_mm.TinyImageEncoder'),
            dict(type='ImageProjection', stripes=2),
        ),
        (
            [
                dict(type='gckd_mm.TinyImageEncoder'),
                dict(type='mmpretrain.GlobalAveragePooling'),
            ],
            dict(type='ImageProjection'),
        ),
        (VIT, dict(type='TokenProjection', pooling='mean')),
        (VIT, dict(type='TextProjection')),
    ],
)
def test_our_necks_inside_mmpretrain(backbone: Any, neck: dict) -> None:
    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
    from mmpretrain.structures import DataSample

    neck = dict(neck, type=f'gckd_mm.{neck["type"]}', out_channels=16)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        classifier = MMPRETRAIN_MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=backbone,
                neck=dict(neck, in_channels=32 if backbone is VIT else 128),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
            )
        )
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    images = torch.randn(2, 3, 64, 32)

    classifier(images, samples, mode='loss')['loss'].backward()

    assert classifier.neck.projection.weight.grad.abs().sum() > 0
    assert len(classifier.predict(images, samples)) == 2


def test_a_linear_neck_of_mmpretrain() -> None:
    linear = dict(in_channels=128, out_channels=128, gap_dim=2, _delete_=True)
    model = build(image_neck=dict(linear, type='mmpretrain.LinearNeck'))

    run(model.train(), collated(), 'loss')['loss_sdm'].backward()
    samples = run(model.eval(), collated('images'), 'predict')

    assert model.image_neck.fc.weight.grad.abs().sum() > 0
    assert [sample.feat.shape for sample in samples] == [(128,)] * 4


def test_a_neck_that_does_not_pool() -> None:
    model = build()
    model.image_neck = torch.nn.Identity()

    with pytest.raises(ValueError, match=r'image_neck must give shape \(N, D\)'):
        run(model, collated('images'), 'tensor')


def test_the_whole_of_ours_inside_mmpretrains_scope() -> None:
    config = Config.fromfile(ROOT / 'configs/_base_/models/dual_encoder_tiny.py').model

    def prefix(node: dict) -> dict:
        return {
            key: prefix(value)
            if isinstance(value, dict)
            else f'gckd_mm.{value}'
            if key == 'type'
            else value
            for key, value in node.items()
        }

    from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MMPRETRAIN_MODELS.build(prefix(config.to_dict()))

    assert type(model) is DualEncoder


TOKENS = dict(type='TokenProjection', in_channels=32, out_channels=128, _delete_=True)
STRIPES = dict(type='ImageProjection', in_channels=32, out_channels=128, stripes=2)


@pytest.mark.parametrize(
    ('out_type', 'neck'), [('raw', TOKENS), ('featmap', STRIPES)], ids=['cls', 'parts']
)
def test_an_mmpretrain_transformer(out_type: str, neck: dict) -> None:
    arch = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=48)
    backbone = dict(
        type='mmpretrain.VisionTransformer',
        arch=arch,
        img_size=(64, 32),
        out_type=out_type,
        frozen_stages=1,
        _delete_=True,
    )
    model = build(image_backbone=backbone, image_neck=neck)

    run(model.train(), collated(), 'loss')['loss_sdm'].backward()

    first, second = model.image_backbone.layers
    assert first.ffn.layers[1].weight.grad is None
    assert second.ffn.layers[1].weight.grad.abs().sum() > 0
    # Its own depths: the patches, two layers, and what comes after.
    name = 'image_backbone.layers.1.ffn.layers.1.weight'
    assert name in dict(model.named_parameters())
    assert model.get_layer_depth(name) == (2, 4)
    assert model.get_layer_depth('text_backbone.embedding.weight') == (0, 1)


@pytest.mark.parametrize(
    ('name', 'channels', 'neck'),
    [('resnet18', 512, 'ImageProjection'), ('test_vit', 64, 'TokenProjection')],
)
def test_a_timm_backbone_through_mmpretrains_wrapper(
    name: str, channels: int, neck: str
) -> None:
    pytest.importorskip('timm')
    size = {} if name == 'resnet18' else dict(img_size=(64, 32))
    model = build(
        image_backbone=dict(
            type='mmpretrain.TIMMBackbone', model_name=name, _delete_=True, **size
        ),
        image_neck=dict(
            type=neck, in_channels=channels, out_channels=128, _delete_=True
        ),
    )

    run(model, collated(), 'loss')['loss_sdm'].backward()

    weights = dict(model.image_backbone.timm_model.named_parameters())
    first = weights['conv1.weight' if name == 'resnet18' else 'patch_embed.proj.weight']
    assert first.grad.abs().sum() > 0
