"""Labels that spread over a graph of images and captions."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.gckd.memory import at_least_float32, nearest_neighbours

#: of the larger mean: a direction below it is rounding, not a gap between modalities
_NO_DIRECTION = 1e-5


class AffinityGraph(NamedTuple):
    """A weighted graph without loops; nodes are images first, then captions.

    Attributes:
        edges: Both ends of each edge, shape (2, E), int64: ordered by the first end,
            then by the second, no two alike, and with (a, b) there is (b, a).
        weights: Not negative, equal in both directions, shape (E,).
    """

    edges: Tensor
    weights: Tensor


@torch.no_grad()
def close_modality_gap(images: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
    """Take the mean direction of either modality out of both, and normalise again.

    What is left has the mean 0 in both modalities, but for the normalisation: what
    tells all captions from all images is gone. Computed in float32 at least, under
    autocast too.

    Args:
        images: L2-normalised, shape (N, D).
        captions: L2-normalised, shape (M, D).

    Returns:
        The same shapes, L2-normalised.

    Source: Hu et al., *ReCLIP*, WACV 2024, project both modalities
    orthogonally to the first singular vector of the text embeddings, since what all
    class names share tells no class from another, and onto the span of the others.
    Here are the captions' mean in place of that vector, the images' mean beside it, and
    no span: thousands of captions fill the space. These are ours.
    """
    with torch.autocast(images.device.type, enabled=False):
        images, captions = at_least_float32(images), at_least_float32(captions)
        if not len(images) or not len(captions):
            return images, captions
        means = torch.stack([images.mean(dim=0), captions.mean(dim=0)])
        _, lengths, directions = torch.linalg.svd(means, full_matrices=False)
        directions = directions[lengths > _NO_DIRECTION * lengths.max()]
        left = [
            feats - feats @ directions.t() @ directions for feats in (images, captions)
        ]
        return F.normalize(left[0], dim=1), F.normalize(left[1], dim=1)


@torch.no_grad()
def affinity_graph(
    images: Tensor, captions: Tensor, k: int, exponent: float
) -> AffinityGraph:
    """Join every image and every caption to its neighbours of both modalities.

    Each node has k neighbours of its own modality and k of the other. Similarities
    across the modalities are smaller than within: they are taken relative to the mean
    of their relation (images to images, images to captions, …), so that a walk changes
    the modality about every other step. Computed in float32, under autocast too.

    Args:
        images: L2-normalised, shape (N, D).
        captions: L2-normalised, shape (M, D).
        k: Neighbours of each modality.
        exponent: Of the similarities, the larger the more the nearest count.

    Returns:
        Over N + M nodes, with the weights W = A + Aᵀ, A_ab = (max(s_ab, 0) / s̄)^γ for
        the neighbours b of a. At most 4k(N + M) edges.

    Source: Iscen et al., *Label Propagation for Deep Semi-supervised Learning*, CVPR
    2019 (there γ = 3); neighbours by modality and the division by the mean are ours.
    ReCLIP has k neighbours of any modality, weighted (1 + s) / 2.
    """
    offsets = {'images': 0, 'captions': len(images)}
    feats = {'images': images, 'captions': captions}
    edges, weights = [], []
    for receiver, first in offsets.items():
        own = torch.arange(len(feats[receiver]), device=images.device)
        for sender, second in offsets.items():
            index, similarity = nearest_neighbours(
                feats[receiver],
                feats[sender],
                k,
                exclude=own if receiver == sender else None,
            )
            similarity = similarity.clamp(min=0)
            found = similarity > 0
            mean = similarity.sum() / found.sum().clamp(min=1)
            ends = torch.stack([own[:, None].expand_as(index) + first, index + second])
            edges.append(ends[:, found])
            weights.append((similarity[found] / mean) ** exponent)
    directed, values = torch.cat(edges, dim=1), torch.cat(weights)
    nodes = len(images) + len(captions)
    both = torch.sparse_coo_tensor(
        torch.cat([directed, directed.flip(0)], dim=1),
        torch.cat([values, values]),
        (nodes, nodes),
        check_invariants=False,
    ).coalesce()
    return AffinityGraph(both.indices(), both.values())


@torch.no_grad()
def propagate_labels(
    graph: AffinityGraph, labels: Tensor, alpha: float, iterations: int
) -> Tensor:
    """Spread each column of labels over the graph.

    The entry of node a in the column of a label that node b alone has is how often a
    walk visits b that starts at a, steps to a neighbour in proportion to the weights,
    and goes on with probability α. Solved by that many steps of the method of conjugate
    gradients, for all columns at once. Computed in float32 at least, under autocast
    too.

    Args:
        graph: Over n nodes.
        labels: Not negative, shape (n, C).
        alpha: In (0, 1): a walk has 1 / (1 − α) steps on average.
        iterations: Steps of the solver.

    Returns:
        F = (I − α D⁻¹W)⁻¹ Y, not negative, shape (n, C), D the diagonal of the sums of
        W. A node without neighbours keeps its own label.

    Source: Zhou et al., *Learning with Local and Global Consistency*, NIPS 2003, whose
    first choice is (I − αS)⁻¹ Y with S = D^-½ W D^-½, as in ReCLIP and in Iscen et al.
    (conjugate gradients there, too). With D⁻¹W, one of their variants, a node of
    many neighbours has no larger entries in all columns: that changes nothing where a
    node chooses its best label, as in a classification, but in a retrieval a label
    chooses its best nodes, and the same hubs would be chosen by all.
    """
    with torch.autocast(labels.device.type, enabled=False):
        labels = at_least_float32(labels)
        if not labels.numel():
            return labels
        nodes = len(labels)
        weights = graph.weights.to(labels.dtype)
        degrees = labels.new_zeros(nodes).scatter_add_(0, graph.edges[0], weights)
        # The system of S is symmetric; its solution gives that of D⁻¹W. A node without
        # neighbours has a row of zeros, whatever its degree is taken for.
        roots = degrees.where(degrees > 0, 1).sqrt()
        affinity = torch.sparse_coo_tensor(
            graph.edges,
            weights / (roots[graph.edges[0]] * roots[graph.edges[1]]),
            (nodes, nodes),
            is_coalesced=True,
            check_invariants=False,
        )
        solution = _conjugate_gradients(
            affinity, roots[:, None] * labels, alpha, iterations
        )
        return (solution / roots[:, None]).clamp(min=0)


def _conjugate_gradients(
    affinity: Tensor, rhs: Tensor, alpha: float, iterations: int
) -> Tensor:
    """Return about (I − α · affinity)⁻¹ rhs; the columns are systems of their own."""
    tiny = torch.finfo(rhs.dtype).tiny
    solution = torch.zeros_like(rhs)
    residual, direction = rhs.clone(), rhs.clone()
    energy = residual.square().sum(dim=0)
    for _ in range(iterations):
        product = torch.sparse.addmm(direction, affinity, direction, alpha=-alpha)
        # A column that is solved, or 0 from the start, has the energy 0: it stays.
        step = energy / (direction * product).sum(dim=0).clamp(min=tiny)
        solution.addcmul_(direction, step)
        residual.addcmul_(product, step, value=-1)
        previous, energy = energy, residual.square().sum(dim=0)
        direction = direction.mul_(energy / previous.clamp(min=tiny)).add_(residual)
    return solution
