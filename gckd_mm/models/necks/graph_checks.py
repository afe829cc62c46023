"""What a :class:`GraphPropagationNeck` refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import Neighbours
from gckd_mm.models.necks.gated_conv import CONVS

LAYERS = (*CONVS, 'parameter_free')

#: (type of the senders, relation, type of the receivers), as in torch-geometric
EdgeType: TypeAlias = tuple[str, str, str]


def check_settings(
    layer: str, counts: Sequence[int], temperature: float, alpha: float
) -> None:
    """Refuse arguments that are out of their range.

    ``counts`` are ``in_channels``, ``num_layers`` and ``k``.
    """
    if layer not in LAYERS:
        raise InputError(f'layer must be one of {LAYERS}, got {layer!r}')
    if min(counts) < 1:
        raise InputError(
            'in_channels, num_layers and k must be at least 1, got '
            '{}, {} and {}'.format(*counts)
        )
    if temperature <= 0:
        raise InputError(f'temperature must be positive, got {temperature}')
    if not 0 <= alpha <= 1:
        raise InputError(f'alpha must be from 0 to 1, got {alpha}')


def check_names(relations: Sequence[str]) -> None:
    """Refuse names of relations that cannot name weights."""
    if (
        isinstance(relations, str)
        or not relations
        or len(set(relations)) < len(relations)
        or any('.' in name for name in relations)
    ):
        raise InputError(
            f'relations must be a list of distinct names without dots, got '
            f'{relations!r}'
        )


def check_graph(
    nodes: Mapping[str, Tensor],
    edges: Mapping[EdgeType, Neighbours],
    relations: Sequence[str],
    in_channels: int,
) -> None:
    """Refuse a graph in which a relation, a type of nodes or a size does not fit."""
    unknown = sorted({edge[1] for edge in edges} - set(relations))
    if unknown:
        raise InputError(
            f'unknown relations {unknown}: this neck has {list(relations)}; name them '
            f'in its `relations`'
        )
    for name, node in nodes.items():
        check_nodes(name, node, in_channels)
    for edge, neighbours in edges.items():
        missing = sorted({edge[0], edge[2]} - set(nodes))
        if missing:
            raise InputError(
                f'edges {edge}: there are no nodes of type {missing}, only '
                f'{list(nodes)}'
            )
        if len(neighbours.index) != len(nodes[edge[2]]):
            raise InputError(
                f'edges {edge}: neighbours of {len(neighbours.index)} rows were given '
                f'for {len(nodes[edge[2]])} receivers'
            )


def check_nodes(name: str, node: Tensor, in_channels: int) -> None:
    """Refuse embeddings that are not of shape (N, in_channels)."""
    if node.ndim != 2 or node.shape[1] != in_channels:
        raise InputError(
            f'{name}: expected embeddings of shape (N, {in_channels}), from '
            f'in_channels={in_channels}, got {tuple(node.shape)}: change in_channels, '
            f'or pool feature maps before this neck'
        )
