"""Keys below the top level that nothing reads."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from gckd_mm.engine.config_keys import STOCK_HOOKS, check_keys, drop_absent_hooks
from gckd_mm.errors import InputError


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('chekpoint', 'checkpoint'),
        ('loger', 'logger'),
        ('finite_los', 'finite_loss'),
        ('param_schedular', 'param_scheduler'),
    ],
)
def test_a_misspelt_hook(
    key: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for hook in (None, {'interval': 5}):
        cfg = Config({'default_hooks': {key: hook}})
        drop_absent_hooks(cfg)
        with pytest.raises(InputError, match=f'{key} .*did you mean {meant!r}'):
            check_keys(cfg, 'x.py')
    check_keys(Config({'default_hooks': {key: {'type': 'TimerHook'}}}), 'x.py')
    assert f'did you mean {meant!r}' in capsys.readouterr().err


def test_none_takes_any_hook_away() -> None:
    absent = dict.fromkeys(['visualization', 'iteration_seed', 'ema', *STOCK_HOOKS])
    cfg = Config({'default_hooks': {**absent, 'mine': {'type': 'A'}}})
    drop_absent_hooks(cfg)
    assert set(cfg.default_hooks) == {*STOCK_HOOKS, 'mine'}
    check_keys(cfg, 'x.py')


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('env_cfg.cudnn_benchmrk', 'cudnn_benchmark'),
        ('auto_scale_lr.enabled', 'enable'),
        ('optim_wrapper.paramwise_cfg.norm_decay_mul', 'norm_decay_mult'),
        ('optim_wrapper.paramwise_cfg.custom_keys.head.lr_mlt', 'lr_mult'),
    ],
)
def test_a_key_that_nothing_looks_at(
    key: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = Config()
    cfg.merge_from_dict({key: 1})
    check_keys(cfg, 'x.py')
    shown = capsys.readouterr().err
    assert f'config x.py: {key}: nothing looks at it: did you mean {meant!r}' in shown
