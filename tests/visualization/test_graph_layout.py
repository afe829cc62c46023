"""Nodes keep clear of each other, and near what they are linked to."""

from __future__ import annotations

import numpy as np
import pytest

from gckd_mm.visualization.graph_layout import _push_apart, place_nodes

GAP = 0.3


def _stars(num: int, points: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Some middles with points around each, of two shapes."""
    edges = [
        (num + middle * points + point, middle)
        for middle in range(num)
        for point in range(points)
    ]
    shapes = [(0.4, 0.8), (1.5, 0.7)]
    return np.array([shapes[n % 2] for n in range(num * (points + 1))]), edges


def _overlap(middles: np.ndarray, sizes: np.ndarray, gap: float) -> bool:
    for first in range(len(sizes)):
        for second in range(first):
            room = (sizes[first] + sizes[second]) / 2 + gap
            if (np.abs(middles[first] - middles[second]) < room - 1e-6).all():
                return True
    return False


@pytest.mark.parametrize(('num', 'points'), [(1, 0), (1, 1), (8, 7), (12, 9)])
def test_no_node_is_on_another(num: int, points: int) -> None:
    sizes, edges = _stars(num, points)
    middles = place_nodes(sizes, edges, GAP)
    assert np.isfinite(middles).all()
    assert not _overlap(middles, sizes, GAP)


def test_nodes_on_one_spot_are_pushed_apart() -> None:
    sizes = np.full((40, 2), (1.0, 0.5))
    assert not _overlap(_push_apart(np.zeros((40, 2)), sizes), sizes, 0.0)


def test_linked_nodes_are_nearer_than_others() -> None:
    sizes, edges = _stars(6, 5)
    middles = place_nodes(sizes, edges, GAP)
    for point, middle in edges:
        apart = np.linalg.norm(middles[:6] - middles[point], axis=1)
        assert apart.argmin() == middle


def test_equal_graphs_have_equal_layouts_and_no_state_is_drawn_from() -> None:
    sizes, edges = _stars(4, 4)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (place_nodes(sizes, edges, GAP) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_the_figure_is_of_a_size_that_can_be_read() -> None:
    sizes, edges = _stars(8, 7)
    middles = place_nodes(sizes, edges, GAP)
    area = np.prod(
        (middles + sizes / 2).max(axis=0) - (middles - sizes / 2).min(axis=0)
    )
    assert sizes.prod(axis=1).sum() > area / 6
