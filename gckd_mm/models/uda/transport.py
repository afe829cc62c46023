"""Conditional transport between two modalities, and what predictions tell.

B queries of one modality are rows, M candidates of the other are columns: their cosine
similarities. Everything is computed in float32, under autocast too (float64 stays
float64).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from gckd_mm.models.gckd.memory import at_least_float32


def transport_cost(similarity: Tensor, temperature: float) -> Tensor:
    """Return what it costs to carry the queries to the candidates they resemble.

    The plan π(j | i) = softmax_j(s_ij / τ) sends most of query i to what is near it.
    This is one direction of conditional transport; the other one is that of the
    transposed problem, with the candidates as the queries.

    Args:
        similarity: Cosine similarities, shape (B, M).
        temperature: τ, divides them in the plan.

    Returns:
        Scalar, 0 … 2: the mean over the queries of Σ_j π(j | i) (1 − s_ij). Gradients
        reach the similarities in the cost and in the plan.

    Source: Zheng and Zhou, *Exploiting Chain Rule and Bayes' Theorem to Compare
    Probability Distributions*, NeurIPS 2021 (conditional transport), with the cosine
    cost and the plan of Tanwisuth et al., *POUF*, ICML 2023.
    """
    similarity = at_least_float32(similarity)
    plan = (similarity / temperature).softmax(dim=1)
    return (plan * (1 - similarity)).sum(dim=1).mean()


def prediction_entropies(
    similarity: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return how unsure the predictions are one by one, and how varied together.

    The prediction of query i is p_i = softmax_j(s_ij / τ). The second entropy minus the
    first is the mutual information of query and candidate: large where each query has
    one candidate, and every query another one.

    Args:
        similarity: Cosine similarities, shape (B, M).
        temperature: τ, divides them.

    Returns:
        The mean of the entropies H(p_i), and the entropy H(mean of the p_i): scalars in
        nats, 0 … log M, the first never above the second.

    Source: Tanwisuth et al., *POUF*, ICML 2023, after Krause et al., *Discriminative
    Clustering by Regularized Information Maximization*, NeurIPS 2010.
    """
    log_p = F.log_softmax(at_least_float32(similarity) / temperature, dim=1)
    # In logarithms: a probability that rounds to 0 would have an infinite gradient.
    log_mean = log_p.logsumexp(dim=0) - math.log(len(log_p))
    return _entropy(log_p).mean(), _entropy(log_mean)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(dim=-1)
