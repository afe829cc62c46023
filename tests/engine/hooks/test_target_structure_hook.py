"""The hook looks when it should, at what it should, and the run does not notice."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.datasets import CrossDomainDataset, collate_person_text
from gckd_mm.engine.hooks import target_structure_hook
from gckd_mm.engine.hooks.target_structure_hook import TargetStructureHook
from gckd_mm.errors import InputError
from gckd_mm.evaluation.target_structure import target_structure
from gckd_mm.registry import DATASETS
from tests.datasets.test_cross_domain import permute_labels
from tests.training import ROOT, in_process, small_config, small_gckd_config, train

SHIPPED = Config.fromfile(ROOT / 'configs/_base_/datasets/person_text_64x32.py')
SOURCE_ITERS, MAX_ITERS = 3, 8
DOMAIN_GAPS = {'image_domain_gap', 'caption_domain_gap'}


@HOOKS.register_module()
class TraceHook(Hook):
    """Write what an iteration begins with and leaves behind, as seen by others."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.trace: list[str] = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        self._note(runner, data_batch)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._note(runner, None)

    def after_train(self, runner: Runner) -> None:
        (Path(runner.work_dir) / 'trace.json').write_text(json.dumps(self.trace))

    def _note(self, runner: Runner, data_batch: Any) -> None:
        numpy_state = np.random.get_state()  # noqa: NPY002
        states = [random.getstate(), numpy_state, torch.get_rng_state().numpy()]
        modes = [module.training for module in runner.model.modules()]
        batch = None
        if data_batch is not None:
            batch = (
                data_batch['inputs']['images'].numpy(),
                [sample.sample_idx for sample in data_batch['data_samples']],
            )
        seen = pickle.dumps([states, modes, batch])
        self.trace.append(hashlib.sha256(seen).hexdigest())


def _watched(cfg: Config, **options: Any) -> Config:
    cfg.custom_hooks.append(
        dict(
            type='TargetStructureHook',
            pipeline=SHIPPED.image_pipeline,
            **options,
        )
    )
    return cfg


def _config(data: Path, work_dir: Path, **options: Any) -> Config:
    cfg = small_gckd_config(data, work_dir, experiment_name=work_dir.name, **options)
    cfg.custom_hooks.append(dict(type='mmengine.TraceHook'))
    return cfg


def _embed(runner: Runner, target: dict[str, Any]) -> dict[str, Tensor]:
    """Embed the target's train split as the test loop would, label order and all."""
    runner.model.eval()
    feats = {}
    for view, pipeline in (
        ('images', SHIPPED.image_pipeline),
        ('captions', SHIPPED.caption_pipeline),
    ):
        dataset = DATASETS.build({**target, 'view': view, 'pipeline': pipeline})
        loader = DataLoader(dataset, batch_size=7, collate_fn=collate_person_text)
        samples = [
            sample for batch in loader for sample in runner.model.test_step(batch)
        ]
        feats[view] = torch.stack([sample.feat for sample in samples])
    return feats


def _train_all(data: Path, folder: Path) -> None:
    stale = folder / 'watched' / 'structure.json'
    stale.parent.mkdir()
    stale.write_text(json.dumps([{'iteration': 0}, {'iteration': 2}]))
    train(_config(data, folder / 'plain'))
    cfg = _config(
        data, folder / 'watched', default_hooks__checkpoint__max_keep_ckpts=-1
    )
    runner = train(_watched(cfg, interval=2))

    target = dict(type='RSTPReid', data_root=str(data / 'rstpreid'))
    expected = target_structure(**_embed(runner, target))
    (folder / 'expected.json').write_text(json.dumps(expected))

    blind = {'train_dataloader__dataset__target__data_root': str(folder / 'blind_data')}
    cfg = _config(data, folder / 'blind', **blind)
    train(_watched(cfg, interval=2))

    baseline = small_config(
        data, folder / 'baseline', experiment_name='baseline', train_cfg__max_iters=2
    )
    train(_watched(baseline, target=target, max_samples=50))

    # As if the run had been killed in iteration 7, its last look at a lost student.
    resumed = folder / 'resumed' / 'structure.json'
    resumed.parent.mkdir()
    looks = _looks(folder / 'watched')[:3]
    resumed.write_text(json.dumps([*looks[:2], {**looks[2], 'cycle_rate': -1}]))
    checkpoint = str(folder / 'watched' / 'iter_6.pth')
    cfg = _config(data, folder / 'resumed', load_from=checkpoint, resume=True)
    train(_watched(cfg, interval=2))


@pytest.fixture(scope='module')
def data(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature datasets, whose target has captions that differ pairwise.

    Of two equal captions either may be the nearest.
    """
    folder = tmp_path_factory.mktemp('distinct') / 'data'
    shutil.copytree(miniature, folder)
    path = folder / 'rstpreid' / 'data_captions.json'
    records = json.loads(path.read_text())
    for number, record in enumerate(records):
        record['captions'] = [
            f'{text} {word} {number}'
            for word, text in zip(('one', 'two'), record['captions'], strict=True)
        ]
    path.write_text(json.dumps(records))
    return folder


@pytest.fixture(scope='module')
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with the hook and without."""
    folder = tmp_path_factory.mktemp('runs')
    blind = Path(shutil.copytree(data / 'rstpreid', folder / 'blind_data'))
    permute_labels(blind)
    assert in_process(_train_all, data, folder) == 0
    return folder


def _looks(run: Path) -> list[dict[str, float]]:
    return json.loads((run / 'structure.json').read_text())


def test_a_run_with_the_hook_is_the_run_without_it(runs: Path) -> None:
    expected, found = (
        read_checkpoint(runs / name / f'iter_{MAX_ITERS}.pth')
        for name in ('plain', 'watched')
    )
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name
    # Generators, modes and batches, before and after each iteration.
    traces = [(runs / name / 'trace.json').read_text() for name in ('plain', 'watched')]
    assert traces[0] == traces[1]
    assert len(set(json.loads(traces[0]))) > MAX_ITERS
    for part in ('log_scalars', 'runtime_info'):
        assert not [name for name in found['message_hub'][part] if 'structure' in name]


def test_the_looks_are_those_of_the_adaptation_in_file_and_log(runs: Path) -> None:
    looks = _looks(runs / 'watched')
    assert [look['iteration'] for look in looks] == [SOURCE_ITERS, 5, 7, MAX_ITERS]
    (scalars,) = (runs / 'watched').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    logged = [row for row in rows if 'structure/cycle_rate' in row]
    assert [row['step'] for row in logged] == [SOURCE_ITERS, 5, 7, MAX_ITERS]
    for row, look in zip(logged, looks, strict=True):
        del look['iteration']
        for name, value in look.items():
            assert row[f'structure/{name}'] == value
    # The student moves, so what is seen of it changes.
    assert looks[0]['best_similarity'] != looks[-1]['best_similarity']


def test_the_values_are_those_of_the_student_on_the_train_split(runs: Path) -> None:
    expected = json.loads((runs / 'expected.json').read_text())
    *_, last = _looks(runs / 'watched')

    assert last.keys() == {'iteration', *expected, *DOMAIN_GAPS}
    found = {name: last[name] for name in expected}
    assert found == pytest.approx(expected, abs=1e-4)
    assert all(last[name] > 0 for name in DOMAIN_GAPS)


def test_permuting_the_targets_labels_changes_no_value(runs: Path) -> None:
    assert _looks(runs / 'blind') == _looks(runs / 'watched')


def test_a_source_only_run_looks_at_the_target_that_is_given(runs: Path) -> None:
    looks = _looks(runs / 'baseline')

    assert [look['iteration'] for look in looks] == [0, 2]
    assert not DOMAIN_GAPS & looks[0].keys()
    assert looks[0]['caption_coverage'] * 50 == pytest.approx(
        round(looks[0]['caption_coverage'] * 50)
    )


def test_a_resumed_run_has_seen_the_same(runs: Path) -> None:
    assert _looks(runs / 'resumed') == _looks(runs / 'watched')


@pytest.fixture
def _scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('gckd_mm'):
        yield


class SpyModel(nn.Module):
    """Embed at random; remember what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.source_iters = 5
        self.captions: list[str] = []
        self.images: list[Tensor] = []
        self.sizes: list[int] = []
        self.modes: list[tuple[bool, bool]] = []

    def data_preprocessor(self, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def extract_feat(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        ((modality, items),) = inputs.items()
        getattr(self, modality).extend(items)
        self.sizes.append(len(items))
        self.modes.append((self.training, torch.is_grad_enabled()))
        return {modality: torch.randn(len(items), 8) * self.weight}


class Run(SimpleNamespace):
    """As much of a runner as the hook looks at."""

    def __init__(self, dataset: Any, work_dir: Path, iteration: int = 5) -> None:
        super().__init__(
            model=SpyModel(),
            train_dataloader=SimpleNamespace(dataset=dataset),
            visualizer=SimpleNamespace(add_scalars=lambda *args, **kwargs: None),
            logger=MMLogger.get_current_instance(),
            iter=iteration,
            max_iters=9,
            work_dir=str(work_dir),
        )


def _datasets(data: Path, **options: Any) -> CrossDomainDataset:
    return CrossDomainDataset(
        source=dict(type='CUHKPEDES', data_root=str(data / 'cuhk_pedes')),
        target=dict(type='RSTPReid', data_root=str(data / 'rstpreid')),
        **options,
    )


@pytest.mark.usefixtures('_scope')
def test_a_fixed_subset_is_embedded_in_batches(data: Path, tmp_path: Path) -> None:
    dataset = _datasets(data)
    run = Run(dataset, tmp_path)
    hook = TargetStructureHook(SHIPPED.image_pipeline, max_samples=50, batch_size=20)
    hook.before_train(run)

    hook.before_train_iter(run, 0)
    first = list(run.model.captions), torch.stack(run.model.images)
    hook.before_train_iter(run, 0)

    assert run.model.sizes == 2 * (2 * [20, 20, 10] + 2 * [20, 20, 10])
    assert set(run.model.modes) == {(False, False)}
    assert run.model.training
    # The same at the second look; every part of the order has its share.
    assert run.model.captions == 2 * first[0]
    assert torch.equal(torch.stack(run.model.images), torch.cat([first[1], first[1]]))
    order = dataset.target_captions
    places = [order.index(text) for text in first[0][:50]]
    steps = np.diff(places)
    assert places[0] == 0
    assert set(steps) <= {len(order) // 50, len(order) // 50 + 1}
    assert places[-1] >= len(order) - 6


@pytest.mark.usefixtures('_scope')
def test_an_augmenting_pipeline_draws_the_same_and_gives_the_states_back(
    data: Path, tmp_path: Path
) -> None:
    run = Run(_datasets(data), tmp_path)
    hook = TargetStructureHook(SHIPPED.train_pipeline, max_samples=20)
    hook.before_train(run)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    hook.before_train_iter(run, 0)
    first = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
    images = torch.stack(run.model.images)

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(0)
    assert first == (random.random(), np.random.random(), torch.rand(1))  # noqa: NPY002
    hook.before_train_iter(run, 0)
    assert torch.equal(torch.stack(run.model.images), torch.cat([images, images]))


@pytest.mark.usefixtures('_scope')
def test_ranks_beside_the_main_process_do_not_look(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(_datasets(data), tmp_path)
    hook = TargetStructureHook(SHIPPED.image_pipeline)
    hook.before_train(run)
    monkeypatch.setattr(target_structure_hook, 'is_main_process', lambda: False)

    hook.before_train_iter(run, 0)

    assert run.model.sizes == []
    assert not (tmp_path / 'structure.json').exists()


@pytest.mark.usefixtures('_scope')
def test_runs_without_a_target_to_look_at_are_refused(
    data: Path, tmp_path: Path
) -> None:
    hook = TargetStructureHook(SHIPPED.image_pipeline)
    pairs = DATASETS.build(dict(type='RSTPReid', data_root=str(data / 'rstpreid')))
    with pytest.raises(InputError, match=r'RSTPReid, which has no target: set target'):
        hook.before_train(Run(pairs, tmp_path))
    alone = _datasets(data, target_captions=False)
    with pytest.raises(InputError, match=r'120 images and 0 captions'):
        TargetStructureHook(SHIPPED.image_pipeline).before_train(Run(alone, tmp_path))
    target = dict(type='RSTPReid', data_root=str(data / 'rstpreid'), split='test')
    hook = TargetStructureHook(SHIPPED.image_pipeline, target=target)
    with pytest.raises(InputError, match=r"'test' split must not be seen"):
        hook.before_train(Run(pairs, tmp_path))


@pytest.mark.usefixtures('_scope')
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'max_samples': 1}, 'max_samples must be at least 2, got 1'),
        ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
        ({'interval': 0}, 'interval must be at least 1, got 0'),
    ],
)
def test_numbers_that_are_too_small_are_refused(
    options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TargetStructureHook(SHIPPED.image_pipeline, **options)
