"""The graph against loops, the propagation against a dense solve, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.functional.label_propagation import (
    AffinityGraph,
    affinity_graph,
    close_modality_gap,
    propagate_labels,
)


def unit(rows: int, seed: int, shift: float = 0.0, dim: int = 6) -> Tensor:
    """Random embeddings, shifted in a direction of their own."""
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    feats[:, seed % dim] += shift
    return F.normalize(feats, dim=1)


def dense(graph: AffinityGraph, nodes: int) -> np.ndarray:
    weights = np.zeros((nodes, nodes))
    for (a, b), weight in zip(
        graph.edges.t().tolist(), graph.weights.tolist(), strict=True
    ):
        assert weights[a, b] == 0, 'an edge is there twice'
        weights[a, b] = weight
    return weights


def naive_affinity(
    images: Tensor, captions: Tensor, k: int, exponent: float
) -> np.ndarray:
    nodes = [('images', row) for row in images.tolist()]
    nodes += [('captions', row) for row in captions.tolist()]
    directed = np.zeros((len(nodes), len(nodes)))
    for receiver in ('images', 'captions'):
        for sender in ('images', 'captions'):
            chosen = {}
            for a, (modality, left) in enumerate(nodes):
                if modality != receiver:
                    continue
                ranked = sorted(
                    (
                        (np.dot(left, right), b)
                        for b, (other, right) in enumerate(nodes)
                        if other == sender and b != a
                    ),
                    reverse=True,
                )
                chosen |= {(a, b): s for s, b in ranked[:k] if s > 0}
            for (a, b), similarity in chosen.items():
                mean = sum(chosen.values()) / len(chosen)
                directed[a, b] = (similarity / mean) ** exponent
    return directed + directed.T


@pytest.mark.parametrize(
    ('dtype', 'atol'),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 1e-2)],
)
def test_the_gap_closes(dtype: torch.dtype, atol: float) -> None:
    images, captions = unit(40, 0, shift=3), unit(30, 1, shift=2)
    basis = np.linalg.qr(
        torch.stack([images.mean(dim=0), captions.mean(dim=0)]).t().numpy()
    ).Q

    found = close_modality_gap(images.to(dtype), captions.to(dtype))

    for feats, before in zip(found, (images, captions), strict=True):
        assert feats.dtype == torch.promote_types(dtype, torch.float32)
        left = before.numpy() - before.numpy() @ basis @ basis.T
        expected = left / np.linalg.norm(left, axis=1, keepdims=True)
        np.testing.assert_allclose(feats, expected, atol=atol)


def test_modalities_that_share_their_mean_lose_one_direction() -> None:
    feats = unit(40, 0, shift=2).float()
    mean = F.normalize(feats.mean(dim=0), dim=0)

    images, captions = close_modality_gap(feats, feats[torch.randperm(40)])

    expected = F.normalize(feats - feats @ mean[:, None] * mean, dim=1)
    torch.testing.assert_close(images, expected)
    torch.testing.assert_close(captions.norm(dim=1), torch.ones(40))


def test_where_a_modality_is_missing_there_is_no_gap() -> None:
    images = unit(3, 0).float()

    assert torch.equal(close_modality_gap(images, images[:0])[0], images)


@pytest.mark.parametrize('exponent', [1.0, 3.0])
@pytest.mark.parametrize('k', [1, 3, 20])
def test_the_graph_against_loops(k: int, exponent: float) -> None:
    images, captions = unit(7, 0), unit(9, 1)

    graph = affinity_graph(images, captions, k, exponent)

    expected = naive_affinity(images, captions, k, exponent)
    np.testing.assert_allclose(dense(graph, 16), expected, rtol=1e-4, atol=1e-6)
    assert graph.edges.shape[1] <= 4 * k * 16
    # In order, as a sparse matrix wants them.
    place = graph.edges[0] * 16 + graph.edges[1]
    assert (place.diff() > 0).all()


def test_every_node_finds_both_modalities() -> None:
    images, captions = unit(7, 0, shift=4), unit(9, 0, shift=4)

    weights = dense(affinity_graph(images, captions, 2, 3.0), 16)

    assert ((weights[:, :7] > 0).sum(axis=1) >= 2).all()
    assert ((weights[:, 7:] > 0).sum(axis=1) >= 2).all()
    assert not weights.diagonal().any()


def random_graph(nodes: int = 24, lonely: int = 3) -> AffinityGraph:
    """Sparse, with a hub, and some nodes without neighbours."""
    generator = np.random.default_rng(0)
    weights = generator.random((nodes, nodes)) * (
        generator.random((nodes, nodes)) < 0.1
    )
    weights[0, 1:] = 0.5
    weights[-lonely:] = weights[:, -lonely:] = 0
    weights = torch.tensor(np.triu(weights, 1) + np.triu(weights, 1).T)
    sparse = weights.to_sparse().coalesce()
    return AffinityGraph(sparse.indices(), sparse.values())


def solved(graph: AffinityGraph, labels: Tensor, alpha: float) -> np.ndarray:
    weights = dense(graph, len(labels))
    degrees = weights.sum(axis=1, keepdims=True)
    walk = np.divide(weights, degrees, out=np.zeros_like(weights), where=degrees > 0)
    return np.linalg.solve(np.eye(len(labels)) - alpha * walk, labels.numpy())


def some_labels(nodes: int = 24) -> Tensor:
    """A column for each node, one for several nodes at once, one for none."""
    several = torch.zeros(nodes, 2, dtype=torch.float64)
    several[::5, 0] = torch.arange(1.0, 1 + len(several[::5]), dtype=torch.float64)
    return torch.cat([torch.eye(nodes, dtype=torch.float64), several], dim=1)


@pytest.mark.parametrize('alpha', [0.1, 0.9, 0.99])
def test_propagation_against_a_dense_solve(alpha: float) -> None:
    graph, labels = random_graph(), some_labels()

    found = propagate_labels(graph, labels, alpha, iterations=40)

    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, solved(graph, labels, alpha), atol=1e-9)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_propagation_in_lower_precision(dtype: torch.dtype) -> None:
    graph, labels = random_graph(), some_labels()

    # Far more steps than it needs: what is solved must stay solved.
    found = propagate_labels(graph, labels.to(dtype), 0.9, iterations=200)

    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, solved(graph, labels, 0.9), atol=1e-4)


def test_each_step_comes_closer() -> None:
    graph, labels = random_graph(), some_labels()
    expected = solved(graph, labels, 0.9)
    degrees = np.maximum(dense(graph, 24).sum(axis=1, keepdims=True), 1e-9)

    errors = []
    for iterations in range(1, 8):
        found = propagate_labels(graph, labels, 0.9, iterations)
        assert (found >= 0).all()
        errors.append(np.square((found.numpy() - expected) * np.sqrt(degrees)).sum())

    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


def test_columns_do_not_hear_of_each_other() -> None:
    graph, labels = random_graph(), some_labels()

    together = propagate_labels(graph, labels, 0.9, iterations=4)

    alone = torch.cat(
        [propagate_labels(graph, column[:, None], 0.9, 4) for column in labels.t()],
        dim=1,
    )
    torch.testing.assert_close(together, alone)


def test_a_hub_is_not_the_best_of_everything() -> None:
    """Ten pairs, whose first members all know one hub more than it is worth."""
    weights = torch.zeros(21, 21, dtype=torch.float64)
    for pair in range(10):
        weights[2 * pair, 2 * pair + 1] = 0.8
        weights[2 * pair, 20] = 2.0
    sparse = (weights + weights.t()).to_sparse().coalesce()
    graph = AffinityGraph(sparse.indices(), sparse.values())

    found = propagate_labels(graph, torch.eye(21, dtype=torch.float64), 0.9, 40)

    first = found[:, 0:20:2]
    assert (first[1:20:2].diagonal() > first[20]).all()


def test_without_edges_and_without_nodes() -> None:
    empty = AffinityGraph(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0))

    assert torch.equal(propagate_labels(empty, torch.eye(3), 0.9, 4), torch.eye(3))
    assert propagate_labels(empty, torch.zeros(0, 5), 0.9, 4).shape == (0, 5)
    assert (
        len(affinity_graph(torch.zeros(0, 6), torch.zeros(0, 6), 2, 3.0).weights) == 0
    )


def test_autocast_changes_nothing() -> None:
    images, captions = unit(7, 0, shift=1).float(), unit(9, 1, shift=1).float()

    def run() -> Tensor:
        graph = affinity_graph(*close_modality_gap(images, captions), 3, 3.0)
        return propagate_labels(graph, torch.eye(16), 0.9, 5)

    outside = run()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert (images @ images.t()).dtype == torch.bfloat16
        inside = run()

    assert torch.equal(inside, outside)
