"""The lengths of two stages: who receives them, and what contradicts them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.optim import CosineAnnealingLR, LinearLR
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from gckd_mm.datasets.samplers import CrossDomainSampler, PairedSampler
from gckd_mm.engine.hooks import AdaptationHook
from gckd_mm.engine.loops import TwoStageTrainLoop
from gckd_mm.engine.schedulers import AdaptationLR
from gckd_mm.errors import InputError
from gckd_mm.models.retrievers.schedule_settings import read_schedule
from gckd_mm.models.retrievers.staged import Schedule
from tests.engine.hooks.test_adaptation_hook import Adapting, CrossDomain

NUMBERS = itertools.count()
SCHEDULERS = (
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=0.25),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0.25),
    dict(type='AdaptationLR', by_epoch=False, warmup=0.1),
)


class Ramped(Adapting):
    """One that has a ramp, and notes the lengths that it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[tuple[int, int]] = []
        self.ramp = read_schedule(dict(start=0, end=1, length=0.5), 'ramp')

    def set_stages(self, source_iters: int, adapt_iters: int) -> None:
        super().set_stages(source_iters, adapt_iters)
        self.lengths.append((source_iters, adapt_iters))
        self.ramp.num_steps = adapt_iters

    def schedules(self) -> dict[str, Schedule]:
        return {'ramp': self.ramp}


class OneStage(BaseModel):
    """A model that does not adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, **kwargs: Any) -> None: ...


@pytest.fixture(autouse=True)
def _quiet_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)


def make_runner(
    work_dir: Path,
    lengths: tuple[int, int] = (8, 20),
    schedulers: Any = SCHEDULERS,
    sampler: Any = None,
    model: Any = None,
    loader: dict | None = None,
    **train_cfg: Any,
) -> Runner:
    cfg = Config(
        dict(
            model=dict(type=Ramped) if model is None else model,
            work_dir=str(work_dir),
            train_dataloader={
                'dataset': dict(type=CrossDomain),
                'sampler': sampler or dict(type='CrossDomainSampler', seed=0),
                'batch_size': 3,
                'num_workers': 0,
                'collate_fn': dict(type='default_collate'),
                **(loader or {}),
            },
            train_cfg={
                'type': 'TwoStageTrainLoop',
                'source_iters': lengths[0],
                'adapt_iters': lengths[1],
                **train_cfg,
            },
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)
            ),
            param_scheduler=schedulers,
            custom_hooks=[dict(type=AdaptationHook)],
            default_scope='gckd_mm',
            experiment_name=f'two_stages_{next(NUMBERS)}',
            log_level='ERROR',
        )
    )
    return Runner.from_cfg(cfg)


def scheduler_configs(runner: Runner) -> list[Any]:
    """What the runner is to build, once the loop is built."""
    assert isinstance(runner.train_loop, TwoStageTrainLoop)
    return runner.param_schedulers


def bounds(schedulers: list[Any]) -> list[tuple[str, int, int]]:
    return [(each['type'], each['begin'], each['end']) for each in schedulers]


def test_sampler_model_and_loop_receive_them(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    loop = runner.train_loop

    assert isinstance(loop, IterBasedTrainLoop)
    assert (loop.source_iters, loop.adapt_iters, loop.max_iters) == (8, 20, 28)
    sampler = loop.dataloader.sampler
    assert (sampler.source_iters, sampler.batch_size) == (8, 3)
    assert sampler.index_at(8 * 3 - 1)[1] is None
    assert sampler.index_at(8 * 3)[1] is not None
    assert runner.model.lengths == [(8, 20)]
    assert runner.model.ramp.at(5) == 0.5


def test_the_model_in_a_wrapper_receives_them(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    inner = runner.model
    runner.model = nn.DataParallel(inner)

    assert runner.train_loop.max_iters == 28
    assert inner.lengths == [(8, 20)]


@pytest.mark.parametrize(
    ('lengths', 'expected'),
    [
        (
            (8, 20),
            [
                ('LinearLR', 0, 2),
                ('CosineAnnealingLR', 2, 8),
                ('AdaptationLR', 8, 28),
            ],
        ),
        ((1, 1), [('CosineAnnealingLR', 0, 1), ('AdaptationLR', 1, 2)]),
        ((0, 5), [('AdaptationLR', 0, 5)]),
        ((8, 0), [('LinearLR', 0, 2), ('CosineAnnealingLR', 2, 8)]),
    ],
)
def test_schedulers_act_in_their_stage_or_are_left_out(
    tmp_path: Path,
    lengths: tuple[int, int],
    expected: list[tuple[str, int, int]],
) -> None:
    assert bounds(scheduler_configs(make_runner(tmp_path, lengths))) == expected


@pytest.mark.parametrize('lengths', [(1, 1), (2, 3), (0, 2), (2, 0)])
def test_very_short_runs_train(tmp_path: Path, lengths: tuple[int, int]) -> None:
    runner = make_runner(tmp_path, lengths)
    runner.train()

    assert runner.iter == sum(lengths)
    events = runner.model.events
    assert [e for e in events if e[0] in ('source', 'target')] == [
        ('source' if iteration < lengths[0] else 'target', iteration)
        for iteration in range(sum(lengths))
    ]
    assert [e for e in events if e[0] == 'start'] == (
        [('start', lengths[0])] if lengths[1] else []
    )


def test_bounds_in_iterations_are_left_as_they_are(tmp_path: Path) -> None:
    given = [dict(type='LinearLR', by_epoch=False, begin=1, end=11)]
    assert bounds(scheduler_configs(make_runner(tmp_path, schedulers=given))) == [
        ('LinearLR', 1, 11)
    ]


def test_one_scheduler_alone_and_schedulers_by_name(tmp_path: Path) -> None:
    alone = SCHEDULERS[2]
    one = make_runner(tmp_path / 'one', schedulers=alone)
    assert bounds(scheduler_configs(one)) == [('AdaptationLR', 8, 28)]
    named = make_runner(tmp_path / 'named', schedulers={'a': alone, 'b': [alone]})
    found: Any = scheduler_configs(named)
    assert {name: bounds(part) for name, part in found.items()} == {
        'a': [('AdaptationLR', 8, 28)],
        'b': [('AdaptationLR', 8, 28)],
    }


@pytest.mark.parametrize('schedulers', [None, []])
def test_a_constant_learning_rate(tmp_path: Path, schedulers: Any) -> None:
    assert not scheduler_configs(make_runner(tmp_path, schedulers=schedulers))


def test_classes_instead_of_names(tmp_path: Path) -> None:
    runner = make_runner(
        tmp_path,
        type=TwoStageTrainLoop,
        sampler=dict(type=CrossDomainSampler, seed=0),
        schedulers=[
            dict(SCHEDULERS[0], type=LinearLR),
            dict(SCHEDULERS[1], type=CosineAnnealingLR),
            dict(SCHEDULERS[2], type=AdaptationLR),
        ],
    )
    runner.train()

    found = [(s.begin, s.end) for s in runner.param_schedulers]
    assert found == [(0, 2), (2, 8), (8, 28)]


def test_the_given_config_is_not_changed(tmp_path: Path) -> None:
    sampler = ConfigDict(type='CrossDomainSampler', seed=0)
    runner = make_runner(tmp_path, sampler=sampler)
    assert runner.train_loop.max_iters == 28
    assert runner.cfg.train_dataloader.sampler == sampler
    assert 'begin' not in runner.cfg.param_scheduler[2]


def test_options_of_mmengines_loop_are_passed_on(tmp_path: Path) -> None:
    loop = make_runner(tmp_path, val_begin=3, val_interval=4).train_loop
    assert (loop.val_begin, loop.val_interval) == (3, 4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(max_iters=5), 'max_iters=5: .*--source-iters N --adapt-iters M'),
        (dict(lengths=(-1, 5)), 'source_iters must be a whole number .* got -1'),
        (dict(lengths=(5, -1)), 'adapt_iters must be a whole number .* got -1'),
        (dict(lengths=(5, 2.0)), r'adapt_iters must be a whole number .* got 2\.0'),
        (dict(lengths=(True, 2)), 'source_iters must be a whole number .* got True'),
        (dict(lengths=(0, 0)), 'source_iters and adapt_iters are both 0'),
        (
            dict(sampler=dict(type='PairedSampler')),
            "needs train_dataloader.sampler=dict.type='CrossDomainSampler'",
        ),
        (dict(sampler=dict(type=PairedSampler)), 'needs train_dataloader.sampler'),
        (dict(sampler=dict(type='NoSampler')), 'needs train_dataloader.sampler'),
        (
            dict(sampler=dict(type='CrossDomainSampler', source_iters=7)),
            'sampler.source_iters=7: leave it out; it is 8',
        ),
        (
            dict(sampler=dict(type='CrossDomainSampler', batch_size=4)),
            'sampler.batch_size=4: leave it out; it is 3',
        ),
        (dict(model=dict(type=OneStage)), "OneStage does not adapt: .*type='GCKD'"),
        (
            dict(schedulers=[dict(SCHEDULERS[2], begin=8)]),
            r"leave out \['begin'\]: .* 8 and 28",
        ),
        (
            dict(schedulers=[dict(SCHEDULERS[2], begin=8, end=9)]),
            r"leave out \['begin', 'end'\]",
        ),
        (dict(schedulers=[dict(type='AdaptationLR')]), 'set by_epoch=False'),
        (
            dict(schedulers=[dict(SCHEDULERS[0], end=1.5)]),
            r'end=1\.5 is a fraction of the source stage',
        ),
        (
            dict(schedulers=[dict(SCHEDULERS[0], begin=-0.5)]),
            r'begin=-0\.5 is a fraction of the source stage',
        ),
    ],
)
def test_what_contradicts_is_named(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _ = make_runner(tmp_path, **options).train_loop
    assert not list(tmp_path.glob('**/*.pth'))


def test_a_loader_that_is_built_must_agree(tmp_path: Path) -> None:
    loader = make_runner(tmp_path / 'built').train_loop.dataloader
    agrees, differs = (make_runner(tmp_path / name) for name in ('one', 'other'))

    assert TwoStageTrainLoop(agrees, loader, 8, 2).dataloader is loader
    with pytest.raises(InputError, match='source_iters=8, the loop 7'):
        TwoStageTrainLoop(differs, loader, 7, 3)


def test_a_loader_without_a_batch_size_is_named(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    loader = {k: v for k, v in runner.cfg.train_dataloader.items() if k != 'batch_size'}
    with pytest.raises(InputError, match=r'needs train_dataloader\.batch_size'):
        TwoStageTrainLoop(runner, loader, 8, 2)
