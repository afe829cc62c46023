"""Every config can be read, and names what is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from gckd_mm.checkpoint import local_path
from gckd_mm.engine.direction import turned
from gckd_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob('*/**/*.py')
    if '_base_' not in path.relative_to(ROOT).parts
)
#: at the names of earlier versions
THIN = sorted(path.name for path in ROOT.glob('*.py'))
#: of each direction, and what each kind of ablation changes in `model`
DIRECTIONS = [
    f'{source}2{target}'
    for source in ('street', 'mall', 'campus')
    for target in ('street', 'mall', 'campus')
    if source != target
]
ABLATIONS: dict[str, dict[str, Any]] = {
    'cmkd': {'graph': None, 'consistency': None, 'labels.propagation': None},
    'gmp': {'labels': None, 'distill': None},
    'with_cross_modal': {'graph.k.cross_modal': 3},
    'with_learned_graph': {
        'type': 'GCKDWithLearnedGraph',
        'graph.neck.layer': 'SAGEConv',
        'graph.neck.num_layers': 2,
    },
    'with_matching': {
        'type': 'GCKDWithMatching',
        'matching': {
            'type': 'ImageTextMatchingHead',
            'image_channels': 128,
            'caption_channels': 128,
        },
    },
    'without_assignment': {'labels.assignment': None},
    'without_consistency': {'consistency': None},
    'without_cross_domain': {'graph.k.cross_domain': 0},
    'without_graph': {'graph': None, 'labels.propagation': None},
    'without_momentum': {'teacher_momentum': 0.0},
}
ADAPTING = [
    name
    for name in CONFIGS
    if name.startswith(('gckd/', 'ablations/', 'baselines/uda/'))
]
UDA = [name for name in ADAPTING if 'uda' in name and 'street2mall' in name]
OFFICIAL = {'cuhk': 'cuhk_pedes', 'icfg': 'icfg_pedes', 'rstp': 'rstpreid'}
#: the larger modality of each train set, as published; iterations of an epoch, 64 pairs
SIZES = {'cuhk': (68126, 1065), 'icfg': (34674, 542), 'rstp': (37010, 579)}


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


def built(cfg: Config) -> nn.Module:
    """Build the model without its numbers, which for CLIP take seconds."""
    if 'TIMMBackbone' in cfg.model.image_backbone.type:
        pytest.importorskip('timm')
    with torch.device('meta'):
        return MODELS.build({**cfg.model, '_scope_': 'gckd_mm'})


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_its_model_and_finds_its_start(name: str) -> None:
    cfg = Config.fromfile(ROOT / name)
    model = built(cfg)
    height, width = cfg.image_pipeline[1]['scale'][::-1]
    images = torch.empty(2, 3, height, width, device='meta')
    size = cfg.model.get('embedding_size', cfg.model.text_neck.out_channels)
    assert model.embed_images(images)[0].shape == (2, size)
    if cfg.model.text_backbone.type != 'HFTextBackbone':  # looks at the mask's values
        tokens = torch.ones(2, 9, dtype=torch.int64, device='meta')
        captions = {'input_ids': tokens, 'attention_mask': tokens.bool()}
        assert model.embed_captions(captions)[0].shape == (2, size)
    if cfg.load_from is not None:
        assert Path(local_path(cfg.load_from)).is_file()
    else:
        assert cfg.default_hooks.tokenizer is not None
    found = [*datasets(cfg.train_dataloader), *datasets(cfg.test_dataloader)]
    assert found
    for dataset in found:
        assert dataset['type'] in DATASETS.module_dict
        assert dataset['data_root'].startswith('data/')


def test_the_oracles_have_the_budget_and_the_start_of_the_source_stage() -> None:
    alone, both, target = (
        Config.fromfile(ROOT / f'baselines/{name}.py')
        for name in ('source_only_street2mall', 'oracle_street2mall', 'oracle_mall')
    )
    roots = [
        [Path(d['data_root']).name for d in datasets(cfg.train_dataloader)]
        for cfg in (alone, both, target)
    ]
    assert roots == [['street'], ['street', 'mall'], ['mall']]
    assert list(alone.test_dataloader) == ['mall', 'street']
    assert list(target.test_dataloader) == ['mall']
    for key in ('model', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'load_from'):
        assert alone[key] == both[key] == target[key]


def assert_same_rates(adapting: Config, baseline: Config) -> None:
    """The schedulers of the source stage are those of the baseline."""
    iters = baseline.train_cfg.max_iters
    *found, adaptation = adapting.param_scheduler
    bounded = []
    for scheduler in found:
        bounds = {
            name: round(scheduler.get(name, default) * iters)
            for name, default in (('begin', 0.0), ('end', 1.0))
        }
        bounded.append({**scheduler, **bounds})
    assert bounded == [
        {**scheduler, 'begin': scheduler.get('begin', 0)}
        | {'end': scheduler.get('end', iters)}
        for scheduler in baseline.param_scheduler
    ]
    assert adaptation.type == 'AdaptationLR'


@pytest.mark.parametrize('direction', DIRECTIONS)
def test_gckd_trains_like_the_source_only_baseline_and_then_on_the_target(
    direction: str,
) -> None:
    cfg = Config.fromfile(ROOT / f'gckd/gckd_{direction}.py')
    source, target = direction.split('2')
    baseline = Config.fromfile(ROOT / 'baselines/source_only_street2mall.py')
    baseline = turned(baseline, source, target)
    loader, expected = cfg.train_dataloader, baseline.train_dataloader
    assert Path(loader.dataset.target.data_root).name == target
    assert loader.dataset.target.split == 'train'
    # The first iterations are the baseline's, in what is learned from ...
    assert loader.dataset.source == expected.dataset
    assert Path(loader.dataset.source.data_root).name == source
    others = loader.keys() - {'dataset', 'sampler'}
    assert others == expected.keys() - {'dataset', 'sampler'}
    assert all(loader[key] == expected[key] for key in others)
    assert expected.sampler == {'type': 'PairedSampler'}
    assert 'num_instances' not in loader.sampler
    # ... and in how: from the same start, with the same encoders and heads.
    added = cfg.model.keys() - baseline.model.keys()
    assert added == {
        *('embedding_size', 'memory_size', 'teacher_momentum'),
        *('graph', 'labels', 'distill', 'consistency', 'loss_weights'),
    }
    assert {k: v for k, v in cfg.model.items() if k not in added} == {
        **baseline.model,
        'type': 'GCKD',
    }
    assert cfg.train_cfg.source_iters == baseline.train_cfg.max_iters
    assert_same_rates(cfg, baseline)
    cfg.default_hooks.pop('adaptation')
    for key in (
        *('optim_wrapper', 'load_from', 'randomness', 'default_hooks', 'custom_hooks'),
        *('test_dataloader', 'test_cfg', 'test_evaluator'),
    ):
        assert cfg[key] == baseline[key], key


@pytest.mark.parametrize('source', OFFICIAL)
@pytest.mark.parametrize('target', OFFICIAL)
def test_gckd_on_the_official_datasets_goes_on_from_source_only(
    source: str, target: str
) -> None:
    if source == target:
        return
    cfg = Config.fromfile(ROOT / f'gckd/gckd_{source}2{target}.py')
    baseline = Config.fromfile(ROOT / 'baselines/source_only_cuhk2rstp.py')
    baseline = turned(baseline, source, target)
    ends = cfg.train_dataloader.dataset
    assert (
        ends.source
        == baseline.train_dataloader.dataset
        == cfg[f'{OFFICIAL[source]}_train']
    )
    assert ends.target == cfg[f'{OFFICIAL[target]}_target']
    assert ends.source.data_root == f'data/{OFFICIAL[source]}'
    assert ends.target.data_root == f'data/{OFFICIAL[target]}'
    assert list(cfg.test_dataloader) == [OFFICIAL[target], OFFICIAL[source]]
    # 60 epochs, which the baseline stops at
    pairs, epoch = SIZES[source]
    assert (epoch - 1) * 64 < pairs <= epoch * 64
    assert cfg.train_cfg.source_iters == baseline.train_cfg.max_iters == 60 * epoch
    assert_same_rates(cfg, baseline)
    # balanced assignment wants to see all of the target
    assert SIZES[target][0] <= cfg.model.memory_size
    common = {**baseline.model, 'type': 'GCKD'}
    assert {key: cfg.model[key] for key in common} == common
    for key in ('optim_wrapper', 'load_from', 'test_dataloader', 'test_evaluator'):
        assert cfg[key] == baseline[key], key


def test_the_flagship_is_clips_vit_b16() -> None:
    model = built(Config.fromfile(ROOT / 'baselines/source_only_cuhk2rstp.py'))
    # OpenAI's 149,620,737, without the temperature and 4 of 14 × 14 patches' positions
    assert sum(p.numel() for p in model.parameters()) == 149_620_737 - 1 - 4 * 768


@pytest.mark.parametrize('name', ADAPTING)
def test_all_parts_agree_on_the_stages(name: str) -> None:
    cfg = Config.fromfile(ROOT / name)
    lengths = {name: cfg.train_cfg[name] for name in ('source_iters', 'adapt_iters')}
    assert cfg.train_cfg == {'type': 'TwoStageTrainLoop', **lengths}
    assert min(lengths.values()) > 0
    # Neither length stands a second time.
    assert cfg.train_dataloader.sampler == {'type': 'CrossDomainSampler'}
    assert 'source_iters' not in cfg.model
    *before, adaptation = cfg.param_scheduler
    assert adaptation == dict(type='AdaptationLR', by_epoch=False, warmup=0.1)
    for scheduler in before:
        assert isinstance(scheduler.get('begin', 0.0), float)
        assert isinstance(scheduler.get('end', 1.0), float)
    model = built(cfg)
    model.set_stages(**lengths)
    if cfg.model.type.startswith('GCKD'):
        assert cfg.model.memory_size >= cfg.train_dataloader.batch_size


def test_every_ablation_is_known() -> None:
    kinds = [Path(name).stem for name in ADAPTING if 'ablations' in name]
    assert {*kinds} == {f'{kind}_street2mall' for kind in ABLATIONS}


@pytest.mark.parametrize('name', [name for name in ADAPTING if 'ablations' in name])
def test_an_ablation_differs_from_its_parent_in_the_named_part_alone(
    name: str,
) -> None:
    kind, direction = Path(name).stem.rsplit('_', 1)
    parent = Config.fromfile(ROOT / f'gckd/gckd_{direction}.py')
    ablation = Config.fromfile(ROOT / name)
    assert ablation.to_dict() != parent.to_dict()
    parent.merge_from_dict(
        {f'model.{key}': value for key, value in ABLATIONS[kind].items()}
    )
    assert ablation.to_dict() == parent.to_dict()


@pytest.mark.parametrize('name', UDA)
def test_a_baseline_trains_like_gckd_but_for_its_head(name: str) -> None:
    cfg = Config.fromfile(ROOT / name)
    ours = Config.fromfile(ROOT / 'gckd/gckd_street2mall.py')
    common = Config.fromfile(ROOT / 'baselines/uda/continued_street2mall.py').model
    for key in [k for k in ours if k != 'model' and not k.startswith('_')]:
        assert cfg[key] == ours[key], key
    if cfg.model.type == 'GCKD':
        assert cfg.model.graph is cfg.model.consistency is None
    else:
        assert {k: v for k, v in cfg.model.items() if k != 'adaptation'} == common
    # the encoders, and the start of the adaptation
    assert all(ours.model[key] == common[key] for key in common if key != 'type')


@pytest.mark.parametrize('name', [name for name in ADAPTING if 'matching' in name])
def test_the_matching_head_fits_the_encoders(name: str) -> None:
    model = Config.fromfile(ROOT / name).model
    assert model.matching.image_channels == model.image_neck.in_channels
    assert model.matching.caption_channels == model.text_neck.in_channels


def test_no_two_configs_share_a_name() -> None:
    """`mim` finds a config by its file's name alone; `_base_` ships, too."""
    names = [path.name for path in ROOT.glob('*/**/*.py')]
    assert len(set(names)) == len(names)


def test_the_files_at_the_old_names_are_the_configs_of_the_folder() -> None:
    folder = ROOT / 'gckd'
    assert sorted(path.name for path in folder.glob('*.py')) == THIN
    for name in THIN:
        thin = Config.fromfile(ROOT / name)
        assert thin.to_dict() == Config.fromfile(folder / name).to_dict(), name


@pytest.mark.parametrize('name', CONFIGS)
def test_an_experiment_fits_on_a_screen(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 60


@pytest.mark.parametrize('name', CONFIGS)
def test_a_training_that_diverges_is_stopped_once(name: str) -> None:
    cfg = Config.fromfile(ROOT / name)
    hooks = [*cfg.default_hooks.values(), *cfg.custom_hooks]
    kinds = [hook['type'].rpartition('.')[2] for hook in hooks]
    assert kinds.count('FiniteLossHook') == 1
    assert cfg.default_hooks.finite_loss.type == 'FiniteLossHook'
