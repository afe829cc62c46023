"""A number of a config that cannot be is named before any data is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from gckd_mm.engine.config_checks import check_test, check_training
from gckd_mm.engine.config_numbers import kind_of
from gckd_mm.errors import InputError
from tests.training import ROOT, small_config

NOWHERE = Path('nowhere')


def error_of(**overrides: Any) -> str:
    cfg = small_config(NOWHERE, NOWHERE, **overrides)
    with pytest.raises(InputError) as error:
        check_training(cfg, 'config.py')
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('train_dataloader__batch_size', None),
        ('train_cfg__max_iters', None),
        ('train_cfg__val_begin', -1),
        ('optim_wrapper__accumulative_counts', 0),
        ('train_dataloader__num_workers', None),
        ('train_dataloader__prefetch_factor', 0),
        ('train_dataloader__prefetch_factor', 'a'),
        ('train_dataloader__timeout', float('nan')),
        ('train_dataloader__persistent_workers', 'yes'),
        ('test_dataloader__rstpreid__query__drop_last', 'no'),
        ('test_dataloader__rstpreid__gallery__batch_size', None),
    ],
)
def test_a_number_that_cannot_be(key: str, value: object) -> None:
    assert error_of(**{key: value}).startswith(f'{key.replace("__", ".")} must be')


@pytest.mark.parametrize(
    'scale', [(-3, 5), '32x64', (32,), (0, 64), 1.5, True, (32, 64.0), [1, 2, 3]]
)
@pytest.mark.parametrize(
    'key', ['train_dataloader__dataset', 'test_dataloader__rstpreid__gallery__dataset']
)
def test_a_size_that_is_none(key: str, scale: object) -> None:
    expected = f'{key.replace("__", ".")}.pipeline.1.scale must be (width, height)'
    assert error_of(**{f'{key}__pipeline__1__scale': scale}).startswith(expected)


def test_a_pipeline_that_loads_no_image() -> None:
    steps = [dict(type='Resize', scale=(32, 64)), dict(type='PackPersonText')]
    message = error_of(train_dataloader__dataset__pipeline=steps)
    assert message.startswith(
        "train_dataloader.dataset.pipeline must begin with dict(type='LoadPersonImage')"
    )
    cfg = small_config(NOWHERE, NOWHERE)
    cfg.test_dataloader.rstpreid.gallery.dataset.pipeline = steps
    with pytest.raises(InputError, match=r'test_dataloader\.rstpreid\.gallery'):
        check_test(cfg)


def test_a_transform_of_other_people_may_load() -> None:
    cfg = small_config(NOWHERE, NOWHERE)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='ReadFromMyStore'),
        dict(type='PackPersonText'),
    ]
    check_training(cfg, 'config.py')


def test_every_config_that_is_shipped_passes_the_test_too() -> None:
    for path in sorted((ROOT / 'configs').glob('**/*.py')):
        if '_base_' not in path.parts:
            check_test(Config.fromfile(path))


def test_the_kind_of_a_component() -> None:
    assert kind_of('abc') == ''
    assert kind_of({'type': dict}) == 'dict'
    assert kind_of({'type': 'mmpretrain.RandomCrop'}) == 'RandomCrop'
