"""Selection is called by its name, and the best checkpoint is kept whole."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.hooks import AtomicCheckpointHook
from gckd_mm.errors import CheckpointError, DivergedError, InputError
from tests.training import in_process, last_checkpoint, small_config, train


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(by_epoch=True), 'counts iterations'),
        (dict(selection='best'), "selection must be one of .* got 'best'"),
        (dict(save_best='mall/R1'), 'contradicts'),
    ],
)
def test_contradictory_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AtomicCheckpointHook(**arguments)


def _train_with_val(
    data: Path,
    work_dir: Path,
    split: str,
    selection: str,
    options: dict[str, Any] | None = None,
) -> None:
    options = dict(options or {})
    kill_in_val = options.pop('kill_in_val', None)
    target_val = options.pop('target_val', False)
    cfg = small_config(data, work_dir, train_cfg__val_interval=2, **options)
    if kill_in_val is not None:
        cfg.custom_hooks.append(dict(type='mmengine.KillInValHook', at=kill_in_val))
    cfg.val_dataloader = dict(cuhk_pedes=cfg.test_dataloader.cuhk_pedes)
    for role in ('gallery', 'query'):
        cfg.val_dataloader.cuhk_pedes[role].dataset.split = split
    if target_val:
        cfg.val_dataloader = dict(cuhk_pedes=cfg.test_dataloader.rstpreid)
        for role in ('gallery', 'query'):
            cfg.val_dataloader.cuhk_pedes[role].dataset.split = split
    cfg.val_cfg = dict(type='RetrievalValLoop')
    cfg.val_evaluator = dict(type='PersonRetrievalMetric')
    cfg.default_hooks.checkpoint.update(save_best='cuhk_pedes/R1', selection=selection)
    if selection == 'last':
        cfg.default_hooks.checkpoint.pop('save_best')
    try:
        train(cfg)
    except InputError as error:
        Path(work_dir, 'error.txt').write_text(str(error))


def test_best_checkpoint_says_how_it_was_chosen(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_train_with_val, miniature, tmp_path, 'val', 'source_val') == 0
    (best,) = tmp_path.glob('best_*.pth')
    assert read_checkpoint(best)['meta']['selection'] == 'source_val'
    last = last_checkpoint(tmp_path)
    assert last.name == 'iter_8.pth'
    assert read_checkpoint(last)['meta']['selection'] == 'last'
    hub = read_checkpoint(last)['message_hub']
    scores = hub['log_scalars']['val/cuhk_pedes/R1'].data[0]
    assert len(scores) >= 3  # the last may come after the last save
    assert hub['runtime_info']['best_score'] >= max(scores)


def test_a_run_killed_in_its_validation_finds_the_same_best(
    miniature: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    arguments = (miniature, whole, 'val', 'source_val')
    assert in_process(_train_with_val, *arguments) == 0
    arguments = (miniature, cut, 'val', 'source_val')
    assert in_process(_train_with_val, *arguments, {'kill_in_val': 4}) == -9
    assert in_process(_train_with_val, *arguments, {'resume': True}) == 0
    (expected,), (found,) = (sorted(d.glob('best_*.pth')) for d in (whole, cut))
    assert found.name == expected.name
    states = [read_checkpoint(path)['message_hub'] for path in (found, expected)]
    histories = [state['log_scalars']['val/cuhk_pedes/R1'].data[0] for state in states]
    assert histories[0].tolist() == histories[1].tolist()


def test_a_test_split_selects_only_under_the_name_oracle(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_train_with_val, miniature, tmp_path, 'test', 'source_val') == 0
    assert "call it selection='oracle'" in (tmp_path / 'error.txt').read_text()
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize(('split', 'selection'), [('test', 'last'), ('train', 'last')])
def test_labels_that_could_stop_the_training_need_the_name_oracle(
    miniature: Path, tmp_path: Path, split: str, selection: str
) -> None:
    # Early stopping, for one, needs no save_best.
    assert in_process(_train_with_val, miniature, tmp_path, split, selection) == 0
    assert (
        'not the val split of the training source'
        in (tmp_path / 'error.txt').read_text()
    )


def test_the_val_split_of_another_dataset_is_not_the_sources(
    miniature: Path, tmp_path: Path
) -> None:
    options = {'target_val': True}
    arguments = (miniature, tmp_path, 'val', 'source_val', options)
    assert in_process(_train_with_val, *arguments) == 0
    assert "selection='oracle'" in (tmp_path / 'error.txt').read_text()


def test_every_checkpoint_of_an_oracle_run_says_so(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_train_with_val, miniature, tmp_path, 'test', 'oracle') == 0
    for path in tmp_path.glob('*.pth'):
        assert read_checkpoint(path)['meta']['selection'] == 'oracle'


def _resume_another_model(data: Path, work_dir: Path, out: Path) -> None:
    try:
        train(small_config(data, work_dir, resume=True, model__heads={}, **WIDER))
    except CheckpointError as error:
        out.write_text(str(error))


WIDER = {'model__image_neck__out_channels': 24, 'model__text_neck__out_channels': 24}


def test_resuming_another_architecture_is_refused(
    miniature: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'error.txt'
    assert in_process(_resume_another_model, miniature, trained, out) == 0
    assert 'image_neck.projection.weight' in out.read_text()


def _train_by_epoch(data: Path, work_dir: Path) -> None:
    cfg = small_config(data, work_dir)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    with pytest.raises(InputError, match='would an epoch'):
        train(cfg)


def test_an_epoch_that_would_never_end_is_refused(
    miniature: Path, tmp_path: Path
) -> None:
    assert in_process(_train_by_epoch, miniature, tmp_path) == 0


def test_rotation_keeps_the_newest(miniature: Path, tmp_path: Path) -> None:
    assert in_process(_train_keeping_two, miniature, tmp_path) == 0
    names = {path.name for path in tmp_path.glob('*.pth')}
    assert names == {'iter_6.pth', 'iter_8.pth'}


def _train_keeping_two(data: Path, work_dir: Path) -> None:
    train(small_config(data, work_dir, default_hooks__checkpoint__max_keep_ckpts=2))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(interval='100'), 'interval must be a whole number'),
        (dict(interval=True), 'interval must be a whole number'),
        (dict(max_keep_ckpts=1.5), 'max_keep_ckpts must be a whole number'),
        (dict(out_dir='elsewhere'), 'checkpoints lie in the work dir'),
        (dict(intervall=2), "no 'intervall': did you mean 'interval'"),
        (dict(filename_tmpl='model.pth'), 'filename_tmpl must be'),
        (dict(filename_tmpl='iter_{step}.pth'), 'filename_tmpl must be'),
        (dict(filename_tmpl='x/iter_{}.pth'), 'filename_tmpl must be'),
        (dict(filename_tmpl='iter_{}.pt'), 'filename_tmpl must be'),
    ],
)
def test_arguments_of_another_kind(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AtomicCheckpointHook(**arguments)


def _train_choosing_by(data: Path, work_dir: Path, keys: list[str], out: Path) -> None:
    for key in keys:
        cfg = small_config(data, work_dir, train_cfg__val_interval=2)
        cfg.val_dataloader = dict(cuhk_pedes=cfg.test_dataloader.cuhk_pedes)
        cfg.val_cfg = dict(type='RetrievalValLoop')
        cfg.val_evaluator = dict(type='PersonRetrievalMetric', ks=(1, 2))
        cfg.default_hooks.checkpoint.update(save_best=key, selection='oracle')
        if key == 'stock loop':
            cfg.val_cfg = dict(type='ValLoop')
            cfg.val_dataloader = cfg.test_dataloader.cuhk_pedes.gallery
        with pytest.raises(InputError) as error:
            train(cfg)
        with open(out, 'a') as file:
            file.write(f'{error.value}\n')


def test_a_metric_that_nobody_computes_is_known_before_the_training(
    miniature: Path, tmp_path: Path
) -> None:
    keys = ['R1', 'cuhk_pedes/R5', 'mall/R1', 'cuhk_pedes/num_queries', 'stock loop']
    out = tmp_path / 'errors.txt'
    assert in_process(_train_choosing_by, miniature, tmp_path / 'work', keys, out) == 0
    *lines, last = out.read_text().splitlines()
    for key, line in zip(keys, lines, strict=False):
        assert f'save_best={key!r} is no metric' in line
        known = ('R1', 'R2', 'mAP', 'mINP')
        assert line.endswith(', '.join(f'cuhk_pedes/{name}' for name in known))
    assert len(lines) == len(keys) - 1
    assert 'needs val_cfg.type RetrievalValLoop, got ValLoop' in last
    assert not list((tmp_path / 'work').glob('*.pth'))


@HOOKS.register_module()
class SpoilHook(Hook):
    """Set a weight to NaN after the step of iteration ``at``."""

    priority = 'LOW'

    def __init__(self, at: int) -> None:
        self.at = at

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.at:
            next(runner.model.parameters()).data.view(-1)[0] = float('nan')


def _train_spoilt(data: Path, work_dir: Path, out: Path) -> None:
    cfg = small_config(data, work_dir)
    cfg.custom_hooks = [dict(type='mmengine.SpoilHook', at=4)]
    try:
        train(cfg)
    except DivergedError as error:
        out.write_text(str(error))


def test_weights_that_are_not_finite_take_no_checkpoints_place(
    miniature: Path, tmp_path: Path
) -> None:
    work_dir, out = tmp_path / 'work', tmp_path / 'error.txt'
    assert in_process(_train_spoilt, miniature, work_dir, out) == 0
    assert out.read_text().startswith('iteration 4: ')
    assert ' is not finite: the training has diverged' in out.read_text()
    assert f'Last checkpoint: {work_dir}/iter_2.pth' in out.read_text()
    assert [path.name for path in work_dir.glob('*.pth')] == ['iter_2.pth']
    assert last_checkpoint(work_dir).name == 'iter_2.pth'


def _train_on_a_full_disk(data: Path, work_dir: Path, call: int, out: Path) -> None:
    original, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise OSError(errno.ENOSPC, 'No space left on device')
        original(descriptor)

    os.fsync = fsync
    try:
        train(small_config(data, work_dir))
    except InputError as error:
        out.write_text(str(error))


def test_a_full_disk_leaves_the_last_checkpoint(
    miniature: Path, tmp_path: Path
) -> None:
    work_dir, out = tmp_path / 'work', tmp_path / 'error.txt'
    # The checkpoint, its folder, `last_checkpoint`, its folder; then the second.
    arguments = (miniature, work_dir, 5, out)
    assert in_process(_train_on_a_full_disk, *arguments) == 0
    assert 'could not be written (No space left on device)' in out.read_text()
    assert f'Last good checkpoint: {work_dir}/iter_2.pth' in out.read_text()
    assert '\n' not in out.read_text()
    read_checkpoint(last_checkpoint(work_dir))
    assert not list(work_dir.glob('.*.partial'))


def _train_for(data: Path, work_dir: Path, options: dict[str, Any]) -> None:
    train(small_config(data, work_dir, log_level='WARNING', **options))


def test_a_fresh_run_deletes_nothing_of_an_earlier_one(
    miniature: Path, tmp_path: Path
) -> None:
    earlier = {'default_hooks__checkpoint__interval': 3, 'train_cfg__max_iters': 7}
    earlier['default_hooks__checkpoint__max_keep_ckpts'] = -1
    assert in_process(_train_for, miniature, tmp_path, earlier) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}
    assert sorted(before) == ['iter_3.pth', 'iter_6.pth', 'iter_7.pth']
    interval = {'default_hooks__checkpoint__interval': 4}
    later = {'train_cfg__max_iters': 4, **interval}
    assert in_process(_train_for, miniature, tmp_path, later) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}
    assert after.pop('iter_4.pth')
    assert after == before
    logs = [path.read_text() for path in tmp_path.glob('*/*.log')]
    assert sum('3 checkpoints of an earlier run' in text for text in logs) == 1
    # ... nor does the run that continues it.
    later = {'train_cfg__max_iters': 8, 'resume': True, **interval}
    assert in_process(_train_for, miniature, tmp_path, later) == 0
    names = {path.name for path in tmp_path.glob('*.pth')}
    assert names == {*before, 'iter_8.pth'}


def test_resuming_in_another_work_dir_deletes_nothing_in_the_first(
    miniature: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / 'first', tmp_path / 'second'
    assert in_process(_train_with_val, miniature, first, 'val', 'source_val') == 0
    before = sorted(first.glob('*.pth'))
    second.mkdir()
    (second / 'iter_8.pth').write_bytes(b'of somebody else')
    options = {
        'resume': True,
        'load_from': str(first / 'iter_8.pth'),
        'train_cfg__max_iters': 12,
    }
    arguments = (miniature, second, 'val', 'source_val', options)
    assert in_process(_train_with_val, *arguments) == 0
    assert sorted(first.glob('*.pth')) == before
    assert (second / 'iter_8.pth').read_bytes() == b'of somebody else'
    assert (second / 'iter_12.pth').is_file()


def _resume_by_config(data: Path, work_dir: Path, out: Path) -> None:
    try:
        train(small_config(data, work_dir, resume=True))
    except CheckpointError as error:
        out.write_text(str(error))


@pytest.mark.parametrize('pointer', [None, b'', b'iter_9.pth', b'\xff'])
def test_mmengines_own_resume_starts_no_second_run(
    miniature: Path, trained: Path, tmp_path: Path, pointer: bytes | None
) -> None:
    work_dir, out = tmp_path / 'work', tmp_path / 'error.txt'
    shutil.copytree(trained, work_dir)
    (work_dir / 'last_checkpoint').unlink()
    if pointer is not None:
        (work_dir / 'last_checkpoint').write_bytes(pointer)
    assert in_process(_resume_by_config, miniature, work_dir, out) == 0
    assert f'{work_dir}/iter_4.pth' in out.read_text()
    assert '--resume PATH' in out.read_text()
