"""Where the nodes of a graph go: springs along its edges, and no node on another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ITERATIONS = 300
_GRAVITY = 2.0
_PATIENCE = 200
#: of the golden angle: points at its multiples never fall into line
_GOLDEN = np.pi * (3 - np.sqrt(5))


def place_nodes(
    sizes: np.ndarray, edges: Sequence[tuple[int, int]], gap: float
) -> np.ndarray:
    """Place rectangles so that edges are short and no two of them touch.

    Nothing is random: equal graphs have equal layouts.

    Args:
        sizes: Width and height of each node, shape (N, 2).
        edges: Pairs of nodes.
        gap: Between two rectangles at least, in the unit of the sizes.

    Returns:
        The middles of the nodes, shape (N, 2), float64.

    Source: Fruchterman and Reingold, *Graph Drawing by Force-directed Placement*, 1991;
    with gravity, for graphs in several parts, and pushing overlaps apart, which are
    ours.
    """
    number = np.arange(len(sizes))
    angle, radius = number * _GOLDEN, np.sqrt(number + 0.5)
    ideal = np.sqrt(sizes.prod(axis=1).mean()) + gap
    middles = ideal * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    links = np.array(edges, dtype=np.int64).reshape(-1, 2)
    for iteration in range(_ITERATIONS):
        step = ideal * (1 - iteration / _ITERATIONS)
        forces = _forces(middles, links, ideal)
        length = np.linalg.norm(forces, axis=1, keepdims=True).clip(min=1e-9)
        middles = middles + forces / length * np.minimum(length, step)
    return _push_apart(middles, sizes + gap)


def _forces(middles: np.ndarray, links: np.ndarray, ideal: float) -> np.ndarray:
    apart = middles[:, None] - middles[None, :]
    squared = (apart**2).sum(axis=2).clip(min=1e-6)
    forces = (apart * (ideal**2 / squared)[..., None]).sum(axis=1)
    forces -= _GRAVITY * middles
    pull = apart[links[:, 0], links[:, 1]]
    pull = pull * np.linalg.norm(pull, axis=1, keepdims=True) / ideal
    np.add.at(forces, links[:, 0], -pull)
    np.add.at(forces, links[:, 1], pull)
    return forces


def _push_apart(middles: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Move overlapping rectangles away from each other, the shorter way."""
    middles = middles.copy()
    room = (sizes[:, None] + sizes[None, :]) / 2
    first, second = np.triu_indices(len(sizes), k=1)
    attempts = 0
    while True:
        apart = middles[first] - middles[second]
        overlap = room[first, second] - np.abs(apart)
        touching = np.flatnonzero((overlap > 1e-9).all(axis=1))
        if not len(touching):
            return middles
        axis = overlap[touching].argmin(axis=1)
        sign = np.where(apart[touching, axis] < 0, -1.0, 1.0)
        # A little more than the overlap, so that it ends.
        move = 0.51 * overlap[touching, axis] * sign + 1e-6 * sign
        np.add.at(middles, (first[touching], axis), move)
        np.add.at(middles, (second[touching], axis), -move)
        attempts += 1
        if attempts > _PATIENCE:  # they push each other in circles: room for all
            middles *= 1.05
