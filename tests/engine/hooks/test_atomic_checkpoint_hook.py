"""Selection is called by its name, and the best checkpoint is kept whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.hooks import AtomicCheckpointHook
from gckd_mm.errors import CheckpointError, InputError
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
