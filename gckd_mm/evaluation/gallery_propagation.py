"""Re-ranking by random walks over the gallery's graph of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.evaluation.reranking import Scorer, check_seeds, seed_weights
from gckd_mm.models.functional import affinity_graph, propagate_labels

# Entries, images × queries, of one solution: 4 MiB, of which a solver holds several.
_ENTRIES = 2**20


@dataclass(frozen=True)
class GalleryPropagation:
    """Score images by how often random walks from them visit what was found first.

    The first images of a caption are seeds, with the weights of
    :func:`~gckd_mm.evaluation.reranking.seed_weights`. They are spread over the graph
    of all images, as labels are by
    :func:`~gckd_mm.models.functional.propagate_labels`: an image scores what walks that
    start from it meet, so that it is near the seeds, or near what is near them. Images
    that reach no seed score 0.

    Args:
        k: Neighbours of an image in the graph. About as many as a person has images.
        exponent: Of the similarities among images.
        alpha: With which a walk goes on, in (0, 1).
        iterations: Steps of the solver.
        seeds: First images of a caption.
        temperature: Of their weights, of similarities from 0 to 1.

    Source: Iscen et al., *Efficient Diffusion on Region Manifolds*, CVPR 2017, after
    Zhou et al., *Ranking on Data Manifolds*, NIPS 2003. Theirs start from the
    neighbours of an image, weighted as the edges are; captions' weights, and the
    random walk in place of their symmetric matrix, are ours.
    """

    k: int = 4
    exponent: float = 3.0
    alpha: float = 0.9
    iterations: int = 20
    seeds: int = 20
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.k < 1 or self.iterations < 1:
            raise InputError(
                f'propagation: k and iterations must be at least 1, got {self.k} and '
                f'{self.iterations}'
            )
        if not 0 < self.alpha < 1:
            raise InputError(
                f'propagation: alpha must be between 0 and 1, got {self.alpha}'
            )
        if self.exponent < 0:
            raise InputError(
                f'propagation: exponent must not be negative, got {self.exponent}'
            )
        check_seeds('propagation', self.seeds, self.temperature)

    def over(self, gallery: Tensor) -> Scorer:
        """Build the graph of a normalised gallery (N, D); give what scores shortlists.

        The graph has at most 2kN edges. Labels are solved for some captions at a time.

        Returns:
            (order, similarity), both of shape (Q, K), best first -> scores (Q, K), at
            least 0, the best of each query 1.
        """
        graph = affinity_graph(gallery, gallery[:0], self.k, self.exponent)

        def scores(order: Tensor, similarity: Tensor) -> Tensor:
            weights = seed_weights(similarity, self.seeds, self.temperature)
            chunk_size = max(1, _ENTRIES // len(gallery))
            found = [torch.zeros_like(weights[:0, :1]).expand(0, order.shape[1])]
            for some, of_seeds in zip(
                order.split(chunk_size), weights.split(chunk_size), strict=True
            ):
                labels = of_seeds.new_zeros(len(some), len(gallery))
                labels.scatter_(1, some[:, : of_seeds.shape[1]], of_seeds)
                visits = propagate_labels(
                    graph, labels.t().contiguous(), self.alpha, self.iterations
                )
                found.append(visits.t().gather(1, some))
            visits = torch.cat(found)
            return visits / visits.amax(dim=1, keepdim=True)

        return scores
