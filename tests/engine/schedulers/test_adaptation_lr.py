"""A learning rate that begins anew after the source stage."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch.optim import SGD

from gckd_mm.engine.schedulers import AdaptationLR
from gckd_mm.errors import InputError
from tests.training import in_process

SOURCE_STAGE = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=400),
]
ADAPTATION = dict(
    type='gckd_mm.AdaptationLR',
    factor=0.5,
    warmup=20 / 300,
    by_epoch=False,
    begin=400,
    end=700,
)
INITIAL = (1e-3, 4e-3)


def make_optimizer() -> OptimWrapper:
    groups = [
        {'params': [torch.zeros(1, requires_grad=True)], 'lr': lr} for lr in INITIAL
    ]
    return OptimWrapper(SGD(groups))


def make_schedulers(
    optimizer: OptimWrapper, configs: list[dict]
) -> list[_ParamScheduler]:
    return [
        PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=optimizer))
        for config in configs
    ]


def run(
    optimizer: OptimWrapper, schedulers: list[_ParamScheduler], iters: int
) -> list[tuple[float, ...]]:
    """The learning rate of both groups in each iteration."""
    used = []
    for _ in range(iters):
        used.append(tuple(group['lr'] for group in optimizer.optimizer.param_groups))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return used


def trace(configs: list[dict], iters: int) -> list[tuple[float, ...]]:
    optimizer = make_optimizer()
    return run(optimizer, make_schedulers(optimizer, configs), iters)


def expected_share(step: int, warmup: int, length: int) -> float:
    if step < warmup:
        return 0.1 + 0.9 * step / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (length - warmup))


def test_the_source_stage_is_as_without_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        both = trace([*SOURCE_STAGE, ADAPTATION], 700)

    assert both[:400] == trace(SOURCE_STAGE, 400)


def test_the_adaptation_is_a_function_of_the_initial_rate_alone() -> None:
    adaptation = trace([*SOURCE_STAGE, ADAPTATION], 700)[400:]

    for step, rates in enumerate(adaptation):
        for rate, initial in zip(rates, INITIAL, strict=True):
            share = 0.5 * expected_share(step, 20, 300)
            assert rate == pytest.approx(share * initial, rel=1e-12)
    # Whatever came before, the end of all learning included.
    zeroed = [dict(type='ConstantLR', factor=1e-30, by_epoch=False, end=401)]
    assert trace([*zeroed, ADAPTATION], 700)[400:] == adaptation


def test_without_warm_up_it_begins_at_the_top_and_falls_to_nothing() -> None:
    rates = [rate for rate, _ in trace([{**ADAPTATION, 'warmup': 0, 'begin': 0}], 700)]

    assert rates[0] == 0.5 * INITIAL[0]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-5 * INITIAL[0]


@pytest.mark.parametrize('at', [123, 400, 411, 555])
def test_a_resumed_one_goes_on_exactly(at: int) -> None:
    configs = [*SOURCE_STAGE, ADAPTATION]
    optimizer = make_optimizer()
    schedulers = make_schedulers(optimizer, configs)
    run(optimizer, schedulers, at)
    states = [scheduler.state_dict() for scheduler in schedulers]

    resumed = make_optimizer()
    resumed_schedulers = make_schedulers(resumed, configs)
    resumed.load_state_dict(optimizer.state_dict())
    for scheduler, state in zip(resumed_schedulers, states, strict=True):
        scheduler.load_state_dict(dict(state))

    assert run(resumed, resumed_schedulers, 700 - at) == trace(configs, 700)[at:]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(by_epoch=True), 'set by_epoch=False'),
        (dict(factor=0), 'factor must be positive, got 0'),
        (dict(warmup=-1), 'warmup is a fraction.* got -1'),
        (dict(warmup=1), 'a fraction of the adaptation.*got 1'),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = dict(by_epoch=False, begin=400, end=700)
    with pytest.raises(InputError, match=message):
        AdaptationLR(make_optimizer(), **{**given, **arguments})


@pytest.mark.parametrize('length', [1, 2, 3, 10, 30, 300])
@pytest.mark.parametrize('warmup', [0.0, 0.1, 0.5, 1 - 1e-9])
def test_the_warm_up_is_a_fraction_and_leaves_an_iteration(
    warmup: float, length: int
) -> None:
    found = AdaptationLR(
        make_optimizer(), warmup=warmup, begin=4, end=4 + length, by_epoch=False
    )

    assert found.warmup == min(int(round(warmup * length, 6)), length - 1)


def test_it_counts_epochs_unless_told() -> None:
    # The runner reads the config's by_epoch with the same default, to choose `end`.
    with pytest.raises(InputError, match='set by_epoch=False'):
        AdaptationLR(make_optimizer(), end=700)


def test_importing_the_package_is_enough_to_find_it() -> None:
    # A builtin: a function of this module would import the scheduler itself.
    code = (
        'import gckd_mm; from mmengine.registry import PARAM_SCHEDULERS; '
        "assert PARAM_SCHEDULERS.get('gckd_mm.AdaptationLR') is not None"
    )
    assert in_process(exec, code) == 0
