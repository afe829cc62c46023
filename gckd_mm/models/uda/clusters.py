"""Pseudo-classes of unlabelled samples: clusters, and how far to trust them.

The M samples of a partition have classes 0 … C − 1, numbered by their first member; a
sample that no cluster takes is a class of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional.reciprocal import ClosePairs
from gckd_mm.models.gckd.memory import nearest_neighbours


def density_classes(
    pairs: ClosePairs, num: int, eps: float, min_samples: int
) -> Tensor:
    """Cluster samples by DBSCAN.

    Args:
        pairs: All pairs within ``eps``, at least.
        num: M.
        eps: Largest distance of neighbours, positive.
        min_samples: Neighbours that make a sample the core of a cluster, itself
            counted.

    Returns:
        The class of each sample, shape (M,), int64, on the device of the pairs.

    Raises:
        InputError: If scikit-learn is not installed.

    Source: Ester et al., *DBSCAN*, KDD 1996, as scikit-learn has it.
    """
    try:
        from scipy.sparse import csr_matrix
        from sklearn.cluster import DBSCAN
        from sklearn.neighbors import sort_graph_by_row_values
    except ImportError as error:
        raise InputError(
            "clusters need scikit-learn: pip install 'gckd-mm[cluster]'"
        ) from error
    rows, columns, distances = (part.cpu().numpy() for part in pairs)
    graph = csr_matrix((distances.astype('float64'), (rows, columns)), (num, num))
    # Else scikit-learn warns that it sorts.
    graph = sort_graph_by_row_values(graph, warn_when_not_sorted=False)
    dbscan = DBSCAN(eps=eps, min_samples=min_samples, metric='precomputed')
    clusters = torch.from_numpy(dbscan.fit_predict(graph)).to(pairs.rows)
    alone = clusters < 0
    clusters[alone] = num + torch.arange(int(alone.sum()), device=clusters.device)
    return _by_first_member(clusters)


def overlap(classes: Tensor, others: Tensor) -> Tensor:
    """Compare the classes that two partitions give each sample.

    Args:
        classes: Shape (M,).
        others: Of the same samples, shape (M,).

    Returns:
        Shape (M,), in (0, 1]: intersection over union of the sample's two classes.
    """
    both = _sizes(classes * len(others) + others)
    return both / (_sizes(classes) + _sizes(others) - both)


def independence_threshold(classes: Tensor, loose: Tensor, share: float) -> float:
    """Say how independent a cluster must be, for a share of them to be so.

    Args:
        classes: Shape (M,).
        loose: The same with a larger ``eps``, shape (M,).
        share: Of the clusters, 0 … 1.

    Returns:
        The threshold for :func:`keep_reliable`; NaN if there are no clusters.
    """
    independence = torch.zeros(len(classes), device=classes.device)
    independence.scatter_reduce_(0, classes, overlap(classes, loose), 'amax')
    sizes = torch.bincount(classes, minlength=len(classes))
    clusters = independence[sizes > 1]
    if not len(clusters):
        return float('nan')
    return float(clusters.quantile(1 - share, interpolation='lower'))


def keep_reliable(
    classes: Tensor, tight: Tensor, loose: Tensor, threshold: float
) -> Tensor:
    """Break up clusters that depend on the choice of ``eps``.

    A cluster is independent if a larger ``eps`` does not let it run into others, and
    its compact members are those that a smaller ``eps`` takes least away from. Compact
    members of independent clusters stay; every other sample is on its own.

    Args:
        classes: Shape (M,).
        tight: The same with a smaller ``eps``, shape (M,).
        loose: The same with a larger ``eps``, shape (M,).
        threshold: The least :func:`overlap` with ``loose`` that the best member of an
            independent cluster has.

    Returns:
        Classes, shape (M,).

    Source: Ge et al., *Self-paced Contrastive Learning* (SpCL), NeurIPS 2020, section
    3.2; that a cluster scores as its best member does is in their code.
    """
    independence = _best_of_class(overlap(classes, loose), classes)
    compactness = overlap(classes, tight)
    compact = compactness >= _best_of_class(compactness, classes)
    alone = ~(compact & (independence >= threshold))
    classes = classes.clone()
    classes[alone] = len(classes) + torch.arange(
        int(alone.sum()), device=classes.device
    )
    return _by_first_member(classes)


@torch.no_grad()
def capped_assignment(
    queries: Tensor, centroids: Tensor, sizes: Tensor, capacity: float
) -> Tensor:
    """Assign queries to their most similar class, up to what each class can hold.

    Without a limit, hubs attract the queries of everyone. If queries and members of the
    classes are of the same people, a class of m of the M members expects m·K/M of the K
    queries: it takes that many times ``capacity``, the most similar first.

    Args:
        queries: L2-normalised, shape (K, D).
        centroids: L2-normalised, shape (C, D), C ≥ 1.
        sizes: Members of each class, shape (C,).
        capacity: Times the expected number, rounded up.

    Returns:
        The class of each query, shape (K,), int64; −1 where the class was full.

    Source: ours.
    """
    best = nearest_neighbours(queries, centroids, 1)
    classes, similarity = best.index[:, 0], best.similarity[:, 0]
    order = similarity.argsort(descending=True, stable=True)
    order = order[classes[order].argsort(stable=True)]
    counts = torch.bincount(classes, minlength=len(centroids))
    first = counts.cumsum(0) - counts
    ranks = torch.empty_like(classes)
    ranks[order] = torch.arange(len(order), device=order.device)
    ranks -= first[classes]
    limits = (capacity * len(queries) * sizes / sizes.sum()).ceil()
    return classes.masked_fill(ranks >= limits[classes], -1)


def _by_first_member(classes: Tensor) -> Tensor:
    _, dense = classes.unique(return_inverse=True)
    samples = torch.arange(len(dense), device=dense.device)
    first = torch.full_like(dense, len(dense)).scatter_reduce_(
        0, dense, samples, 'amin'
    )
    return first.argsort(stable=True).argsort()[dense]


def _sizes(classes: Tensor) -> Tensor:
    _, dense, counts = classes.unique(return_inverse=True, return_counts=True)
    return counts[dense]


def _best_of_class(scores: Tensor, classes: Tensor) -> Tensor:
    best = torch.zeros_like(scores).scatter_reduce_(0, classes, scores, 'amax')
    return best[classes]
