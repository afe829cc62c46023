"""Balanced assignment: potentials against hubs, on sparse candidate pairs.

N captions are rows, M images are columns. Labels are softmax_j((s_kj + g_j) / τ) for
captions and softmax_k((s_kj + f_k) / τ) for images; f and g carry no gradient.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from gckd_mm.models.gckd.memory import Neighbours


class CandidateEdges(NamedTuple):
    """The E pairs of caption and image that may match, each once; shapes (E,).

    ``rows`` are captions, ``columns`` images, ``similarity`` is their cosine, float32.
    """

    rows: Tensor
    columns: Tensor
    similarity: Tensor


def candidate_edges(
    caption_neighbours: Neighbours, image_neighbours: Neighbours
) -> CandidateEdges:
    """Return the pairs in which one is a neighbour of the other.

    Args:
        caption_neighbours: The nearest images of each caption, shapes (N, K1).
        image_neighbours: The nearest captions of each image, shapes (M, K2).

    Returns:
        Sorted by caption, then by image. Where both sides know a pair, the similarity
        is the captions' side's.
    """
    num_rows, num_columns = len(caption_neighbours.index), len(image_neighbours.index)
    device = caption_neighbours.index.device
    rows = torch.arange(num_rows, device=device)[:, None]
    columns = torch.arange(num_columns, device=device)[:, None]
    keys = torch.cat(
        [
            (rows * num_columns + caption_neighbours.index).flatten(),
            (image_neighbours.index * num_columns + columns).flatten(),
        ]
    )
    index = torch.cat(
        [caption_neighbours.index.flatten(), image_neighbours.index.flatten()]
    )
    similarity = torch.cat(
        [caption_neighbours.similarity.flatten(), image_neighbours.similarity.flatten()]
    )
    there = index >= 0
    # stable: of a pair's two similarities the captions' side's comes first
    keys, order = keys[there].sort(stable=True)
    similarity = similarity[there][order]
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    keys = keys[first]
    return CandidateEdges(keys // num_columns, keys % num_columns, similarity[first])


@torch.no_grad()
def score_edges(
    edges: CandidateEdges, captions: Tensor, images: Tensor
) -> CandidateEdges:
    """Return the same pairs with the similarities of other embeddings.

    Args:
        edges: As :func:`candidate_edges` sorts them.
        captions: L2-normalised, shape (N, D).
        images: L2-normalised, shape (M, D).
    """
    if len(edges.rows) == 0:
        return edges
    starts = torch.bincount(edges.rows, minlength=len(captions)).cumsum(0)
    starts = torch.cat([starts.new_zeros(1), starts])
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta')
        # Gathering both ends of every edge takes fifty times as long.
        pattern = torch.sparse_csr_tensor(
            starts,
            edges.columns,
            torch.zeros_like(edges.rows, dtype=captions.dtype),
            size=(len(captions), len(images)),
            check_invariants=False,
        )
        products = torch.sparse.sampled_addmm(pattern, captions, images.t(), beta=0)
    return edges._replace(similarity=products.values())


@torch.no_grad()
def sinkhorn_potentials(
    edges: CandidateEdges,
    num_rows: int,
    num_columns: int,
    epsilon: float = 0.06,
    iterations: int = 4,
    relaxation: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Match captions with images by entropic optimal transport.

    The plan P_kj = exp((s_kj + f_k + g_j) / ε) on the edges, and 0 off them, gets the
    row marginals 1/N' and the column marginals 1/M', where N' and M' count the rows and
    columns that have an edge. An iteration scales rows, then columns: the column sums
    are met, the row sums the better the more iterations. Balance assumes that
    **captions and images come from the same people, in equal numbers**; ``relaxation``
    softens that: each update is raised to ρ / (ρ + ε), a Kullback-Leibler penalty ρ on
    either marginal; ρ → ∞ is balanced. Linear in the edges; in float32.

    Args:
        edges: See :class:`CandidateEdges`.
        num_rows: N.
        num_columns: M.
        epsilon: ε, in units of cosine similarity. Defaults to 0.06.
        iterations: At least 1. Defaults to 4.
        relaxation: ρ, positive, in the same units. Defaults to None: balanced.

    Returns:
        f, shape (N,), and g, shape (M,), in the same units; 0 where there is no edge.

    Source: Cuturi, *Sinkhorn distances*, NIPS 2013, algorithm 1; the exponent from
    Chizat et al., *Scaling algorithms for unbalanced optimal transport problems*,
    Mathematics of Computation 2018. Its use here, on candidate edges, is ours.
    """
    kernel, shift = _kernel(edges.similarity, epsilon)
    has_row = torch.bincount(edges.rows, minlength=num_rows) > 0
    has_column = torch.bincount(edges.columns, minlength=num_columns) > 0
    row_marginal, column_marginal = 1 / has_row.sum(), 1 / has_column.sum()
    power = 1.0 if relaxation is None else relaxation / (relaxation + epsilon)
    column_scaling = kernel.new_ones(num_columns)
    for _ in range(iterations):
        row_sums = _sums(kernel * column_scaling[edges.columns], edges.rows, num_rows)
        row_scaling = _guarded((row_marginal / row_sums) ** power)
        column_sums = _sums(
            kernel * row_scaling[edges.rows], edges.columns, num_columns
        )
        column_scaling = _guarded((column_marginal / column_sums) ** power)
    # The kernel is exp(s / ε) divided by exp(shift / ε); a fixed point of the scalings
    # answers a factor c of its kernel with c ** (-power / (1 + power)) on either side.
    shift = shift * power / (1 + power)
    f = epsilon * row_scaling.log() - shift
    g = epsilon * column_scaling.log() - shift
    return f.where(has_row, 0), g.where(has_column, 0)


def _kernel(similarity: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    similarity = similarity.float()
    # The best pair, rather than 1, has the value 1: teachers whose similarities are all
    # low would lose their digits, or everything, to underflow at a small ε.
    shift = similarity.max() if len(similarity) else similarity.new_zeros(())
    return ((similarity - shift) / epsilon).exp(), shift


def _sums(values: Tensor, index: Tensor, size: int) -> Tensor:
    return values.new_zeros(size).index_add_(0, index, values)


def _guarded(values: Tensor) -> Tensor:
    tiny = torch.finfo(values.dtype).tiny
    return values.clamp(tiny, 1 / tiny)
