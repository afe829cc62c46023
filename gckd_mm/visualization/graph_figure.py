"""A figure of a propagation graph: crops, captions, and the edges between them."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from PIL import Image

from gckd_mm.datasets.transforms.load_person_image import read_image
from gckd_mm.visualization.graph_layout import place_nodes
from gckd_mm.visualization.propagation_graph import GraphNode, PropagationGraph

# Of Okabe and Ito: distinct with any of the common colour deficiencies.
DOMAIN_COLOURS = {'source': '#e69f00', 'target': '#0072b2'}
_CARDS = {'source': '#fff4dc', 'target': '#e4f1fa'}
#: relation -> colour and dashes; broken lines are edges from the source
RELATION_STYLES: dict[str, tuple[str, Any]] = {
    'near': ('#555555', 'solid'),
    'cross_domain': ('#d55e00', (0, (4, 2))),
    'cross_modal': ('#009e73', 'solid'),
}
_THUMBNAIL = (96, 192)  # pixels
_SIZES = {'images': (0.42, 0.84), 'captions': (1.5, 0.66)}  # inches
_SEED_SCALE = 1.3
_GAP, _MARGIN, _LEGEND = 0.28, 0.2, 0.7  # inches
_LINE_WIDTHS = (0.6, 4.5)  # points, of the weakest weight that there may be, and most
_FONT_SIZE, _LINE_LENGTH, _LINES = 6.0, 27, 5


def plot_propagation_graph(graph: PropagationGraph, title: str = '') -> Figure:
    """Plot the seeds of a graph, their in-edges and the weight of each.

    Seeds are larger and have thick frames. An arrow leads from a sender to a receiver,
    the wider the more it weighs; edges from the source are broken lines of a colour of
    their own. Crops stand for images, cards of text for captions; the colour of a
    frame tells the domain.

    Equal graphs give equal figures.
    """
    if not graph.nodes:
        raise ValueError('the graph has no nodes to plot')
    sizes = np.array([_size(node) for node in graph.nodes])
    ends = [(edge.sender, edge.receiver) for edge in graph.edges]
    middles = place_nodes(sizes, ends, _GAP)
    low = (middles - sizes / 2).min(axis=0) - _MARGIN
    high = (middles + sizes / 2).max(axis=0) + _MARGIN
    # Room for the legend below, and for the title above.
    low[1] -= _LEGEND
    high[1] += 0.3 if title else 0.0
    width, height = high - low
    width = max(width, 6.5)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _plot_edges(axes, graph, middles, sizes)
    for node, middle, size in zip(graph.nodes, middles, sizes, strict=True):
        _plot_node(axes, node, middle, size)
    middle_x = (low[0] + high[0]) / 2
    # One unit is an inch, so that sizes above and in points fit together.
    axes.set_xlim(middle_x - width / 2, middle_x + width / 2)
    axes.set_ylim(low[1], high[1])
    _plot_legend(figure, graph)
    if title:
        top = 1 - 0.1 / height
        figure.text(0.5, top, title, ha='center', va='top', parse_math=False)
    return figure


def _size(node: GraphNode) -> tuple[float, float]:
    width, height = _SIZES[node.modality]
    scale = _SEED_SCALE if node.is_seed else 1.0
    return scale * width, scale * height


def _plot_edges(
    axes: Axes, graph: PropagationGraph, middles: np.ndarray, sizes: np.ndarray
) -> None:
    largest = max((edge.weight for edge in graph.edges), default=0.0) or 1.0
    thin, thick = _LINE_WIDTHS
    for edge in graph.edges:
        colour, dashes = RELATION_STYLES[edge.relation]
        begin, end = middles[edge.sender], middles[edge.receiver]
        axes.add_patch(
            FancyArrowPatch(
                tuple(begin),
                tuple(_on_border(begin, end, sizes[edge.receiver])),
                arrowstyle='-|>',
                mutation_scale=8,
                shrinkA=0,
                shrinkB=1,
                color=colour,
                linestyle=dashes,
                linewidth=thin + (thick - thin) * edge.weight / largest,
                alpha=0.75,
                zorder=1,
                gid=f'edge {edge.sender} {edge.receiver} {edge.relation}',
            )
        )


def _on_border(begin: np.ndarray, end: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return where the line to the middle of a rectangle enters it."""
    line = begin - end
    with np.errstate(divide='ignore'):
        fraction = (size / 2 / np.abs(line)).min()
    return end + line * min(1.0, float(fraction))


def _plot_node(
    axes: Axes, node: GraphNode, middle: np.ndarray, size: np.ndarray
) -> None:
    left, bottom = middle - size / 2
    right, top = middle + size / 2
    if node.modality == 'images':
        image = Image.fromarray(read_image(node.content))
        pixels = np.asarray(image.resize(_THUMBNAIL, Image.Resampling.BICUBIC))
        axes.imshow(pixels, extent=(left, right, bottom, top), aspect='auto', zorder=2)
    else:
        scale = _SEED_SCALE if node.is_seed else 1.0
        axes.text(
            middle[0],
            middle[1],
            _card(node.content),
            ha='center',
            va='center',
            fontsize=_FONT_SIZE * scale,
            linespacing=1.1,
            zorder=4,
            parse_math=False,
        )
    axes.add_patch(
        Rectangle(
            (left, bottom),
            *size,
            facecolor=_CARDS[node.domain] if node.modality == 'captions' else 'none',
            edgecolor=DOMAIN_COLOURS[node.domain],
            linewidth=4.0 if node.is_seed else 1.6,
            zorder=3,
        )
    )


def _card(caption: str) -> str:
    return '\n'.join(wrap(caption, _LINE_LENGTH, max_lines=_LINES, placeholder=' …'))


def _plot_legend(figure: Figure, graph: PropagationGraph) -> None:
    relations = dict.fromkeys(edge.relation for edge in graph.edges)
    handles: list[Line2D | Patch] = [
        Patch(facecolor='none', edgecolor=colour, linewidth=2, label=f'of the {domain}')
        for domain, colour in DOMAIN_COLOURS.items()
    ]
    for relation in relations:
        colour, dashes = RELATION_STYLES[relation]
        name = relation.replace('_', '-')
        handles.append(Line2D([], [], color=colour, linestyle=dashes, lw=2, label=name))
    figure.legend(
        handles=handles,
        loc='lower center',
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        title=f'thick frame: seed; width of an edge: {graph.weights}',
        title_fontsize=8,
    )
