"""Re-ranking by k-reciprocal neighbours, for captions over a gallery of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation.reranking import (
    Scorer,
    check_seeds,
    relative_similarity,
    seed_weights,
)
from gckd_mm.models.functional.reciprocal import (
    WeightedSets,
    concatenated,
    reciprocal_sets,
    spans,
)

# Similarities that exist at a time: 64 MiB.
_SIMILARITIES = 2**24
# Members of sets that are compared at a time.
_MEMBERS = 2**19


@dataclass(frozen=True)
class KReciprocal:
    """Score images by how much of their k-reciprocal neighbours a caption shares.

    The images are encoded as in :func:`~gckd_mm.models.functional.close_pairs`: each as
    the weighted set V_i of its k1-reciprocal neighbours, averaged over its k2 nearest.

    A caption cannot be k-reciprocal to an image: its similarities to images are smaller
    than those among images, and no list of an image would hold it. It is instead the
    mean of what it is thought to be, V_q = Σ w_i V_i over its first images, with the
    weights of :func:`~gckd_mm.evaluation.reranking.seed_weights`: the paper's local
    query expansion, without the query itself. Then, with the Jaccard distance
    d_J = 1 − Σ min(V_q, V_g) / Σ max(V_q, V_g) and s the caption's similarity from 0 to
    1 (:func:`~gckd_mm.evaluation.reranking.relative_similarity`), the score of g is
    (1 − λ)(1 − d_J) + λs.

    Args:
        k1: Neighbours of an image that may be reciprocal. About twice as many as a
            person has images.
        k2: Images that are averaged, the image itself among them; 1 averages nothing.
        seeds: First images that a caption is thought to be.
        temperature: Of their weights, of similarities from 0 to 1.
        similarity_share: λ, from 0 to 1.

    Source: Zhong et al., *Re-ranking Person Re-identification with k-reciprocal
    Encoding*, CVPR 2017, section 3, and λ of theirs. How a caption joins is ours, and
    so are k1, k2 (there 20 and 6, for images as queries), seeds and temperature.
    """

    k1: int = 8
    k2: int = 3
    seeds: int = 6
    temperature: float = 0.1
    similarity_share: float = 0.3

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1:
            raise InputError(
                f'k_reciprocal: k1 and k2 must be at least 1, got {self.k1} and '
                f'{self.k2}'
            )
        if not 0 <= self.similarity_share <= 1:
            raise InputError(
                'k_reciprocal: similarity_share must be from 0 to 1, got '
                f'{self.similarity_share}'
            )
        check_seeds('k_reciprocal', self.seeds, self.temperature)

    def over(self, gallery: Tensor) -> Scorer:
        """Encode a gallery (N, D), L2-normalised; give what scores shortlists.

        Neighbours are found chunk by chunk; what stays is a few times k1 numbers an
        image, and a shortlist takes as much as the sets of its images.

        Returns:
            (order, similarity), both of shape (Q, K), best first -> scores (Q, K),
            from 0 to 1.
        """
        chunk_size = max(1, _SIMILARITIES // len(gallery))
        sets = reciprocal_sets(gallery.float(), self.k1, self.k2, chunk_size)
        first, sizes = spans(sets.rows, len(gallery))

        def scores(order: Tensor, similarity: Tensor) -> Tensor:
            relative = relative_similarity(similarity)
            weights = seed_weights(similarity, self.seeds, self.temperature)
            shared = _shared_weight(sets, first, sizes, order, weights)
            # Both weigh 1: the larger weights sum to what the smaller ones leave of 2.
            likeness = shared / (2 - shared)
            return likeness.lerp(relative, self.similarity_share)

        return scores


def _shared_weight(
    sets: WeightedSets, first: Tensor, sizes: Tensor, order: Tensor, weights: Tensor
) -> Tensor:
    """Return Σ min(V_q, V_g) of each query and each image of its shortlist.

    Args:
        sets: V, of N images.
        first: Where each of them begins, shape (N,).
        sizes: How many members each has, shape (N,).
        order: Gallery rows, shape (Q, K).
        weights: Of the first images of ``order`` in the query's set, shape (Q, S).

    Returns:
        Shape (Q, K).
    """
    num = len(sizes)
    chunk_size = max(1, _MEMBERS // max(1, order.shape[1] * int(sizes.max())))
    found = [order.new_zeros(0, order.shape[1], dtype=weights.dtype)]
    for some, of_seeds in zip(
        order.split(chunk_size), weights.split(chunk_size), strict=True
    ):
        seeds = some[:, : of_seeds.shape[1]].flatten()
        seed, entry = concatenated(first[seeds], sizes[seeds])
        keys, place = (seed // of_seeds.shape[1] * num + sets.columns[entry]).unique(
            return_inverse=True
        )
        query = torch.bincount(place, of_seeds.flatten()[seed] * sets.weights[entry])

        images = some.flatten()
        image, entry = concatenated(first[images], sizes[images])
        wanted = image // some.shape[1] * num + sets.columns[entry]
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        smaller = query[place].minimum(sets.weights[entry]) * (keys[place] == wanted)
        shared = torch.bincount(image, smaller, minlength=len(images))
        found.append(shared.view_as(some).to(weights.dtype))
    return torch.cat(found)
