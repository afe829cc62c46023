"""The tools, called as from the shell, on good and bad input."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.evaluation import rank_metrics
from tests.training import (
    in_process,
    last_checkpoint,
    small_config,
    small_gckd_config,
)
from tools import print_config
from tools import test as test_tool
from tools import train as train_tool

ROOT = Path(__file__).parents[2]


def _config(path: Path, data: Path, work_dir: Path, **overrides: object) -> str:
    small_config(data, work_dir, train_cfg__max_iters=2, **overrides).dump(path)
    return str(path)


def _train_expecting_error(out: Path, arguments: list[str]) -> None:
    try:
        train_tool.main(arguments)
    except SystemExit as stop:
        out.write_text(str(stop.code))


def _error_of_training(tmp_path: Path, *arguments: str) -> str:
    """Run the tool in a process of its own, and return how it ended."""
    out = tmp_path / 'error.txt'
    assert in_process(_train_expecting_error, out, list(arguments)) == 0
    assert not list(tmp_path.glob('**/*.pth')), 'it trained before it saw the error'
    return out.read_text()


def _gckd_config(path: Path, data: Path, work_dir: Path, **overrides: object) -> str:
    # The teacher must not be taken for the student.
    overrides = {'model__teacher_momentum': 0.5, **overrides}
    small_gckd_config(data, work_dir, **overrides).dump(path)
    return str(path)


@pytest.fixture
def config(tmp_path: Path, miniature: Path) -> str:
    return _config(tmp_path / 'config.py', miniature, tmp_path / 'work')


def test_training_writes_a_checkpoint_and_resumes(config: str, tmp_path: Path) -> None:
    work_dir = tmp_path / 'elsewhere'
    options = ['--work-dir', str(work_dir), '--seed', '5']
    assert in_process(train_tool.main, [config, *options]) == 0
    checkpoint = read_checkpoint(last_checkpoint(work_dir))
    assert checkpoint['meta']['iter'] == 2
    assert checkpoint['meta']['seed'] == 5
    longer = ['--resume', '--cfg-options', 'train_cfg.max_iters=3']
    assert in_process(train_tool.main, [config, *options, *longer]) == 0
    assert read_checkpoint(last_checkpoint(work_dir))['meta']['iter'] == 3


def test_tensorboard_is_an_option(config: str) -> None:
    arguments = train_tool.parse_arguments([config, '--tensorboard'])
    backends = train_tool.make_config(arguments).visualizer.vis_backends
    assert [backend['type'] for backend in backends] == [
        'LocalVisBackend',
        'TensorboardVisBackend',
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_amp_without_a_gpu(config: str, tmp_path: Path) -> None:
    assert '--amp needs a GPU' in _error_of_training(tmp_path, config, '--amp')


@pytest.mark.parametrize(
    ('supported', 'options', 'expected'),
    [
        (True, [], ('bfloat16', 1.0)),
        (False, [], ('float16', 'dynamic')),
        (True, ['optim_wrapper.dtype=float16'], ('float16', 'dynamic')),
        (True, ['optim_wrapper.loss_scale=512.0'], ('bfloat16', 512.0)),
    ],
)
def test_amp_takes_the_precision_of_the_gpu(
    config: str,
    supported: bool,
    options: list[str],
    expected: tuple[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: supported)
    arguments = [config, '--amp', *(['--cfg-options', *options] if options else [])]
    wrapper = train_tool.make_config(train_tool.parse_arguments(arguments))[
        'optim_wrapper'
    ]
    assert wrapper.type == 'AmpOptimWrapper'
    assert (wrapper.dtype, wrapper.loss_scale) == expected


def test_missing_config(tmp_path: Path) -> None:
    message = _error_of_training(tmp_path, str(tmp_path / 'nowhere.py'))
    assert message == f'error: config {tmp_path}/nowhere.py does not exist'


@pytest.mark.parametrize('part', ['train', 'test'])
def test_missing_data_of_training_or_test_stops_before_training(
    config: str, tmp_path: Path, part: str
) -> None:
    key = {
        'train': 'train_dataloader.dataset.data_root',
        'test': 'test_dataloader.rstpreid.query.dataset.data_root',
    }[part]
    message = _error_of_training(tmp_path, config, '--cfg-options', f'{key}=nowhere')
    name = {'train': 'CUHKPEDES', 'test': 'RSTPReid'}[part]
    assert message.startswith(f'error: {name}: missing annotation file nowhere/')
    for words in ('where to get it: ask its authors', 'belongs: nowhere/', 'make demo'):
        assert words in message


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.type', 'DualEncodr'),
        ('model.image_backbone.type', 'NoSuchBackbone'),
        ('train_dataloader.dataset.type', 'NoSuchDataset'),
        ('test_cfg.type', 'NoSuchLoop'),
    ],
)
def test_unknown_component(config: str, tmp_path: Path, key: str, value: str) -> None:
    message = _error_of_training(tmp_path, config, '--cfg-options', f'{key}={value}')
    assert message.startswith('error: ')
    assert f'{value} is not in the' in message


def test_a_config_key_that_does_not_exist(config: str, tmp_path: Path) -> None:
    option = 'model.image_neck.stripe=3'
    message = _error_of_training(tmp_path, config, '--cfg-options', option)
    assert message.startswith('error: a config key does not exist: ImageProjection')
    assert "'stripe'" in message


def test_a_vocabulary_too_large_for_the_text_backbone(
    config: str, tmp_path: Path
) -> None:
    option = 'model.text_backbone.vocab_size=100'
    message = _error_of_training(tmp_path, config, '--cfg-options', option)
    assert message.startswith('error: the tokenizer may have 1500 tokens')


def test_a_missing_base(tmp_path: Path) -> None:
    (tmp_path / 'config.py').write_text("_base_ = 'nowhere.py'")
    message = _error_of_training(tmp_path, str(tmp_path / 'config.py'))
    assert 'config.py: a base is missing' in message


@pytest.mark.parametrize(
    ('check', 'begin'),
    [('True', 'error: CUHKPEDES: '), ('False', 'error: {root}/imgs/')],  # in a worker
)
def test_an_image_that_is_damaged_is_named_in_one_line(
    config: str, tmp_path: Path, miniature: Path, check: str, begin: str
) -> None:
    root = tmp_path / 'cuhk_pedes'
    shutil.copytree(miniature / 'cuhk_pedes', root)
    for path in (root / 'imgs').rglob('*.png'):
        path.write_bytes(path.read_bytes()[:200])
    options = [f'train_dataloader.dataset.data_root={root}']
    options.append('train_dataloader.num_workers=1')
    options.append(f'train_dataloader.dataset.check_images={check}')
    message = _error_of_training(tmp_path, config, '--cfg-options', *options)
    assert message.startswith(begin.format(root=root))
    assert f'{root}/imgs/' in message
    assert 'damaged or truncated image' in message
    assert '\n' not in message


def test_resuming_takes_the_seed_of_the_run_and_finds_it_where_it_was_moved(
    config: str, trained: Path, tmp_path: Path
) -> None:
    arguments = [config, '--resume', '--work-dir', str(tmp_path / 'moved')]
    fresh = train_tool.make_config(train_tool.parse_arguments(arguments))
    assert not fresh.resume
    shutil.copytree(trained, tmp_path / 'moved')
    options = ['--cfg-options', 'randomness.seed=9']
    cfg = train_tool.make_config(train_tool.parse_arguments([*arguments, *options]))
    assert cfg.resume
    assert cfg.load_from == str(tmp_path / 'moved' / 'iter_4.pth')
    assert cfg.randomness.seed == 0


def test_resuming_before_the_first_checkpoint_keeps_the_weights_to_start_from(
    config: str, trained: Path, tmp_path: Path
) -> None:
    start = f'load_from={last_checkpoint(trained)}'
    arguments = [config, '--resume', '--work-dir', str(tmp_path / 'new')]
    cfg = train_tool.make_config(
        train_tool.parse_arguments([*arguments, '--cfg-options', start])
    )
    assert (cfg.resume, cfg.load_from) == (False, str(last_checkpoint(trained)))


def test_unsafe_and_damaged_checkpoints_to_resume(config: str, tmp_path: Path) -> None:
    bad = tmp_path / 'bad.ckpt'
    bad.write_bytes(b'PK')
    message = _error_of_training(tmp_path, config, '--resume', str(bad))
    assert message.startswith(f'error: {bad}: truncated')


def test_launcher_without_gpu_other_than_torchrun(config: str, tmp_path: Path) -> None:
    message = _error_of_training(tmp_path, config, '--launcher', 'mpi')
    assert 'only --launcher pytorch works' in message


def _scores(trained: Path, tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / 'results.json'
    checkpoint = str(last_checkpoint(trained))
    options = ['--out', str(out), '--work-dir', str(tmp_path / 'work')]
    test_tool.main([*arguments, checkpoint, *options])
    return json.loads(out.read_text())


def test_a_checkpoint_alone_gives_what_it_gives_with_its_config(
    trained: Path,
    tmp_path: Path,
    miniature: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = _config(tmp_path / 'config.py', miniature, tmp_path / 'work')
    with_config = _scores(trained, tmp_path, config)
    alone = _scores(trained, tmp_path)
    assert alone['metrics'] == with_config['metrics']
    assert alone['selection'] == 'last'
    assert alone['iteration'] == 4
    assert alone['seed'] == 0
    assert set(alone['metrics']) == {'rstpreid', 'cuhk_pedes'}
    assert f'{alone["metrics"]["rstpreid"]["mAP"]:.2f}' in capsys.readouterr().out


@pytest.fixture(scope='module')
def adapted(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a small run of GCKD, its config in it."""
    work_dir = tmp_path_factory.mktemp('adapted')
    config = _gckd_config(work_dir / 'config.py', miniature, work_dir)
    assert in_process(train_tool.main, [config]) == 0
    return work_dir


def test_a_source_checkpoint_takes_the_place_of_the_source_stage(
    adapted: Path, tmp_path: Path
) -> None:
    options = ['--source-checkpoint', str(adapted / 'source.pth')]
    options += ['--work-dir', str(tmp_path)]
    assert in_process(train_tool.main, [str(adapted / 'config.py'), *options]) == 0
    assert not (tmp_path / 'source.pth').exists()
    found, expected = (
        read_checkpoint(folder / 'iter_8.pth')['state_dict']
        for folder in (tmp_path, adapted)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_source_checkpoint_for_a_config_that_does_not_adapt(
    config: str, tmp_path: Path
) -> None:
    message = _error_of_training(tmp_path, config, '--source-checkpoint', 'any.pth')
    assert message.startswith('error: --source-checkpoint:')
    assert 'does not adapt' in message


def test_a_source_checkpoint_that_is_not_there(miniature: Path, tmp_path: Path) -> None:
    config = _gckd_config(tmp_path / 'config.py', miniature, tmp_path / 'work')
    message = _error_of_training(tmp_path, config, '--source-checkpoint', 'no.pth')
    assert message.startswith('error: checkpoint no.pth does not exist')


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        pytest.param(
            ['model.loss_weights.distill.length=6'],
            'error: loss_weights.distill: begin and length are fractions',
            id='ramp',
        ),
        pytest.param(
            ['model.memory_size=7'],
            'error: a memory of 7 rows',
            id='memory',
        ),
        pytest.param(
            ['model.teacher_momentum=1.5'],
            'error: teacher_momentum must be within [0, 1], got 1.5',
            id='momentum',
        ),
        pytest.param(
            ['train_dataloader.sampler.source_iters=0'],
            'error: train_dataloader.sampler.source_iters=0: leave it out; it is 3',
            id='source stage of the sampler',
        ),
        pytest.param(
            ['train_dataloader.sampler.batch_size=7'],
            'error: train_dataloader.sampler.batch_size=7: leave it out; it is 8',
            id='batch of the sampler',
        ),
        pytest.param(
            ['train_cfg.max_iters=5'],
            'error: train_cfg.max_iters=5: a TwoStageTrainLoop has source_iters and '
            'adapt_iters instead: tools/train.py --source-iters N --adapt-iters M',
            id='max_iters',
        ),
        pytest.param(
            ['train_cfg.adapt_iters=-1'],
            'error: train_cfg.adapt_iters must be a whole number of at least 0, got -1',
            id='negative',
        ),
    ],
)
def test_settings_of_an_adaptation_that_cannot_be(
    miniature: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    config = _gckd_config(tmp_path / 'config.py', miniature, tmp_path / 'work')
    message = _error_of_training(tmp_path, config, '--cfg-options', *options)
    assert message.startswith(expected)
    assert '\n' not in message


def test_a_sampler_of_one_domain_for_an_adaptation(
    miniature: Path, tmp_path: Path
) -> None:
    config = _gckd_config(
        tmp_path / 'config.py',
        miniature,
        tmp_path / 'work',
        train_dataloader__sampler=dict(type='PairedSampler', _delete_=True),
    )
    message = _error_of_training(tmp_path, config)
    assert message.startswith('error: ')
    assert 'CrossDomainSampler' in message


def _tested(tmp_path: Path, name: str, *arguments: str) -> tuple[dict, dict]:
    """Test; return the results and the embeddings."""
    out, dump = tmp_path / f'{name}.json', tmp_path / f'{name}.npz'
    options = ['--out', str(out), '--dump', str(dump)]
    test_tool.main([*arguments, *options, '--work-dir', str(tmp_path / 'work')])
    with np.load(dump) as arrays:
        return json.loads(out.read_text()), dict(arrays)


def test_the_teacher_is_tested_as_a_dual_encoder_with_its_weights(
    adapted: Path, tmp_path: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(adapted / 'iter_8.pth')
    teacher, teacher_feats = _tested(tmp_path, 'teacher', checkpoint, '--teacher')
    shown = ''.join(capsys.readouterr().out.split())  # a narrow terminal wraps it
    assert f'teacherof{os.path.relpath(checkpoint)}' in shown
    student, student_feats = _tested(tmp_path, 'student', checkpoint)
    assert (teacher['weights'], student['weights']) == ('teacher', 'student')

    state_dict = read_checkpoint(checkpoint)['state_dict']
    weights = {
        name.removeprefix('teacher.module.'): value
        for name, value in state_dict.items()
        if name.startswith(('teacher.module.', 'data_preprocessor.', 'heads.'))
    }
    torch.save({'state_dict': weights}, tmp_path / 'plain.pth')
    config = _config(tmp_path / 'config.py', miniature, tmp_path / 'work')
    plain, plain_feats = _tested(tmp_path, 'plain', config, str(tmp_path / 'plain.pth'))

    assert teacher['metrics'] == plain['metrics']
    for name, array in plain_feats.items():
        assert np.array_equal(teacher_feats[name], array), name
        if name.endswith('/feats'):
            assert not np.array_equal(student_feats[name], array), name


def test_an_adaptation_of_another_version_is_tested(
    adapted: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(adapted / 'iter_8.pth', weights_only=False)
    cfg = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    cfg.model.source_iters = 3  # as in version 0.1
    cfg.model.graph.label_share = 0.5
    checkpoint['meta']['cfg'] = cfg.pretty_text
    checkpoint['state_dict'] = {
        name.replace('graph.lists.', 'neighbours.lists.'): value
        for name, value in checkpoint['state_dict'].items()
        if not name.startswith('labels.')
    }
    path = str(tmp_path / 'other.pth')
    torch.save(checkpoint, path)
    expected, _ = _tested(tmp_path, 'own', str(adapted / 'iter_8.pth'))
    for name, options in (
        ('alone', [path]),
        ('with its config', [str(adapted / 'config.py'), path]),
    ):
        found, _ = _tested(tmp_path, name, *options)
        assert found['metrics'] == expected['metrics']


def test_the_end_of_a_source_stage_is_tested_but_has_no_teacher(
    adapted: Path, trained: Path, tmp_path: Path
) -> None:
    source = str(adapted / 'source.pth')
    results, _ = _tested(tmp_path, 'source', source)
    assert results['iteration'] == 3
    assert set(results['metrics']) == {'rstpreid', 'cuhk_pedes'}
    with pytest.raises(SystemExit, match=r'source\.pth: its teacher has not begun'):
        test_tool.main([source, '--teacher'])
    with pytest.raises(SystemExit, match='holds no teacher: what trained it'):
        test_tool.main([str(last_checkpoint(trained)), '--teacher'])


def test_dump_and_rank_lists(trained: Path, tmp_path: Path) -> None:
    dump, picture = tmp_path / 'embeddings.npz', tmp_path / 'rank_lists.png'
    checkpoint = str(last_checkpoint(trained))
    options = ['--work-dir', str(tmp_path / 'work'), '--num-rank-lists', '2']
    out = tmp_path / 'results.json'
    options += ['--dump', str(dump), '--rank-lists', str(picture), '--out', str(out)]
    test_tool.main([checkpoint, *options])
    arrays = np.load(dump)
    expected = rank_metrics(
        *(arrays[f'rstpreid/{m}/feats'] for m in ('captions', 'images')),
        *(arrays[f'rstpreid/{m}/pids'] for m in ('captions', 'images')),
    )
    assert json.loads(out.read_text())['metrics']['rstpreid'] == expected
    with Image.open(picture) as image:
        assert image.height > image.width / 4  # four rows


def test_checkpoint_of_another_architecture(
    trained: Path, tmp_path: Path, miniature: Path
) -> None:
    config = _config(
        tmp_path / 'config.py',
        miniature,
        tmp_path / 'work',
        model__image_neck__out_channels=24,
        model__text_neck__out_channels=24,
    )
    with pytest.raises(SystemExit, match='of another architecture'):
        test_tool.main([config, str(last_checkpoint(trained))])


def test_a_config_is_trained_and_tested_in_another_direction(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small_gckd_config(miniature, tmp_path)
    cfg.work_dir = None
    for domain in cfg.domains.values():
        domain.dataset.data_root = str(miniature / domain.test_set)
    path = tmp_path / 'small_cuhk2rstp.py'
    cfg.dump(path)
    monkeypatch.chdir(tmp_path)
    direction = ['--source', 'icfg', '--target', 'cuhk']
    lengths = ['--source-iters', '1', '--adapt-iters', '1']

    assert in_process(train_tool.main, [str(path), *direction, *lengths]) == 0

    work_dir = tmp_path / 'work_dirs/small_icfg2cuhk'
    assert (work_dir / 'small_icfg2cuhk.py').is_file()
    weights = str(last_checkpoint(work_dir))
    meta = read_checkpoint(weights)['meta']
    assert meta['experiment_name'].startswith('small_icfg2cuhk_')
    stored = Config.fromstring(meta['cfg'], '.py')
    ends = stored.train_dataloader.dataset
    assert ends.source.data_root == str(miniature / 'icfg_pedes')
    assert ends.target.data_root == str(miniature / 'cuhk_pedes')
    assert list(stored.test_dataloader) == ['cuhk_pedes', 'icfg_pedes']
    found = []
    for number, arguments in enumerate(([weights], [str(path), weights, *direction])):
        out = tmp_path / f'{number}.json'
        assert in_process(test_tool.main, [*arguments, '--out', str(out)]) == 0
        found.append(json.loads(out.read_text()))
    assert found[0]['metrics'] == found[1]['metrics']
    assert list(found[0]['metrics']) == ['cuhk_pedes', 'icfg_pedes']
    # what compare_results.py tells directions apart by
    assert Path(found[1]['config']).name == 'small_icfg2cuhk.py'
    with pytest.raises(SystemExit, match='--target: name a config before the checkpo'):
        test_tool.main([weights, '--target', 'icfg'])


def test_the_config_of_another_direction_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(ROOT / 'configs/baselines/source_only_cuhk2rstp.py')
    key = ['--key', 'train_cfg.max_iters']
    print_config.main([path, '--source', 'icfg', *key])
    assert capsys.readouterr().out.strip() == str(60 * 542)
    with pytest.raises(SystemExit, match='--source mall: must be one of cuhk, icfg, r'):
        print_config.main([path, '--source', 'mall'])


def test_print_config(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_config.main([config, '--key', 'model.heads', '--cfg-options', 'a.b=1'])
    assert "'SDMHead'" in capsys.readouterr().out
    print_config.main([config])
    assert 'train_dataloader = dict(' in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"no key 'model\.nothing'"):
        print_config.main([config, '--key', 'model.nothing'])


def test_no_workers_just_work(config: str, tmp_path: Path) -> None:
    options = [
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=True',
        'train_dataloader.prefetch_factor=2',
        'test_dataloader.rstpreid.query.persistent_workers=True',
    ]
    work_dir = tmp_path / 'work'
    arguments = [config, '--cfg-options', *options]
    assert in_process(train_tool.main, arguments) == 0
    checkpoint = str(last_checkpoint(work_dir))
    arguments = [config, checkpoint, '--cfg-options', options[-1]]
    assert in_process(test_tool.main, arguments) == 0


@pytest.mark.parametrize(
    ('option', 'expected'),
    [
        ('model.image_neck.stripe=3', "has no 'stripe': did you mean 'stripes'?"),
        ('train_cfg.max_iter=3', "(train_cfg) has no 'max_iter': did you mean"),
        ('train_dataloader.batchsize=3', "(train_dataloader) has no 'batchsize'"),
        ('randomness.sed=3', "'sed': did you mean 'seed'?"),
        (
            'default_hooks.chekpoint.interval=3',
            "default_hooks.chekpoint is no hook of the config: did you mean 'check",
        ),
        ('model.type=DualEncodr', "did you mean 'DualEncoder'?"),
        ('test_evaluator.ks=abc', 'ks must be whole numbers'),
        ('train_dataloader.batch_size=1', 'SDMHead: a batch of 1 pair'),
        ('train_dataloader.dataset.data_root=s3://a', 'must be a local path'),
        ('train_dataloader.dataset.schema=img_path', 'schema must be a dict'),
        ('train_dataloader.dataset.split=valid', "unknown split 'valid'"),
        ('test_dataloader.rstpreid.query.dataset.split=val', 'none of the 80 captions'),
        (
            'optim_wrapper.clip_grad=1',
            '(optim_wrapper) cannot be built: AssertionError',
        ),
        ('param_scheduler.5.end=1', '--cfg-options param_scheduler.5.end=1: does not'),
        ('load_from=s3://a/b.pth', 'must be a local path'),
    ],
)
def test_mistakes_of_a_config_are_one_line(
    config: str, tmp_path: Path, option: str, expected: str
) -> None:
    message = _error_of_training(tmp_path, config, '--cfg-options', option)
    assert message.startswith('error: ')
    assert expected in message
    assert '\n' not in message


def test_the_stages_are_as_long_as_the_command_line_says(
    miniature: Path, tmp_path: Path
) -> None:
    config = _gckd_config(tmp_path / 'config.py', miniature, tmp_path / 'work')
    options = ['--source-iters', '2', '--adapt-iters', '2']
    cfg = train_tool.make_config(train_tool.parse_arguments([config, *options]))
    assert (cfg.train_cfg.source_iters, cfg.train_cfg.adapt_iters) == (2, 2)
    assert in_process(train_tool.main, [config, *options]) == 0
    last = last_checkpoint(tmp_path / 'work')
    meta = read_checkpoint(last)['meta']
    assert (meta['iter'], meta['stages'], meta['adaptation_steps']) == (4, [2, 2], 2)

    out = tmp_path / 'error.txt'
    longer = [config, '--resume', *options[:3], '3']
    assert in_process(_train_expecting_error, out, longer) == 0
    assert out.read_text().startswith(f'error: {last}: is of a run of 2 + 2 iterations')
    source = tmp_path / 'work/source.pth'
    begin = ['--source-checkpoint', str(source), '--source-iters', '2']
    assert ' '.join(begin) in out.read_text()

    elsewhere = tmp_path / 'longer'
    begin += ['--adapt-iters', '3', '--work-dir', str(elsewhere)]
    assert in_process(train_tool.main, [config, *begin]) == 0
    meta = read_checkpoint(last_checkpoint(elsewhere))['meta']
    assert (meta['iter'], meta['adaptation_steps']) == (5, 3)


@pytest.mark.parametrize('option', ['--source-iters', '--adapt-iters'])
def test_a_config_of_one_stage_has_no_lengths_of_two(
    config: str, tmp_path: Path, option: str
) -> None:
    message = _error_of_training(tmp_path, config, option, '3')
    assert message.startswith(f'error: {option}: {config} does not adapt')
    assert 'train_cfg.max_iters' in message


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--source-iters', '-1'], 'train_cfg.source_iters must be a whole number'),
        (
            ['--source-iters', '0', '--adapt-iters', '0'],
            'train_cfg: source_iters and adapt_iters are both 0',
        ),
    ],
)
def test_lengths_that_make_no_sense(
    miniature: Path, tmp_path: Path, options: list[str], expected: str
) -> None:
    config = _gckd_config(tmp_path / 'config.py', miniature, tmp_path / 'work')
    message = _error_of_training(tmp_path, config, *options)
    assert message.startswith(f'error: {expected}')


@pytest.mark.parametrize(
    'pointer', [None, b'', b'\xff\xfe', b'iter_9.pth', b'iter_4.pth junk', 'fifo']
)
def test_resuming_lists_the_checkpoints_if_none_is_named(
    config: str, trained: Path, tmp_path: Path, pointer: bytes | str | None
) -> None:
    work_dir = tmp_path / 'moved'
    shutil.copytree(trained, work_dir)
    before = {path.name: path.stat().st_mtime for path in work_dir.glob('*.pth')}
    file = work_dir / 'last_checkpoint'
    file.unlink()
    if isinstance(pointer, bytes):
        file.write_bytes(pointer)
    elif pointer == 'fifo':
        os.mkfifo(file)
    out = tmp_path / 'error.txt'
    arguments = [config, '--resume', '--work-dir', str(work_dir)]
    assert in_process(_train_expecting_error, out, arguments) == 0
    message = out.read_text()
    assert message.startswith(f'error: {file} ')
    assert f'with --resume PATH (newest first): {work_dir}/iter_4.pth' in message
    after = {path.name: path.stat().st_mtime for path in work_dir.glob('*.pth')}
    assert after == before
    assert file.exists() == (pointer is not None)


def test_a_damaged_checkpoint_to_resume_names_the_others(
    config: str, trained: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / 'moved'
    shutil.copytree(trained, work_dir)
    (work_dir / 'iter_2.pth').write_bytes((work_dir / 'iter_4.pth').read_bytes())
    (work_dir / 'iter_4.pth').write_bytes(b'PK')
    out = tmp_path / 'error.txt'
    for path in ([], [str(work_dir / 'iter_4.pth')]):
        arguments = [config, '--resume', *path, '--work-dir', str(work_dir)]
        assert in_process(_train_expecting_error, out, arguments) == 0
        assert 'iter_4.pth: truncated' in out.read_text()
        assert f'(newest first): {work_dir}/iter_2.pth' in out.read_text()
    arguments = [config, '--resume', str(work_dir)]
    (work_dir / 'last_checkpoint').write_text('iter_2.pth')
    assert in_process(_train_expecting_error, out, arguments) == 0
    assert f'is a folder; its last checkpoint is {work_dir}/iter_2' in out.read_text()


@pytest.mark.parametrize('order', ['config alone', 'checkpoint first', 'address'])
def test_a_test_without_its_checkpoint(config: str, order: str) -> None:
    arguments, message = {
        'config alone': ([config], 'is a config: name a checkpoint behind it'),
        'checkpoint first': (['a.pth', config], f'tools/test.py {config} a.pth'),
        'address': ([config, 's3://a/b.pth'], 'must be a local path'),
    }[order]
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        test_tool.main(arguments)


@pytest.mark.parametrize('option', ['--out', '--dump', '--rank-lists', '--report'])
def test_results_that_cannot_be_written(
    trained: Path, tmp_path: Path, option: str
) -> None:
    arguments = [str(last_checkpoint(trained)), '--work-dir', str(tmp_path / 'work')]
    with pytest.raises(SystemExit, match=r'error: .*: cannot be written \(Is a dir'):
        test_tool.main([*arguments, option, str(tmp_path)])


@pytest.mark.parametrize('name', ['config.py', 'config.py/below', 'x' * 300, 's3://a'])
def test_work_dirs_that_cannot_be(config: str, tmp_path: Path, name: str) -> None:
    work_dir = name if '://' in name else f'{tmp_path}/{name}'
    message = _error_of_training(tmp_path, config, '--work-dir', work_dir)
    assert message.startswith('error: work dir')
    assert '\n' not in message


@pytest.mark.parametrize('launcher', ['pytorch'])
def test_a_launcher_that_has_launched_nothing(
    config: str, tmp_path: Path, launcher: str
) -> None:
    message = _error_of_training(tmp_path, config, '--launcher', launcher)
    assert message.startswith(f'error: --launcher {launcher}: RANK, WORLD_SIZE')
    assert 'torchrun' in message
