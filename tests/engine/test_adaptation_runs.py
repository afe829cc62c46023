"""Whole runs of GCKD: resumed, branched off, over ranks, and blind to the target."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from gckd_mm.checkpoint import find_last_checkpoint, read_checkpoint
from gckd_mm.errors import DivergedError
from tests.datasets.test_cross_domain import permute_labels
from tests.training import in_process, on_ranks, small_config, small_gckd_config, train

SOURCE_ITERS, MAX_ITERS = 3, 8
WITHOUT_DISTILLATION = {'model__labels': None, 'model__distill': None}
ACCUMULATED = {
    'optim_wrapper__accumulative_counts': 2,
    'train_cfg__source_iters': 4,
    'train_cfg__adapt_iters': 4,
    'param_scheduler': [dict(type='AdaptationLR', by_epoch=False, warmup=0.5)],
}
TOWERS = ('image_backbone', 'image_neck', 'text_backbone', 'text_neck')


def _config(data: Path, work_dir: Path, options: dict[str, Any]) -> Config:
    """Runs of one process must not share a name, under which mmengine keeps logs."""
    return small_gckd_config(data, work_dir, experiment_name=work_dir.name, **options)


def _train_all(data: Path, folder: Path, runs: dict[str, dict[str, Any]]) -> None:
    for name, options in runs.items():
        train(_config(data, folder / name, options))


def _train_until(
    data: Path, work_dir: Path, options: dict[str, Any], at: int | None
) -> None:
    """Go on from the last checkpoint, if any, and be killed in iteration ``at``."""
    checkpoint = find_last_checkpoint(work_dir)
    if checkpoint is not None:
        options = {**options, 'load_from': checkpoint, 'resume': True}
    cfg = _config(data, work_dir, options)
    if at is not None:
        cfg.custom_hooks.append(dict(type='mmengine.KillHook', at=at))
    train(cfg)


def _train_source_only(data: Path, work_dir: Path, start: str) -> None:
    cfg = small_config(data, work_dir, load_from=start, train_cfg__max_iters=3)
    cfg.param_scheduler = small_gckd_config(data, work_dir).param_scheduler[:1]
    train(cfg)


def _end(work_dir: Path, name: str = f'iter_{MAX_ITERS}.pth') -> dict[str, Any]:
    return read_checkpoint(work_dir / name)


def _assert_equal(found: Any, expected: Any, where: str = '') -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            _assert_equal(found[key], expected[key], f'{where}/{key}')
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            _assert_equal(one, other, f'{where}/{number}')
    else:
        assert found == expected, where


def _assert_ends_alike(work_dir: Path, reference: Path) -> None:
    """Student, teacher, memories, lists, potentials; optimiser and schedulers."""
    found, expected = _end(work_dir), _end(reference)
    assert found['meta']['iter'] == MAX_ITERS
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        _assert_equal(found[part], expected[part], part)


def _of(state_dict: dict[str, Any], *parts: str) -> dict[str, Any]:
    return {k: v for k, v in state_dict.items() if k.split('.')[0] in parts}


@pytest.fixture(scope='module')
def runs(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of uninterrupted runs, and of those that branch off them."""
    folder = tmp_path_factory.mktemp('runs')
    blind = folder / 'data' / 'rstpreid'
    shutil.copytree(miniature / 'rstpreid', blind)
    permute_labels(blind)
    branch = {
        'default_hooks__adaptation__source_checkpoint': str(folder / 'whole/source.pth')
    }
    names = {
        'whole': {},
        'branch': branch,
        'other': WITHOUT_DISTILLATION,
        'other_branch': WITHOUT_DISTILLATION | branch,
        'blind': {'train_dataloader__dataset__target__data_root': str(blind)},
        'accumulated': ACCUMULATED,
        'images_alone': {'train_dataloader__dataset__target_captions': False},
    }
    assert in_process(_train_all, miniature, folder, names) == 0
    return folder


def test_the_adaptation_fills_all_that_is_compared(runs: Path) -> None:
    # Without this the tests below could pass on a teacher that never moved.
    state = _end(runs / 'whole')['state_dict']
    assert state['teacher.steps'] == MAX_ITERS - SOURCE_ITERS
    for modality in ('images', 'captions'):
        assert (state[f'memories.target_{modality}.slot_keys'] >= 0).sum() > 30
        assert state[f'labels.{modality}_potentials'].abs().sum() > 0
        assert state[f'graph.propagated_{modality}'].abs().sum() > 0
    for name, value in _of(state, *TOWERS).items():
        assert not torch.equal(state[f'teacher.module.{name}'], value), name


def test_a_run_killed_in_either_stage_and_between_them_ends_alike(
    miniature: Path, tmp_path: Path, runs: Path
) -> None:
    # With workers, so that what they have fetched ahead is lost in the kill, too.
    options = {
        'train_dataloader__num_workers': 1,
        'default_hooks__checkpoint__interval': 1,
    }
    for at in (SOURCE_ITERS - 1, SOURCE_ITERS, SOURCE_ITERS + 3):
        assert in_process(_train_until, miniature, tmp_path, options, at) == -9
        assert find_last_checkpoint(tmp_path) == str(tmp_path / f'iter_{at}.pth')
    assert in_process(_train_until, miniature, tmp_path, options, None) == 0
    _assert_ends_alike(tmp_path, runs / 'whole')


def test_branching_off_the_own_source_stage_ends_alike(runs: Path) -> None:
    _assert_ends_alike(runs / 'branch', runs / 'whole')


def test_branching_off_the_source_stage_of_another_method_ends_alike(
    runs: Path,
) -> None:
    _assert_ends_alike(runs / 'other_branch', runs / 'other')
    other, whole = (
        _of(_end(runs / name)['state_dict'], *TOWERS) for name in ('other', 'whole')
    )
    with pytest.raises(AssertionError):
        _assert_equal(other, whole)


def test_the_source_stage_is_the_source_only_baseline(
    miniature: Path, tmp_path: Path, trained: Path
) -> None:
    start = str(find_last_checkpoint(trained))
    baseline, adapting = tmp_path / 'baseline', tmp_path / 'adapting'
    assert in_process(_train_source_only, miniature, baseline, start) == 0
    options = {'load_from': start, 'train_cfg__adapt_iters': 0}
    assert in_process(_train_all, miniature, tmp_path, {'adapting': options}) == 0
    expected = _end(baseline, f'iter_{SOURCE_ITERS}.pth')['state_dict']
    found = _end(adapting, 'source.pth')['state_dict']
    _assert_equal({name: found[name] for name in expected}, expected)


def test_permuting_the_targets_labels_changes_nothing_that_is_learned(
    runs: Path,
) -> None:
    _assert_ends_alike(runs / 'blind', runs / 'whole')


def test_accumulated_gradients_move_the_teacher_with_the_optimiser_and_resume(
    miniature: Path, tmp_path: Path, runs: Path
) -> None:
    state = _end(runs / 'accumulated')['state_dict']
    assert state['teacher.steps'] == (MAX_ITERS - 4) / 2
    assert in_process(_train_until, miniature, tmp_path, ACCUMULATED, 7) == -9
    assert find_last_checkpoint(tmp_path) == str(tmp_path / 'iter_6.pth')
    assert in_process(_train_until, miniature, tmp_path, ACCUMULATED, None) == 0
    _assert_ends_alike(tmp_path, runs / 'accumulated')


def test_a_target_without_captions_is_adapted_to(runs: Path) -> None:
    alone, whole = (
        _end(runs / name)['state_dict'] for name in ('images_alone', 'whole')
    )
    assert alone['teacher.steps'] == MAX_ITERS - SOURCE_ITERS
    assert (alone['memories.target_captions.slot_keys'] < 0).all()
    _assert_equal(
        alone['memories.target_images.slot_keys'],
        whole['memories.target_images.slot_keys'],
    )
    assert all(v.isfinite().all() for v in _of(alone, *TOWERS).values())


@HOOKS.register_module()
class StepSpyHook(Hook):
    """Write the losses of all iterations, and what this rank ends with."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(
        self, runner: Runner, *args: Any, outputs: dict, **kwargs: Any
    ) -> None:
        self.losses.append({k: v.item() for k, v in outputs.items() if 'loss' in k})

    def after_train(self, runner: Runner) -> None:
        model = getattr(runner.model, 'module', runner.model)
        result = {'losses': self.losses, 'state_dict': model.state_dict()}
        torch.save(result, Path(runner.work_dir) / f'rank_{runner.rank}.pth')


def _train_with_spy(data: Path, work_dir: Path, options: dict[str, Any]) -> None:
    cfg = _config(data, work_dir, options)
    cfg.custom_hooks.append(dict(type='mmengine.StepSpyHook'))
    train(cfg)


def _held(state_dict: dict[str, Any], memory: str) -> dict[int, torch.Tensor]:
    """Sample -> embedding."""
    keys, feats = (
        state_dict[f'memories.{memory}.slot_{name}'] for name in ('keys', 'feats')
    )
    return {int(k): feat for k, feat in zip(keys, feats, strict=True) if k >= 0}


def _movement(run: Path, state_dict: dict[str, Any]) -> torch.Tensor:
    """Where the adaptation has taken the student and the teacher, in one vector."""
    start = _of(_end(run, 'source.pth')['state_dict'], *TOWERS)
    return torch.cat(
        [
            (state_dict[prefix + name] - value).flatten()
            for prefix in ('', 'teacher.module.')
            for name, value in start.items()
        ]
    )


@pytest.fixture
def distinct(miniature: Path, tmp_path: Path) -> Path:
    """The target with captions that differ pairwise.

    Of equal captions the one in the lower slot is the nearer neighbour, and the ranks'
    samples have other slots than those of one process.
    """
    root = shutil.copytree(miniature / 'rstpreid', tmp_path / 'rstpreid')
    path = root / 'data_captions.json'
    records = json.loads(path.read_text())
    for number, record in enumerate(records):
        first, second = record['captions']
        record['captions'] = [f'{first} {number} a.', f'{second} {number} b.']
    path.write_text(json.dumps(records))
    return root


def test_two_ranks_with_half_of_the_batch_do_what_one_process_does(
    miniature: Path, tmp_path: Path, distinct: Path
) -> None:
    one, two = tmp_path / 'one', tmp_path / 'two'
    options = {
        'model__text_backbone__dropout': 0.0,
        'model__teacher_momentum': 0.5,
        # Adam divides by the gradient's own size: with its own eps, weights whose
        # gradient is but rounding would move as far as any other.
        'optim_wrapper__optimizer__eps': 1e-4,
        'train_dataloader__dataset__target__data_root': str(distinct),
    }
    halved = {
        'launcher': 'pytorch',
        'train_dataloader__batch_size': 4,
    }
    assert in_process(_train_with_spy, miniature, one, options) == 0
    on_ranks(_train_with_spy, 2, miniature, two, options | halved)
    expected = torch.load(one / 'rank_0.pth')
    ranks = [torch.load(two / f'rank_{rank}.pth') for rank in range(2)]

    for found in ranks:
        assert len(found['losses']) == len(expected['losses']) == MAX_ITERS
        for step, losses in enumerate(expected['losses']):
            assert found['losses'][step] == pytest.approx(losses, rel=1e-5), step
    state = ranks[0]['state_dict']
    _assert_equal(ranks[1]['state_dict'], state)
    movement, other = (
        _movement(one, expected['state_dict']),
        _movement(two, state),
    )
    # Of the movement, which is a thousandth of the weights.
    assert (other - movement).norm() <= 1e-4 * movement.norm()
    for memory in ('target_images', 'target_captions'):
        held, reference = (
            _held(state_dict, memory) for state_dict in (state, expected['state_dict'])
        )
        assert held.keys() == reference.keys()
        for key, feat in reference.items():
            torch.testing.assert_close(held[key], feat, rtol=0, atol=1e-6)


def _diverge(data: Path, work_dir: Path) -> None:
    # Similarities overflow.
    options = {'model__consistency__temperature': 1e-42}
    with pytest.raises(DivergedError) as error:
        train(_config(data, work_dir, options))
    (work_dir / 'error.txt').write_text(str(error.value))


def test_a_term_that_is_not_finite_stops_the_run_and_is_named(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_diverge, miniature, tmp_path) == 0
    message = (tmp_path / 'error.txt').read_text()
    assert 'iteration 4: ' in message
    assert 'loss_consistency_images is nan' in message
    assert 'loss_sdm' not in message
    # The lists in it, of the neighbours that there are none of yet, hold infinities.
    assert f'Last good checkpoint: {tmp_path}/iter_2.pth' in message
