"""How captions and images of one domain lie to each other, without any label.

Every measure asks whether two modalities that were embedded apart have found one
structure. None knows what is right: they are candidates for a signal that tells,
without labels, whether an adaptation has helped. N captions meet M images; lists of
neighbours are int64, the most similar first. Most values change with N and M: compare
runs that embed as many of each. Measures without a source are ours.

``best_images``, shape (N,), are the most similar image of each caption, and
``best_captions``, (M,), the most similar caption of each image; ``near_captions``,
(N, A), and ``near_images``, (M, B), the nearest of the own modality, without itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gckd_mm.models.functional.assignment import candidate_edges, sinkhorn_potentials
from gckd_mm.models.gckd.memory import Neighbours, nearest_neighbours

#: other modality's items on a list; what the assignment chooses from
_CANDIDATES = 32
#: length of the lists that hubs are counted in
_HUBNESS_K = 10
#: a caption's nearest captions that a walk may return to
_RETURN_K = 10
_NEAR_K = 5
#: rows compared at a time: 20 MB of similarities at 5,000 columns
_CHUNK_SIZE = 1024


@torch.no_grad()
def target_structure(captions: Tensor, images: Tensor) -> dict[str, float]:
    """Compute every measure of this module on one set of captions and images.

    Computed in float32, under autocast too. Lists are cut short where there are too few
    captions or images to fill them.

    Args:
        captions: L2-normalised, shape (N, D).
        images: L2-normalised, shape (M, D), in any order.

    Returns:
        Name -> value:

        - ``mutual_rate_1``, ``mutual_rate_5``: :func:`mutual_rate` with n = 1 and 5;
        - ``image_hubness``: :func:`hubness` of the images among the 10 best of each
          caption; ``caption_hubness``: of the captions among those of each image;
        - ``image_coverage``: :func:`coverage` of the images by the captions' best;
          ``caption_coverage``: of the captions by the images' best;
        - ``best_similarity``: mean cosine similarity of a caption and its best image;
        - ``margin``: mean of that similarity less the second best image's, in [0, 2];
        - ``matching_entropy``, ``assignment_gain``, ``neighbourhood_agreement`` (5
          neighbours) and ``cycle_rate`` (by 5 images, back to 10 captions): see the
          functions;
        - ``modality_gap``: :func:`embedding_gap` of captions and images.

    Raises:
        ValueError: If there are fewer than two captions or two images.
    """
    num_captions, num_images = len(captions), len(images)
    if min(num_captions, num_images) < 2:
        raise ValueError(
            f'the structure of a domain needs at least two captions and two images, '
            f'got {num_captions} and {num_images}'
        )
    by_caption = _between(captions, images)
    by_image = _between(images, captions)
    near_captions = _within(captions, max(_NEAR_K, _RETURN_K))
    near_images = _within(images, _NEAR_K)
    best_images, best_captions = by_caption.index[:, 0], by_image.index[:, 0]
    best, second = by_caption.similarity[:, :2].unbind(1)
    return {
        'mutual_rate_1': mutual_rate(best_images, by_image.index[:, :1]),
        'mutual_rate_5': mutual_rate(best_images, by_image.index[:, :5]),
        'image_hubness': hubness(by_caption.index[:, :_HUBNESS_K], num_images),
        'caption_hubness': hubness(by_image.index[:, :_HUBNESS_K], num_captions),
        'image_coverage': coverage(best_images, num_images),
        'caption_coverage': coverage(best_captions, num_captions),
        'best_similarity': best.mean().item(),
        'margin': (best - second).mean().item(),
        'matching_entropy': matching_entropy(captions, images),
        'assignment_gain': assignment_gain(by_caption, by_image),
        'neighbourhood_agreement': neighbourhood_agreement(
            best_images, near_captions[:, :_NEAR_K], near_images
        ),
        'cycle_rate': cycle_rate(
            best_images, best_captions, near_captions[:, :_RETURN_K], near_images
        ),
        'modality_gap': embedding_gap(captions, images),
    }


def mutual_rate(best_images: Tensor, nearest_captions: Tensor) -> float:
    """Return the fraction of captions among the n nearest of their best image.

    Those, ``nearest_captions``, have shape (M, n).

    Returns:
        In [0, 1]; chance is about n / N.

    Source: ours, after the mutual nearest neighbours of Conneau et al., *Word
    Translation Without Parallel Data*, ICLR 2018.
    """
    own = torch.arange(len(best_images), device=best_images.device)[:, None]
    return _fraction((nearest_captions[best_images] == own).any(dim=1))


def hubness(lists: Tensor, size: int) -> float:
    """Return the skewness of how often each item is on the others' lists.

    S = E[(c − μ)³] / σ³, where c counts the lists that an item is on. A few items on
    very many lists, hubs, give a large value; they attract matches that are not theirs.

    ``lists``, shape (Q, k), are the nearest of ``size`` items for each query. The value
    is unbounded, about 0 without hubs, and 0 if every item is on as many lists.

    Source: Radovanović et al., *Hubs in Space: Popular Nearest Neighbors in
    High-Dimensional Data*, JMLR 2010, eq. 1. From one modality to the other: ours.
    """
    counts = torch.bincount(lists.flatten(), minlength=size).double()
    if (counts == counts[0]).all():
        return 0.0
    deviation = counts - counts.mean()
    variance = deviation.square().mean()
    return (deviation.pow(3).mean() / variance.pow(1.5)).item()


def coverage(best: Tensor, size: int) -> float:
    """Return the fraction of items that are the best of at least one query.

    ``best``, shape (Q,), is the best of ``size`` items for each query. The value is
    about 1 − exp(−Q / size) if every query chose at random.
    """
    return len(best.unique()) / size


@torch.no_grad()
def matching_entropy(
    captions: Tensor,
    images: Tensor,
    temperature: float = 0.02,
    chunk_size: int = _CHUNK_SIZE,
) -> float:
    """Return how undecided the captions are between the images.

    The entropy of softmax_j(s_kj / τ), divided by log M, mean over the captions k; τ is
    ``temperature``, by default that of :class:`ContrastiveHead`. Computed in float32,
    under autocast too. At most ``chunk_size`` × M similarities exist at a time.

    Returns:
        In [0, 1]: 0 if each caption has one image, 1 if all images are alike to it.
        Confidence is no sign of correctness: a collapse onto hubs is certain, too.

    Source: ours; entropy as the target's signal is that of Grandvalet and Bengio,
    *Semi-supervised Learning by Entropy Minimization*, NIPS 2004.
    """
    with torch.autocast(captions.device.type, enabled=False):
        total, transposed = 0.0, images.float().t()
        for chunk in captions.float().split(chunk_size):
            p = (chunk @ transposed / temperature).softmax(dim=1)
            total += torch.special.entr(p).sum(dtype=torch.float64).item()
    return total / len(captions) / math.log(len(images))


def assignment_gain(
    by_caption: Neighbours,
    by_image: Neighbours,
    epsilon: float = 0.06,
    iterations: int = 4,
) -> float:
    """Return the fraction of captions whose best image an assignment changes.

    Assigning adds to each image the potential that balanced assignment gives it. If
    every image is asked for about as often as any other, there is nothing to change.

    Args:
        by_caption: The nearest images of each caption, shapes (N, K1).
        by_image: The nearest captions of each image, shapes (M, K2). The pairs on
            either list are those that may be assigned.
        epsilon: Of :func:`sinkhorn_potentials`, as ``iterations`` is.
        iterations: Of it.
    """
    num_captions, num_images = len(by_caption.index), len(by_image.index)
    edges = candidate_edges(by_caption, by_image)
    _, potentials = sinkhorn_potentials(
        edges, num_captions, num_images, epsilon, iterations
    )
    corrected = edges.similarity + potentials[edges.columns]
    highest = corrected.new_full((num_captions,), -torch.inf)
    highest.scatter_reduce_(0, edges.rows, corrected, 'amax')
    first = by_caption.similarity[:, 0] + potentials[by_caption.index[:, 0]]
    return _fraction(first < highest)


def neighbourhood_agreement(
    best_images: Tensor, near_captions: Tensor, near_images: Tensor
) -> float:
    """Return how far nearest captions point to nearest images.

    For caption k with best image j, the Jaccard index of two sets: the best images of
    the captions nearest to k, and j with the images nearest to j. Mean over the
    captions.

    Returns:
        In [0, 1], and at most A / (B + 1) where that is smaller. Captions that all
        point to one hub get 1 / (B + 1).
    """
    pointed = best_images[near_captions]
    around = torch.cat([best_images[:, None], near_images[best_images]], dim=1)
    repeated = (pointed[:, :, None] == pointed[:, None, :]).tril(-1).any(dim=2)
    shared = (pointed[:, :, None] == around[:, None, :]).any(dim=2) & ~repeated
    intersection = shared.sum(dim=1)
    union = (~repeated).sum(dim=1) + around.shape[1] - intersection
    return (intersection / union).double().mean().item()


def cycle_rate(
    best_images: Tensor,
    best_captions: Tensor,
    near_captions: Tensor,
    near_images: Tensor,
) -> float:
    """Return the fraction of captions that a walk through the images returns to.

    caption k → its best image → the images nearest to that one → the best caption of
    each. The walk returns if one of these is k or one of the captions nearest to k.

    Returns:
        In [0, 1]; chance is about B · (A + 1) / N.

    Source: ours, after the walks of Haeusser et al., *Associative Domain Adaptation*,
    ICCV 2017.
    """
    ends = best_captions[near_images[best_images]]
    own = torch.arange(len(best_images), device=best_images.device)[:, None]
    home = torch.cat([own, near_captions], dim=1)
    return _fraction((ends[:, :, None] == home[:, None, :]).any(dim=2).any(dim=1))


@torch.no_grad()
def embedding_gap(feats: Tensor, others: Tensor) -> float:
    """Return the distance of the means of embeddings (N, D) and (M, D), in [0, 2].

    Between modalities it is the modality gap; between domains, the shift of the mean
    that alignment by moments takes away.

    Source: Liang et al., *Mind the Gap: Understanding the Modality Gap in Multi-modal
    Contrastive Representation Learning*, NeurIPS 2022, section 4.1 (Δ_gap).
    """
    return (feats.double().mean(dim=0) - others.double().mean(dim=0)).norm().item()


def _between(queries: Tensor, keys: Tensor) -> Neighbours:
    k = min(_CANDIDATES, len(keys))
    return nearest_neighbours(queries, keys, k, chunk_size=_CHUNK_SIZE)


def _within(feats: Tensor, k: int) -> Tensor:
    """Return each row's nearest other rows, shape (N, min(k, N − 1))."""
    own = torch.arange(len(feats), device=feats.device)
    k = min(k, len(feats) - 1)
    return nearest_neighbours(feats, feats, k, own, _CHUNK_SIZE).index


def _fraction(flags: Tensor) -> float:
    return flags.double().mean().item()
