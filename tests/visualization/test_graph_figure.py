"""A graph's figure has its nodes, its edges, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

from gckd_mm.visualization.figure_files import pixels_of
from gckd_mm.visualization.graph_figure import (
    DOMAIN_COLOURS,
    RELATION_STYLES,
    plot_propagation_graph,
)
from gckd_mm.visualization.propagation_graph import (
    GraphEdge,
    GraphNode,
    PropagationGraph,
)


@pytest.fixture
def graph(tmp_path: Path) -> PropagationGraph:
    paths = [str(tmp_path / f'{colour}.png') for colour in ('lime', 'red')]
    for path in paths:
        Image.new('RGB', (20, 40), Path(path).stem).save(path)
    nodes = [
        GraphNode('target', 'images', paths[0], is_seed=True),
        GraphNode('source', 'images', paths[1]),
        GraphNode('target', 'captions', 'a man in $5 \\shoes_ and ' + 'a coat ' * 90),
        GraphNode('source', 'captions', 'a hat'),
    ]
    edges = [
        GraphEdge(1, 0, 'cross_domain', 0.2),
        GraphEdge(2, 0, 'cross_modal', 0.6),
        GraphEdge(3, 2, 'cross_domain', 0.1),
        GraphEdge(0, 2, 'near', 0.0),
    ]
    return PropagationGraph(nodes, edges, 'cosine similarity')


def _arrows(figure: Figure) -> list[FancyArrowPatch]:
    (axes,) = figure.axes
    return [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]


def test_every_edge_is_an_arrow_and_no_more(graph: PropagationGraph) -> None:
    arrows = _arrows(plot_propagation_graph(graph))
    assert [arrow.get_gid() for arrow in arrows] == [
        'edge 1 0 cross_domain',
        'edge 2 0 cross_modal',
        'edge 3 2 cross_domain',
        'edge 0 2 near',
    ]
    widths = [arrow.get_linewidth() for arrow in arrows]
    weights = [edge.weight for edge in graph.edges]
    assert np.argsort(widths).tolist() == np.argsort(weights).tolist()
    assert np.diff(widths) / np.diff(weights) == pytest.approx(
        (widths[1] - widths[3]) / 0.6
    )


def test_edges_from_the_source_are_broken_and_of_their_own_colour(
    graph: PropagationGraph,
) -> None:
    arrows = _arrows(plot_propagation_graph(graph))
    colours = [to_hex(arrow.get_edgecolor()) for arrow in arrows]
    assert colours[0] == colours[2] == RELATION_STYLES['cross_domain'][0]
    assert len({*colours}) == 3
    assert [arrow.get_linestyle() != 'solid' for arrow in arrows] == [
        True,
        False,
        True,
        False,
    ]


def test_arrows_lead_from_the_middle_of_one_to_the_frame_of_the_other(
    graph: PropagationGraph,
) -> None:
    figure = plot_propagation_graph(graph)
    frames = _frames(figure)
    middles = [_middle(frame) for frame in frames]
    for edge, arrow in zip(graph.edges, _arrows(figure), strict=True):
        begin, end = (np.array(point) for point in arrow._posA_posB)
        assert begin == pytest.approx(middles[edge.sender])
        frame = frames[edge.receiver]
        size = np.array([frame.get_width(), frame.get_height()])
        away = np.abs(end - middles[edge.receiver]) / (size / 2)
        assert away.max() == pytest.approx(1)


def _frames(figure: Figure) -> list[Rectangle]:
    (axes,) = figure.axes
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def _middle(frame: Rectangle) -> np.ndarray:
    size = frame.get_width(), frame.get_height()
    return np.array(frame.get_xy()) + np.array(size) / 2


def test_frames_tell_domains_and_seeds(graph: PropagationGraph) -> None:
    frames = _frames(plot_propagation_graph(graph))
    colours = [to_hex(frame.get_edgecolor()) for frame in frames]
    assert colours == [DOMAIN_COLOURS[node.domain] for node in graph.nodes]
    assert frames[0].get_linewidth() > 2 * frames[1].get_linewidth()
    assert frames[0].get_width() > frames[1].get_width()
    # A card is tinted; an image is what is behind its frame.
    assert [frame.get_facecolor()[3] for frame in frames] == [0, 0, 1, 1]


def test_thumbnails_are_where_their_frames_are(graph: PropagationGraph) -> None:
    figure = plot_propagation_graph(graph)
    (axes,) = figure.axes
    assert len(axes.images) == 2
    pixels = pixels_of(figure)
    for frame, colour in zip(_frames(figure), [(0, 255, 0), (255, 0, 0)], strict=False):
        x, y = axes.transData.transform(_middle(frame))
        assert tuple(pixels[len(pixels) - 1 - int(y), int(x)]) == colour


def test_captions_are_short_cards_of_plain_text(graph: PropagationGraph) -> None:
    figure = plot_propagation_graph(graph, title='$x')
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # would fail to parse what is between dollars
    (axes,) = figure.axes
    long, short = axes.texts
    assert long.get_text().startswith('a man in $5 \\shoes_ and')
    assert long.get_text().endswith('…')
    assert short.get_text() == 'a hat'
    for text, frame in zip(axes.texts, _frames(figure)[2:], strict=True):
        written, card = text.get_window_extent(), frame.get_window_extent()
        assert card.x0 <= written.x0
        assert written.x1 <= card.x1
        assert card.y0 <= written.y0
        assert written.y1 <= card.y1


def test_the_legend_explains_what_there_is(graph: PropagationGraph) -> None:
    figure = plot_propagation_graph(graph)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [
        'of the source',
        'of the target',
        'cross-domain',
        'cross-modal',
        'near',
    ]
    assert 'cosine similarity' in legend.get_title().get_text()
    extent = legend.get_window_extent()
    assert not [f for f in _frames(figure) if extent.overlaps(f.get_window_extent())]


def test_equal_graphs_have_equal_pixels(graph: PropagationGraph) -> None:
    first, second = (pixels_of(plot_propagation_graph(graph)) for _ in range(2))
    assert np.array_equal(first, second)


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match='no nodes'):
        plot_propagation_graph(PropagationGraph([], [], ''))
