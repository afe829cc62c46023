"""The config in a checkpoint: a test takes what it needs of it, and no more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from gckd_mm.checkpoint import config_of, read_checkpoint
from gckd_mm.errors import CheckpointError
from tests.training import last_checkpoint
from tools import test as test_tool

WEIGHTS = {'a': torch.zeros(4, 4)}


def stored(**parts: Any) -> dict[str, Any]:
    return {'state_dict': WEIGHTS, 'meta': {'cfg': Config(parts).pretty_text}}


def loaders(**changes: Any) -> dict[str, Any]:
    def loader(view: str) -> dict[str, Any]:
        dataset = dict(type='RSTPReid', data_root='data', view=view, pipeline=[])
        return {'batch_size': 8, 'num_workers': 0, 'dataset': dataset, **changes}

    return {'mall': {'gallery': loader('images'), 'query': loader('captions')}}


def test_workers_and_batches_are_bounded() -> None:
    asked = loaders(
        num_workers=5000, batch_size=10**9, prefetch_factor=10**6, pin_memory=True
    )
    found = config_of(stored(test_dataloader=asked), 'x').test_dataloader.mall.gallery
    assert found.num_workers <= max(1, os.cpu_count() or 1)
    assert found.batch_size <= 1024
    assert found.keys() == {'batch_size', 'num_workers', 'dataset'}


def test_of_a_dataset_only_what_tells_its_samples_is_taken() -> None:
    asked = loaders()
    asked['mall']['gallery']['dataset'] |= {'metainfo': 'a', 'max_refetch': 10**9}
    dataset = config_of(
        stored(test_dataloader=asked), 'x'
    ).test_dataloader.mall.gallery.dataset
    assert dataset.keys() == {'type', 'data_root', 'view', 'pipeline'}


def test_of_a_metric_nothing_is_taken_that_writes() -> None:
    metric = dict(type='PersonRetrievalMetric', ks=(1, 5), collect_dir='/etc')
    found = config_of(stored(test_evaluator=metric), 'x').test_evaluator
    assert found.keys() == {'type', 'ks'}


def test_nothing_pretrained_is_asked_for() -> None:
    model = dict(
        type='DualEncoder',
        init_cfg=dict(type='Pretrained', checkpoint='https://example.org/a.pth'),
        data_preprocessor=dict(
            type='PersonTextPreprocessor',
            tokenizer=dict(type='HFTokenizer', pretrained='a/b', vocab_size=30),
        ),
        image_backbone=dict(
            type='CLIPImageBackbone',
            pretrained='openai/clip-vit-base-patch16',
            attn_implementation='kernels-community/flash-attn',
            config=dict(patch_size=16, _attn_implementation='some/kernel'),
        ),
        heads=[dict(init_cfg=dict(type='Pretrained', checkpoint='a'))],
    )
    found = config_of(stored(model=model), 'x').model
    assert 'init_cfg' not in found
    assert 'pretrained' not in found.image_backbone
    assert found.image_backbone.config == dict(patch_size=16)
    assert found.image_backbone.attn_implementation == 'sdpa'
    assert found.heads == [{}]
    assert found.data_preprocessor.tokenizer.pretrained != 'a/b'
    assert found.data_preprocessor.tokenizer.vocab_size == 30


def test_sizes_that_lie_on_the_hub_are_asked_of_the_user() -> None:
    model = dict(
        type='DualEncoder',
        text_backbone=dict(type='CLIPTextBackbone', pretrained='openai/clip'),
    )
    with pytest.raises(CheckpointError, match='no hub is asked'):
        config_of(stored(model=model), 'x')


def test_a_tokenizer_without_a_size_takes_that_of_the_vocabulary(
    trained: Path,
) -> None:
    checkpoint = read_checkpoint(last_checkpoint(trained))
    tokenizer = dict(type='HFTokenizer', pretrained='a/b')
    model = dict(type='DualEncoder', data_preprocessor=dict(tokenizer=tokenizer))
    checkpoint['meta']['cfg'] = f'model = {model!r}'
    found = config_of(checkpoint, 'x').model.data_preprocessor.tokenizer
    assert found.vocab_size > 10
    checkpoint['state_dict'] = WEIGHTS
    with pytest.raises(CheckpointError, match='holds no vocabulary'):
        config_of(checkpoint, 'x')


@pytest.mark.parametrize(
    'source',
    [
        'x = ' + '(' * 5000 + ')' * 5000,
        'model = ' + '[' * 60 + ']' * 60,
        'x = ' + '-' * 100_000 + '1',
        'x = ' + '1+' * 100_000 + '1',
        'x = a' + '.a' * 100_000,
        'x = 1' + '0' * 5000,
        'x = {[]: 1}',
        'x = dict(1)',
        'x = dict([1])',
        '#' * (2 << 20),
        'model = ' + repr(list(range(200_000))),
        f"model = dict(a='{'x' * 10_000}')",
        'model = dict(a=b"bytes")',
        'model = {1: 2}',
        'x = y = 1',
        '\x00',
    ],
)
def test_no_text_takes_the_reader_down(source: str) -> None:
    with pytest.raises(CheckpointError, match=r'^x: its config'):
        config_of({'state_dict': WEIGHTS, 'meta': {'cfg': source}}, 'x')


@pytest.mark.parametrize(
    'parts',
    [
        dict(model=3),
        dict(model=dict(type='DualEncoder', memory_size=10**12)),
        dict(model=dict(type='DualEncoder', scale=float('inf'))),
        dict(test_dataloader=[1]),
        dict(test_dataloader=dict(mall=3)),
        dict(test_dataloader=dict(mall=dict(gallery=dict()))),
        dict(test_dataloader=loaders(batch_size='many')),
        dict(test_dataloader=loaders(dataset=3)),
        dict(test_dataloader=loaders(dataset=dict(type='RSTPReid', data_root=3))),
        dict(test_dataloader=loaders(sampler='x')),
        dict(test_dataloader=loaders(collate_fn=1)),
        dict(test_evaluator=3),
        dict(test_evaluator=dict(type='PersonRetrievalMetric', ks=[10**12])),
        dict(test_cfg='x'),
        dict(
            test_dataloader=loaders(
                dataset=dict(type='RSTPReid', ann_file='/dev/zero', pipeline=[])
            )
        ),
        *[
            dict(test_dataloader=loaders(dataset=dict(type='RSTPReid', pipeline=steps)))
            for steps in (
                3,
                [3],
                [dict(scale=3)],
                [dict(type='Resize', scale=(10**5, 10**5))],
                [dict(type='Resize', scale=(2000, 2000))],
                [dict(type='Resize', scale_factor=1e9)],
                [dict(type='Pad', size_divisor=10**6)],
            )
        ],
    ],
)
def test_what_no_test_needs_is_refused(parts: dict[str, Any]) -> None:
    source = '\n'.join(f'{key} = {value!r}' for key, value in parts.items())
    source = source.replace('inf', '1e999')
    with pytest.raises(CheckpointError, match=r'^x: its config cannot be used'):
        config_of({'state_dict': WEIGHTS, 'meta': {'cfg': source}}, 'x')


def test_config_of_reads_what_mmengine_wrote() -> None:
    model = dict(a=(1, 2), b=[None, True, -0.5], c='text', d={'1': {'x': 'y'}})
    cfg = Config(dict(model=model, test_cfg=dict(type='gckd_mm.RetrievalTestLoop')))
    found = config_of({'meta': {'cfg': cfg.pretty_text}}, 'file.pth')
    assert found.to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'config',
    [
        "model = dict(type='subprocess.check_call', args=['touch', '{marker}'])",
        "model = dict(type='DualEncoder', heads=dict(a=dict(type='os.system')))",
        "test_dataloader = dict(a=dict(query=[dict(_scope_='antigravity')]))",
        "default_scope = 'antigravity'",
        # It would unpickle what it downloads; so would models that come from a hub.
        "test_dataloader = dict(a=dict(type='BaseDataset', ann_file='http://a/b.pkl'))",
        "model = dict(type='mmpretrain.HuggingFaceClassifier', model_name='a/b')",
    ],
)
def test_the_config_in_a_checkpoint_names_our_components_alone(
    tmp_path: Path, trained: Path, config: str
) -> None:
    marker, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    checkpoint = torch.load(last_checkpoint(trained), weights_only=False)
    checkpoint['meta']['cfg'] += '\n' + config.format(marker=marker)
    torch.save(checkpoint, path)
    with pytest.raises(SystemExit, match='which is no component of') as stop:
        test_tool.main([str(path), '--work-dir', str(tmp_path / 'work')])
    assert 'Nothing was executed' in str(stop.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    'source', ['import os', 'a = open("x")', 'a = dict(b=__import__("os"))', 'a = (']
)
def test_config_of_executes_nothing(source: str) -> None:
    with pytest.raises(CheckpointError, match='its config cannot be read'):
        config_of({'meta': {'cfg': source}}, 'file.pth')
    with pytest.raises(CheckpointError, match='holds no config'):
        config_of({}, 'file.pth')


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('mmcv.Resize', 'Resize'),
        ('mmcv.transforms.processing.Resize', 'Resize'),
        ('gckd_mm.datasets.transforms.LoadPersonImage', 'gckd_mm.LoadPersonImage'),
    ],
)
def test_a_trusted_type_by_a_longer_name(kind: str, expected: str) -> None:
    asked = loaders()
    asked['mall']['gallery']['dataset']['pipeline'] = [dict(type=kind)]
    found = config_of(stored(test_dataloader=asked), 'x').test_dataloader.mall
    assert found.gallery.dataset.pipeline == [dict(type=expected)]


@pytest.mark.parametrize(
    'kind',
    [
        'evil.Resize',
        'mmpretrain.Resize',
        'gckd_mm.not_there.LoadPersonImage',
        'gckd_mm.registry.type_of',
        'os.path.LoadPersonImage',
        'gckd_mm.datasets.transforms.load_person_image.BaseTransform',
        'subprocess.Popen',
    ],
)
def test_a_path_is_trusted_only_if_it_leads_to_a_trusted_type(kind: str) -> None:
    asked = loaders()
    asked['mall']['gallery']['dataset']['pipeline'] = [dict(type=kind)]
    with pytest.raises(CheckpointError, match='which is no component of gckd_mm'):
        config_of(stored(test_dataloader=asked), 'x')
