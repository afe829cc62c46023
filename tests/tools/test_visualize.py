"""The tool that plots, called as from the shell, on good and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gckd_mm.visualization.embedding_map import Panel
from gckd_mm.visualization.propagation_graph import PropagationGraph
from tests.training import in_process, last_checkpoint, small_gckd_config, train
from tools import test as test_tool
from tools import visualize


def _adapt(data: Path, work_dir: Path) -> None:
    cfg = small_gckd_config(data, work_dir)
    cfg.dump(work_dir / 'config.py')
    train(cfg)


@pytest.fixture(scope='module')
def adapted(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a small run of GCKD, its config in it."""
    work_dir = tmp_path_factory.mktemp('adapted')
    assert in_process(_adapt, miniature, work_dir) == 0
    return work_dir


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """The maps that are plotted."""
    plotted: list[Panel] = []
    original = visualize.plot_embedding_map

    def plot(maps: list[Panel]) -> Any:
        plotted.extend(maps)
        return original(maps)

    monkeypatch.setattr(visualize, 'plot_embedding_map', plot)
    return plotted


def test_maps_before_and_after_an_adaptation(
    adapted: Path, tmp_path: Path, panels: list[Panel]
) -> None:
    pytest.importorskip('sklearn')
    dump, out = tmp_path / 'after.npz', tmp_path / 'map.png'
    before, after = str(adapted / 'source.pth'), str(last_checkpoint(adapted))
    test_tool.main([after, '--dump', str(dump), '--work-dir', str(tmp_path / 'work')])
    options = ['--out', str(out), '--max-points', '80', '--device', 'cpu']
    options += ['--titles', 'before', 'dumped', 'after']
    options += ['--domains', 'cuhk_pedes', 'rstpreid']
    visualize.main(['embeddings', before, str(dump), after, *options])
    assert [panel.title for panel in panels] == ['before', 'dumped', 'after']
    first, dumped, last = (panel.positions for panel in panels)
    assert list(first) == list(dumped) == list(last)
    assert {domain for domain, _ in first} == {'cuhk_pedes', 'rstpreid'}
    # The same people in all of them.
    sizes = {group: len(part) for group, part in first.items()}
    assert sum(sizes.values()) <= 80
    for group, size in sizes.items():
        assert len(dumped[group]) == len(last[group]) == size
        assert not np.array_equal(first[group], last[group])
    with Image.open(out) as image:
        assert image.width > 2 * image.height


def test_two_maps_have_titles_of_their_own(
    adapted: Path, tmp_path: Path, panels: list[Panel]
) -> None:
    pytest.importorskip('sklearn')
    sources = [str(adapted / 'source.pth'), str(last_checkpoint(adapted))]
    out = str(tmp_path / 'map.svg')
    options = ['--max-points', '60', '--out', out, '--domains', 'rstpreid']
    visualize.main(['embeddings', *sources, *options])
    assert [panel.title for panel in panels] == list(visualize.TITLES)
    assert Path(out).read_text().startswith('<?xml')


@pytest.mark.parametrize('name', ['source.pth', 'iter_8.pth'])
def test_the_graph_of_a_checkpoint(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plotted: list[PropagationGraph] = []
    original = visualize.plot_propagation_graph

    def plot(graph: PropagationGraph) -> Any:
        plotted.append(graph)
        return original(graph)

    monkeypatch.setattr(visualize, 'plot_propagation_graph', plot)
    arguments = ['graph', str(adapted / 'config.py'), str(adapted / name)]
    options = ['--steps', '2', '--num-seeds', '4', '--neighbours', '2']
    for out in ('one.png', 'two.png'):
        visualize.main([*arguments, *options, '--out', str(tmp_path / out)])
    first, second = plotted
    assert first == second
    assert sum(node.is_seed for node in first.nodes) == 4
    assert {'near', 'cross_domain'} <= {edge.relation for edge in first.edges}
    one, two = (tmp_path / out for out in ('one.png', 'two.png'))
    assert one.read_bytes() == two.read_bytes()


def _error(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        visualize.main(list(arguments))
    return str(stop.value.code)


def test_input_that_cannot_be_drawn(adapted: Path, trained: Path) -> None:
    config, checkpoint = str(adapted / 'config.py'), str(last_checkpoint(adapted))
    plain = str(last_checkpoint(trained))
    out = ['--out', 'unused.png']
    for arguments, message in (
        (['graph', config, checkpoint, '--out', 'a.gif'], 'a.gif: must end in'),
        (['graph', 'nowhere.py', checkpoint, *out], 'config nowhere.py does not exist'),
        (['graph', config, 'no.pth', *out], 'checkpoint no.pth does not exist'),
        (['graph', config, plain, *out], 'of another architecture'),
        (
            ['graph', config, checkpoint, *out, '--cfg-options', 'model.graph=None'],
            'its model has no graph to plot',
        ),
        (
            ['embeddings', checkpoint, *out, '--titles', 'a', 'b'],
            '--titles: expected 1 of them',
        ),
        (['embeddings', 'no.npz', *out], 'no.npz: does not exist'),
        (
            ['embeddings', checkpoint, *out, '--domains', 'mall'],
            "has no test set 'mall'",
        ),
        (
            ['embeddings', checkpoint, *out, '--cfg-options', 'a=1'],
            '--cfg-options need a --config',
        ),
    ):
        assert message in _error(*arguments)
    assert not Path('unused.png').exists()
