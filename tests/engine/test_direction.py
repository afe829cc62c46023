"""``--source`` and ``--target``: one config in another direction."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from gckd_mm.datasets import RSTPReid
from gckd_mm.engine.direction import turned
from gckd_mm.errors import InputError
from gckd_mm.registry import DATASETS, type_of

ROOT = Path(__file__).parents[2] / 'configs'
SYNTHETIC = {name: name for name in ('street', 'mall', 'campus')}
OFFICIAL = {'cuhk': 'cuhk_pedes', 'icfg': 'icfg_pedes', 'rstp': 'rstpreid'}
#: of the official datasets: iterations of an epoch, and a memory of all captions
EPOCHS = {'cuhk': 1065, 'icfg': 542, 'rstp': 579}
MEMORIES = {'cuhk': 69_000, 'icfg': 35_000, 'rstp': 38_000}
PAIRS = [*permutations(SYNTHETIC, 2), *permutations(OFFICIAL, 2)]
#: configs that are trained on both domains, or on the source alone
ON_BOTH = [
    'ablations/cmkd_street2mall',
    'ablations/gmp_street2mall',
    'baselines/oracle_street2mall',
    'baselines/uda/mmd_street2mall',
    'baselines/uda/albef_street2mall',
]


def read(name: str) -> Config:
    return Config.fromfile(ROOT / f'{name}.py')


def head(kind: str, source: str) -> str:
    return f'{kind}_street2mall' if source in SYNTHETIC else f'{kind}_cuhk2rstp'


def rest(cfg: Config | ConfigDict, *changed: str) -> dict[str, Any]:
    return {key: value for key, value in cfg.to_dict().items() if key not in changed}


@pytest.mark.parametrize(('source', 'target'), PAIRS)
def test_gckd_turned_is_the_named_config(source: str, target: str) -> None:
    named = read(f'gckd/gckd_{source}2{target}')
    domains = SYNTHETIC if source in SYNTHETIC else OFFICIAL
    for start in permutations(domains, 2):
        found = turned(read(f'gckd/gckd_{start[0]}2{start[1]}'), source, target)
        assert found.to_dict() == named.to_dict()
        assert list(found.test_dataloader) == list(named.test_dataloader)
        assert found.filename == named.filename


@pytest.mark.parametrize(
    ('kind', 'source', 'target'),
    [
        *(('source_only', *pair) for pair in PAIRS),
        *(('source_only_tiny', *pair) for pair in permutations(OFFICIAL, 2)),
    ],
)
def test_source_only_is_trained_on_the_source_and_tested_on_both(
    kind: str, source: str, target: str
) -> None:
    kind = f'baselines/{kind}'
    old = read(head(kind, source))
    new = turned(old, source, target)
    key_of = SYNTHETIC | OFFICIAL
    assert new.train_dataloader.dataset == new[f'{key_of[source]}_train']
    assert rest(new.train_dataloader, 'dataset') == rest(
        old.train_dataloader, 'dataset'
    )
    assert list(new.test_dataloader) == [key_of[target], key_of[source]]
    for name, loaders in new.test_dataloader.items():
        assert loaders == new[f'{name}_test']
    changed = ['train_dataloader', 'test_dataloader']
    if source in OFFICIAL and 'tiny' not in kind:
        changed += ['train_cfg', 'param_scheduler']
        epoch = EPOCHS[source]
        assert new.train_cfg == {**old.train_cfg, 'max_iters': 60 * epoch}
        warmup, cosine = new.param_scheduler
        assert warmup == {**old.param_scheduler[0], 'end': 5 * epoch}
        bounds = {'begin': 5 * epoch, 'end': 60 * epoch}
        assert cosine == {**old.param_scheduler[1], **bounds}
    assert rest(new, *changed) == rest(old, *changed)
    assert Path(new.filename).stem == f'{Path(kind).name}_{source}2{target}'


@pytest.mark.parametrize(('source', 'target'), [*permutations(SYNTHETIC, 2)])
@pytest.mark.parametrize('name', ON_BOTH)
def test_what_is_trained_on_both_domains(name: str, source: str, target: str) -> None:
    old = read(name)
    new = turned(old, source, target)
    trained = [new[f'{source}_train'], new[f'{target}_train']]
    dataset = new.train_dataloader.dataset
    assert trained == dataset.get(
        'datasets', [dataset.get('source'), dataset.get('target')]
    )
    assert [*new.test_dataloader.items()] == [
        (domain, new[f'{domain}_test']) for domain in (target, source)
    ]
    changed = ('train_dataloader', 'test_dataloader')
    assert rest(new, *changed) == rest(old, *changed)
    stem = Path(name).name.replace('street2mall', f'{source}2{target}')
    assert Path(new.filename).stem == stem


def test_a_config_of_one_domain_stays_one_of_one() -> None:
    oracle = read('baselines/oracle_mall')
    for asked in (('street', None), (None, 'street'), ('street', 'street')):
        found = turned(oracle, *asked)
        assert found.train_dataloader.dataset == found.street_train
        assert found.test_dataloader == {'street': found.street_test}
        assert Path(found.filename).stem == 'oracle_street'
    alone = turned(read('baselines/source_only_street2mall'), 'mall', 'mall')
    assert alone.train_dataloader == oracle.train_dataloader
    assert alone.test_dataloader == oracle.test_dataloader
    with pytest.raises(InputError, match='--source street --target mall: must be the'):
        turned(oracle, 'street', 'mall')


def test_one_end_alone_keeps_the_other() -> None:
    cfg = read('gckd/gckd_street2mall')
    assert Path(turned(cfg, source='campus').filename).stem == 'gckd_campus2mall'
    assert Path(turned(cfg, target='campus').filename).stem == 'gckd_street2campus'
    assert turned(cfg) is cfg


def test_the_target_of_a_hook_and_the_memory_turn_too() -> None:
    old = read('baselines/uda/adabn_cuhk2rstp_minilm-lite0')
    new = turned(old, 'icfg', 'cuhk')
    (hook,) = new.custom_hooks
    assert hook == {
        'type': 'AdaBNHook',
        'target': {**new.cuhk_pedes_target, 'pipeline': new.image_pipeline},
    }
    assert Path(new.filename).stem == 'adabn_icfg2cuhk_minilm-lite0'
    assert new.train_cfg == old.train_cfg  # not counted in epochs
    gckd = turned(read('gckd/gckd_cuhk2rstp_minilm-lite0'), target='icfg')
    assert gckd.model.memory_size == MEMORIES['icfg']


def test_validation_and_what_watches_it_turn_too() -> None:
    cfg = read('gckd/gckd_street2mall')
    cfg.val_dataloader = {'mall': cfg.mall_val}
    cfg.default_hooks.checkpoint.save_best = ['mall/R1', 'street/R1']
    cfg.custom_hooks = [
        dict(type='EarlyStoppingHook', monitor='mall/mAP'),
        dict(type='TargetProbeHook', test_sets=dict(mall=cfg.mall_test)),
    ]
    found = turned(cfg, 'campus', 'street')
    assert found.val_dataloader == {'street': found.street_val}
    assert found.default_hooks.checkpoint.save_best == ['street/R1', 'campus/R1']
    stopping, probe = found.custom_hooks
    assert stopping.monitor == 'street/mAP'
    assert probe.test_sets == {'street': found.street_test}


def test_the_first_other_test_set_is_the_target_of_source_only() -> None:
    cfg = read('baselines/source_only_street2mall')
    sets = ('campus', 'mall', 'street')
    cfg.test_dataloader = {name: cfg[f'{name}_test'] for name in sets}
    found = turned(cfg, source='mall')
    assert Path(found.filename).stem == 'source_only_mall2campus'


def test_a_config_in_pure_python_turns_too(tmp_path: Path) -> None:
    path = tmp_path / 'mine_street2mall.py'
    path.write_text("""from gckd_mm.datasets import CUHKPEDES, RSTPReid
street = dict(type=CUHKPEDES, data_root='street')
mall = dict(type=RSTPReid, data_root='mall')
domains = dict(street=dict(dataset=street), mall=dict(dataset=mall))
train_dataloader = dict(dataset=dict(source=dict(**street), target=dict(**mall)))
test_dataloader = dict(mall=dict(gallery=dict(dataset=dict(**mall))))
""")
    found = turned(Config.fromfile(path), 'mall', 'street')
    assert found.train_dataloader.dataset.source == found.mall
    assert found.train_dataloader.dataset.target == found.street
    assert found.test_dataloader == {'street': {'gallery': {'dataset': found.street}}}
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        assert type_of(DATASETS, found.mall.type) is RSTPReid


def test_own_lengths_and_sizes_are_kept() -> None:
    cfg = read('gckd/gckd_cuhk2rstp')
    cfg.train_cfg.source_iters, cfg.model.memory_size = 100, 128
    found = turned(cfg, 'icfg', 'cuhk')
    assert found.train_cfg.source_iters == 100
    assert found.model.memory_size == 128


def test_the_config_that_is_turned_stays_as_it_is() -> None:
    cfg = read('gckd/gckd_cuhk2rstp')
    before = cfg.to_dict()
    turned(cfg, 'icfg', 'cuhk')
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ('name', 'source', 'target', 'message'),
    [
        (
            'gckd/gckd_street2mall',
            'campsu',
            None,
            "must be one of street, mall, campus: did you mean 'campus'",
        ),
        ('gckd/gckd_cuhk2rstp', None, 'mall', 'must be one of cuhk, icfg, rstp'),
        ('gckd/gckd_street2mall', None, 'street', 'must differ'),
        ('baselines/oracle_street2mall', 'mall', 'mall', 'must differ'),
        ('gckd/gckd_street2real_minilm-lite0', 'mall', None, 'no `domains`'),
    ],
)
def test_what_cannot_be_is_one_line(
    name: str, source: str | None, target: str | None, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        turned(read(name), source, target)
    assert message in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_table_of_another_form_is_refused() -> None:
    cfg = read('gckd/gckd_street2mall')
    cfg.domains.park = 'data/park'
    with pytest.raises(InputError, match=r"domains\.park: must be dict.*'data/park'"):
        turned(cfg, 'campus')


def test_data_of_no_domain_is_refused() -> None:
    cfg = read('gckd/gckd_street2mall')
    cfg.train_dataloader.dataset.source.data_root = '/elsewhere'
    with pytest.raises(InputError, match='cannot tell the direction'):
        turned(cfg, 'campus')
