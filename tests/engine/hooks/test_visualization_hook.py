"""Figures are written when they should be, and the run does not notice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from PIL import Image, ImageColor

from gckd_mm.checkpoint import read_checkpoint
from gckd_mm.engine.hooks import VisualizationHook
from gckd_mm.errors import InputError
from gckd_mm.visualization.rank_lists import RIGHT, WRONG
from tests.engine.hooks.test_target_structure_hook import TraceHook
from tests.training import in_process, small_gckd_config, train

MAX_ITERS = 8
#: the start of the adaptation, every 5 iterations, the end
LOOKS = (3, 5, MAX_ITERS)


def _config(data: Path, work_dir: Path, *hooks: dict[str, Any]) -> Config:
    cfg = small_gckd_config(
        data, work_dir, experiment_name=work_dir.name, log_level='INFO'
    )
    cfg.custom_hooks += [dict(type=f'mmengine.{TraceHook.__name__}'), *hooks]
    return cfg


def _train_both(data: Path, folder: Path) -> None:
    hook = dict(type='VisualizationHook', interval=5, num_rank_lists=2, max_points=60)
    train(_config(data, folder / 'plain'))
    train(_config(data, folder / 'plotted', hook))


@pytest.fixture(scope='module')
def runs(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the hook and of one without."""
    pytest.importorskip('sklearn')
    folder = tmp_path_factory.mktemp('runs')
    assert in_process(_train_both, miniature, folder) == 0
    return folder


def test_a_run_with_the_hook_is_the_run_without_it(runs: Path) -> None:
    expected, found = (
        read_checkpoint(runs / name / f'iter_{MAX_ITERS}.pth')
        for name in ('plain', 'plotted')
    )
    assert expected['state_dict'].keys() == found['state_dict'].keys()
    for name, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value), name
    # Generators, modes and batches, before and after each iteration.
    traces = [(runs / name / 'trace.json').read_text() for name in ('plain', 'plotted')]
    assert traces[0] == traces[1]
    assert len(set(json.loads(traces[0]))) > MAX_ITERS


def test_figures_are_where_the_visualizer_puts_them(runs: Path) -> None:
    (folder,) = (runs / 'plotted').glob('*/vis_data/vis_image')
    assert {path.name for path in folder.iterdir()} == {
        f'{name}_{step}.png'
        for name in ('rank_lists', 'embedding_map', 'propagation_graph')
        for step in LOOKS
        if (name, step) != ('propagation_graph', 3)  # nothing is remembered yet
    }
    # Red and blue are not swapped on the way.
    lists = _colours(folder / f'rank_lists_{MAX_ITERS}.png')
    assert {ImageColor.getrgb(RIGHT), ImageColor.getrgb(WRONG)} & lists
    assert (folder / 'rank_lists_3.png').read_bytes() != (
        folder / 'rank_lists_8.png'
    ).read_bytes()


def _colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        found = image.convert('RGB').getcolors(maxcolors=2**24)
    return {colour for _, colour in found}


def test_the_log_says_that_nothing_may_be_chosen_by_it(runs: Path) -> None:
    (log,) = (runs / 'plotted').glob('*/*.log')
    lines = [line for line in log.read_text().splitlines() if 'Figures of' in line]
    assert len(lines) == len(LOOKS)
    for line in lines:
        assert 'nothing may be chosen' in line
        assert 'rstpreid' in line


def test_no_config_of_ours_has_the_hook() -> None:
    configs = Path(__file__).parents[3] / 'configs'
    assert not [
        path
        for path in configs.rglob('*.py')
        if VisualizationHook.__name__ in path.read_text()
    ]


def test_what_cannot_be_plotted_is_known_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin(hook: VisualizationHook, **cfg: Any) -> None:
        hook.before_train(SimpleNamespace(cfg=Config(cfg)))

    with pytest.raises(InputError, match='neither test_dataloader nor val_dataloader'):
        begin(VisualizationHook())
    sets = {f'set{number}': {} for number in range(5)}
    with pytest.raises(InputError, match='at most 4 test sets, got 5'):
        begin(VisualizationHook(), test_dataloader=sets)
    monkeypatch.setitem(sys.modules, 'umap', None)
    with pytest.raises(InputError, match='UMAP needs umap-learn'):
        begin(VisualizationHook(method='umap'), test_dataloader={'mall': {}})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'interval': 0}, 'interval must be at least 1'),
        ({'num_rank_lists': -1}, 'must not be negative, got -1 and 8'),
        ({'num_seeds': -1}, 'must not be negative, got 4 and -1'),
        ({'max_points': 7}, 'max_points must be 0 or at least 20, got 7'),
        ({'method': 'pca'}, "method must be one of .*, got 'pca'"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VisualizationHook(**options)
