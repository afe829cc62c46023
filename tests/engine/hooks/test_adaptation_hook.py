"""A source stage and the adaptation: in one run, branching off, and resumed."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook, IterTimerHook
from mmengine.model import BaseModel
from mmengine.runner import Runner, get_priority
from torch import Tensor, nn

from gckd_mm.checkpoint import find_last_checkpoint, read_checkpoint
from gckd_mm.datasets.draw import Draw
from gckd_mm.engine.hooks import AdaptationHook, AtomicCheckpointHook
from gckd_mm.engine.loops import TwoStageTrainLoop
from gckd_mm.errors import CheckpointError, DivergedError, InputError
from gckd_mm.models.gckd.memory import EmbeddingMemory
from gckd_mm.models.retrievers.staged import Schedule
from gckd_mm.models.teacher import MomentumTeacher

SOURCE_ITERS, MAX_ITERS, BATCH_SIZE = 4, 10, 3
NUMBERS = itertools.count()
SCHEDULERS = (
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=4),
    dict(type='AdaptationLR', warmup=1 / 3, by_epoch=False),
)


class Adapting(BaseModel):
    """The least that adapts: a student with dropout, a teacher, a memory."""

    def __init__(self, momentum: float = 0.5) -> None:
        super().__init__()
        self.image_neck = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 4))
        self.gate = nn.Linear(4, 1)  # the adaptation's own
        self.teacher = MomentumTeacher(self.student())
        self.register_buffer('memory', torch.zeros(4))
        self.source_iters = SOURCE_ITERS
        self.momentum = momentum
        self.events: list[tuple[str, int]] = []
        self.iteration = -1

    def student(self) -> nn.ModuleDict:
        return nn.ModuleDict({'image_neck': self.image_neck})

    def set_stages(self, source_iters: int, adapt_iters: int) -> None:
        self.source_iters = source_iters

    def set_iteration(self, iteration: int) -> None:
        self.iteration = iteration

    def start_adaptation(self) -> None:
        self.events.append(('start', self.iteration))
        self.teacher.synchronise(self.student())
        self.memory.zero_()

    def update_teacher(self) -> None:
        self.events.append(('update', self.iteration))
        self.teacher.update(self.student(), self.momentum)

    def schedules(self) -> dict[str, Schedule]:
        return {}

    def forward(
        self, inputs: Tensor, target: Tensor | None = None, mode: str = 'loss'
    ) -> dict[str, Tensor]:
        in_source_stage = self.iteration < self.source_iters
        self.events.append(('source' if target is None else 'target', self.iteration))
        assert in_source_stage == (target is None)
        losses = {'loss_source': (self.image_neck(inputs) - inputs).square().mean()}
        if target is not None:
            soft = self.teacher.module['image_neck'](target) + self.memory
            with torch.no_grad():
                self.memory.lerp_(soft.mean(dim=0), 0.5)
            gap = (self.image_neck(target) - soft).square() * self.gate(target)
            losses['loss_target'] = gap.mean()
        return losses


class CrossDomain:
    """As much of a cross-domain dataset as the sampler and the loader look at."""

    def __init__(self) -> None:
        self.metainfo: dict = {}
        generator = torch.Generator().manual_seed(0)
        self.source = torch.randn(7, 4, generator=generator)
        self.images = torch.randn(5, 4, generator=generator)
        self.num_target_images, self.num_target_captions = 5, 0

    def full_init(self) -> None: ...

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        source, image, _ = draw.index
        item = {'inputs': self.source[source]}
        if image is not None:
            item['target'] = self.images[image]
        return item


class Interruption(Exception):
    pass


class Spy(Hook):
    """Note the learning rate of each iteration; end the run in iteration ``stop``."""

    priority = 'VERY_LOW'

    def __init__(self, stop: int | None) -> None:
        self.stop = stop
        self.rates: dict[int, float] = {}

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if runner.iter == self.stop:
            raise Interruption
        group = runner.optim_wrapper.optimizer.param_groups[0]
        self.rates[runner.iter] = group['lr']


def run(
    work_dir: Path,
    source_checkpoint: str | Path | None = None,
    stop: int | None = None,
    counts: int = 1,
    source_iters: int = SOURCE_ITERS,
    max_iters: int = MAX_ITERS,
    schedulers: Sequence[dict] = SCHEDULERS,
    hooks: Sequence[dict] = (),
    **kwargs: Any,
) -> Runner:
    """Train; ``runner.spy`` has seen it."""
    torch.manual_seed(0)
    spy = Spy(stop)
    runner = Runner(
        model=Adapting(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=CrossDomain(),
            sampler=dict(type='CrossDomainSampler', seed=0),
            batch_size=BATCH_SIZE,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(
            type='TwoStageTrainLoop',
            source_iters=source_iters,
            adapt_iters=max_iters - source_iters,
        ),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=0.05),
            accumulative_counts=counts,
        ),
        param_scheduler=list(schedulers),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=100),
            checkpoint=dict(type='AtomicCheckpointHook', interval=2, max_keep_ckpts=-1),
            iteration_seed=dict(type='IterationSeedHook'),
        ),
        custom_hooks=[
            dict(
                type='AdaptationHook',
                source_checkpoint=source_checkpoint and str(source_checkpoint),
            ),
            *hooks,
            spy,
        ],
        randomness=dict(seed=0),
        default_scope='gckd_mm',
        experiment_name=f'adaptation_{next(NUMBERS)}',
        log_level='ERROR',
        **kwargs,
    )
    runner.spy = spy
    try:
        runner.train()
    except Interruption:
        assert stop is not None
    return runner


def resume(work_dir: Path, **kwargs: Any) -> Runner:
    checkpoint = find_last_checkpoint(work_dir)
    assert checkpoint is not None
    return run(work_dir, load_from=checkpoint, resume=True, **kwargs)


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


def assert_ends_alike(work_dir: Path, reference: Path, iters: int = MAX_ITERS) -> None:
    found, expected = (
        read_checkpoint(folder / f'iter_{iters}.pth')
        for folder in (work_dir, reference)
    )
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_equal(found[part], expected[part])


@pytest.fixture(scope='module', autouse=True)
def _quiet_runners() -> Iterator[None]:
    """Spare each runner the look at the machine, which takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, '_log_env', lambda *_: None)
        yield


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A run of both stages, with all of its checkpoints."""
    return run(tmp_path_factory.mktemp('whole'))


def events(runner: Runner, *names: str) -> list[tuple[str, int]]:
    return [event for event in runner.model.events if event[0] in names]


def test_the_adaptation_starts_once_and_after_the_source_stage(whole: Runner) -> None:
    assert events(whole, 'source', 'start', 'target') == [
        *(('source', iteration) for iteration in range(4)),
        ('start', 4),
        *(('target', iteration) for iteration in range(4, 10)),
    ]


def test_the_teacher_follows_each_step_of_the_adaptation(whole: Runner) -> None:
    assert events(whole, 'update') == [('update', i) for i in range(4, 10)]


def test_checkpoints_hold_the_teacher_after_its_update(whole: Runner) -> None:
    for number in (6, 8, 10):
        state = read_checkpoint(Path(whole.work_dir) / f'iter_{number}.pth')
        assert state['state_dict']['teacher.steps'] == number - SOURCE_ITERS
    hook = get_priority(AdaptationHook.priority)
    for later in (CheckpointHook, AtomicCheckpointHook):
        assert hook < get_priority(later.priority)


def test_the_optimiser_starts_afresh(whole: Runner) -> None:
    def steps(number: int) -> set[float]:
        state = read_checkpoint(Path(whole.work_dir) / f'iter_{number}.pth')
        return {float(one['step']) for one in state['optimizer']['state'].values()}

    assert [steps(number) for number in (2, 4, 6, 10)] == [{2}, {4}, {2}, {6}]


@pytest.mark.parametrize('stop', [3, 4, 7])
def test_a_run_that_is_resumed_in_either_stage_ends_alike(
    tmp_path: Path, whole: Runner, stop: int
) -> None:
    run(tmp_path, stop=stop)
    resumed = resume(tmp_path)

    assert_ends_alike(tmp_path, Path(whole.work_dir))
    assert len(events(resumed, 'start')) == (stop < 6)


def test_branching_off_ends_as_the_run_of_both_stages(
    tmp_path: Path, whole: Runner
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        branch = run(tmp_path, Path(whole.work_dir) / 'iter_4.pth')

    assert_ends_alike(tmp_path, Path(whole.work_dir))
    assert branch.model.events == [e for e in whole.model.events if e[1] >= 4]
    rates = whole.spy.rates
    assert branch.spy.rates == {i: rates[i] for i in range(4, 10)}
    assert rates[3] != rates[4]
    (timer,) = (hook for hook in branch.hooks if isinstance(hook, IterTimerHook))
    assert timer.start_iter == 4


def test_a_branch_that_is_resumed_does_not_branch_again(
    tmp_path: Path, whole: Runner
) -> None:
    source = tmp_path / 'source.pth'
    source.write_bytes((Path(whole.work_dir) / 'iter_4.pth').read_bytes())
    run(tmp_path / 'work', source, stop=9)
    source.unlink()
    resumed = resume(tmp_path / 'work', source_checkpoint=source)

    assert_ends_alike(tmp_path / 'work', Path(whole.work_dir))
    assert not events(resumed, 'start')


def test_only_the_student_is_taken_over(tmp_path: Path, whole: Runner) -> None:
    state = read_checkpoint(Path(whole.work_dir) / 'iter_4.pth')['state_dict']
    student = {name: v for name, v in state.items() if name.startswith('image_neck.')}
    others = {
        name: v + 7
        for name, v in state.items()
        if name not in student and name != 'teacher.steps'
    }
    # Of a run without teacher, and of one with another teacher and other modules.
    for name, state_dict in (
        ('plain', student),
        ('another', {**student, **others, 'memories.x': torch.ones(3)}),
    ):
        torch.save({'state_dict': state_dict}, tmp_path / f'{name}.pth')
        run(tmp_path / name, tmp_path / f'{name}.pth')
        assert_ends_alike(tmp_path / name, Path(whole.work_dir))


@pytest.mark.parametrize('change', ['missing', 'unexpected', 'misshapen'])
def test_weights_of_another_student_are_refused(
    tmp_path: Path, whole: Runner, change: str
) -> None:
    path = tmp_path / 'source.pth'
    state = read_checkpoint(Path(whole.work_dir) / 'iter_4.pth')['state_dict']
    if change == 'missing':
        del state['image_neck.0.bias']
    elif change == 'unexpected':
        state['text_neck.weight'] = torch.ones(1)
    else:
        state['image_neck.0.bias'] = torch.ones(5)
    torch.save({'state_dict': state}, path)

    with pytest.raises(CheckpointError, match=f'{path}: of another architecture'):
        run(tmp_path / 'work', path)


def test_a_branch_in_an_old_work_dir_forgets_the_old_run(
    tmp_path: Path, whole: Runner
) -> None:
    run(tmp_path, stop=5)
    assert find_last_checkpoint(tmp_path) is not None

    run(tmp_path, Path(whole.work_dir) / 'iter_4.pth', stop=5)

    assert find_last_checkpoint(tmp_path) is None


@pytest.mark.filterwarnings('ignore:Detected call of `scheduler.step():UserWarning')
def test_accumulated_gradients(tmp_path: Path) -> None:
    # mmengine's optimiser also steps in the last iteration, here with one batch alone.
    both = run(tmp_path / 'both', counts=2, max_iters=9)
    assert events(both, 'update') == [('update', i) for i in (5, 7, 8)]

    source = tmp_path / 'both' / 'iter_4.pth'
    branch = run(tmp_path / 'branch', source, counts=2, max_iters=9)
    assert events(branch, 'update') == events(both, 'update')
    assert_ends_alike(tmp_path / 'branch', tmp_path / 'both', iters=9)


def test_chained_schedulers_are_advanced_in_their_order(tmp_path: Path) -> None:
    # Each changes what the other has left, in both stages.
    chained = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=8),
        dict(type='CosineAnnealingLR', eta_min=0.01, by_epoch=False, end=10),
    ]
    both = run(tmp_path / 'both', schedulers=chained)
    source = tmp_path / 'both' / 'iter_4.pth'
    branch = run(tmp_path / 'branch', source, schedulers=chained)

    rates = both.spy.rates
    assert branch.spy.rates == {i: rates[i] for i in range(4, 10)}


def test_without_a_source_stage_the_adaptation_starts_at_once(tmp_path: Path) -> None:
    adapted = run(tmp_path, source_iters=0, max_iters=2, schedulers=())

    assert events(adapted, 'start', 'target') == [
        ('start', 0),
        ('target', 0),
        ('target', 1),
    ]


def test_the_source_stage_alone(tmp_path: Path) -> None:
    alone = run(tmp_path, max_iters=SOURCE_ITERS)

    assert {name for name, _ in alone.model.events} == {'source'}


def fake_runner(
    model: nn.Module | None = None, adapt_iters: int = 6, counts: int = 1, **kwargs: Any
) -> Any:
    loop = TwoStageTrainLoop.__new__(TwoStageTrainLoop)
    loop.source_iters, loop.adapt_iters = SOURCE_ITERS, adapt_iters
    return SimpleNamespace(
        **{
            'model': Adapting() if model is None else model,
            'train_loop': loop,
            'optim_wrapper': SimpleNamespace(_accumulative_counts=counts),
            'train_dataloader': SimpleNamespace(batch_size=3, dataset=CrossDomain()),
            **kwargs,
        }
    )


@pytest.mark.parametrize(
    'runner',
    [
        fake_runner(),
        fake_runner(nn.DataParallel(Adapting())),
        fake_runner(counts=4),
        fake_runner(adapt_iters=0),
    ],
    ids=['plain', 'wrapped', 'accumulating', 'source alone'],
)
def test_what_agrees_passes(runner: Any) -> None:
    AdaptationHook().before_train(runner)


@pytest.mark.parametrize(
    ('runner', 'message'),
    [
        (fake_runner(nn.Linear(1, 1)), "Linear does not adapt .* model.type='GCKD'"),
        (fake_runner(counts=3), 'source_iters=4 must be a multiple of .*=3'),
        (
            fake_runner(train_loop=SimpleNamespace()),
            "set train_cfg=dict.type='TwoStageTrainLoop'.*got a SimpleNamespace",
        ),
    ],
)
def test_what_disagrees_is_named(runner: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdaptationHook().before_train(runner)


@pytest.mark.parametrize('stop', [3, 7])
@pytest.mark.parametrize('lengths', [(3, 7), (4, 7), (5, 5)], ids=str)
def test_a_run_is_resumed_with_its_own_lengths_alone(
    tmp_path: Path, stop: int, lengths: tuple[int, int]
) -> None:
    run(tmp_path, stop=stop)
    (tmp_path / 'work').mkdir()
    before = sorted(tmp_path.glob('*.pth'))
    with pytest.raises(InputError) as error:
        resume(tmp_path, source_iters=lengths[0], max_iters=sum(lengths))

    message = str(error.value)
    assert 'is of a run of 4 + 6 iterations, this one is to have' in message
    assert 'Resume with --source-iters 4 --adapt-iters 6; ' in message
    assert (
        f'--source-checkpoint {tmp_path}/source.pth --source-iters 4 --adapt-iters M'
        in message
    )
    assert ('when the source stage has ended' in message) == (stop == 3)
    assert sorted(tmp_path.glob('*.pth')) == before


def test_a_branch_has_no_source_stage_to_point_at(
    tmp_path: Path, whole: Runner
) -> None:
    run(tmp_path, Path(whole.work_dir) / 'source.pth', stop=9)
    with pytest.raises(InputError, match='checkpoint that this run began with'):
        resume(tmp_path, max_iters=MAX_ITERS + 1)


def test_a_branch_of_another_length_is_a_run_of_that_length(
    tmp_path: Path, whole: Runner
) -> None:
    longer = run(tmp_path / 'both', max_iters=12)
    branch = run(tmp_path / 'branch', Path(whole.work_dir) / 'source.pth', max_iters=12)

    assert branch.spy.rates == {i: longer.spy.rates[i] for i in range(4, 12)}
    assert_ends_alike(tmp_path / 'branch', tmp_path / 'both', iters=12)


@pytest.mark.parametrize('stages', [None, 4, [4]])
def test_a_checkpoint_that_names_no_stages_is_refused(
    tmp_path: Path, stages: Any
) -> None:
    run(tmp_path, stop=7)
    path = find_last_checkpoint(tmp_path)
    assert path is not None
    checkpoint = read_checkpoint(path)
    checkpoint['meta']['stages'] = stages
    torch.save(checkpoint, path)

    with pytest.raises(InputError, match=f'{path}: does not say .*version 0.1'):
        resume(tmp_path)


@pytest.mark.parametrize('modality', ['images', 'captions'])
@pytest.mark.parametrize(('size', 'warned'), [(4, True), (5, False), (6, False)])
def test_a_memory_that_does_not_hold_the_target_is_warned_of(
    modality: str, size: int, warned: bool
) -> None:
    model, said = Adapting(), []
    model.memories = nn.ModuleDict(
        {
            # The source may be forgotten.
            f'{domain}_{name}': EmbeddingMemory(
                size if (domain, name) == ('target', modality) else rows, 4
            )
            for domain, rows in (('source', 3), ('target', 99))
            for name in ('images', 'captions')
        }
    )
    runner = fake_runner(model, logger=SimpleNamespace(warning=said.append))
    runner.train_dataloader.dataset.num_target_captions = 5

    AdaptationHook().before_train(runner)

    assert len(said) == warned
    if warned:
        assert f'memory holds 4 of 5 target {modality}.' in said[0]
        assert 'raise model.memory_size' in said[0]


def test_branching_off_for_nothing_is_refused() -> None:
    hook = AdaptationHook(source_checkpoint='source.pth')
    with pytest.raises(InputError, match='adapt_iters=0 leaves no iteration'):
        hook.before_train(fake_runner(adapt_iters=0))


def test_the_end_of_the_source_stage_is_kept(whole: Runner, tmp_path: Path) -> None:
    kept = Path(whole.work_dir) / 'source.pth'
    state, last = (
        read_checkpoint(path)
        for path in (kept, Path(whole.work_dir) / f'iter_{SOURCE_ITERS}.pth')
    )
    assert_equal(state['state_dict'], last['state_dict'])
    assert state['meta']['iter'] == SOURCE_ITERS
    assert 'optimizer' not in state

    run(tmp_path, source_checkpoint=kept)

    assert_ends_alike(tmp_path, Path(whole.work_dir))
    assert not (tmp_path / 'source.pth').exists()


@pytest.mark.parametrize('name', ['iter_6.pth', 'iter_10.pth'])
def test_branching_off_an_adaptation_is_refused(
    tmp_path: Path, whole: Runner, name: str
) -> None:
    path = Path(whole.work_dir) / name

    with pytest.raises(InputError, match=rf'{path}: has been adapted.*source\.pth'):
        run(tmp_path, path)


@pytest.mark.parametrize('iteration', [SOURCE_ITERS - 1, SOURCE_ITERS])
def test_a_source_stage_that_ends_diverged_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    forward = Adapting.forward

    def diverging(self: Adapting, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        losses = forward(self, *args, **kwargs)
        if self.iteration == iteration:
            losses['loss_source'] = losses['loss_source'] * torch.nan
        return losses

    monkeypatch.setattr(Adapting, 'forward', diverging)

    with pytest.raises(DivergedError, match=f'iteration {iteration + 1}: '):
        run(tmp_path, hooks=[dict(type='FiniteLossHook')])

    # One iteration later it is the adaptation's, and the source stage stays.
    assert (tmp_path / 'source.pth').exists() == (iteration == SOURCE_ITERS)
