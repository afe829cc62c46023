"""Distances between two sets of embeddings, to bring two domains together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Of a mean squared distance: below it float32 finds nothing but its own rounding.
_SMALLEST_BANDWIDTH = 1e-4


def mmd(
    source: Tensor, target: Tensor, kernels: int = 5, factor: float = 2.0
) -> Tensor:
    """Squared maximum mean discrepancy under a mean of Gaussian kernels.

    k(x, y) = 1/U Σ_u exp(−‖x − y‖² / γ_u), where the γ_u are a geometric family around
    the mean squared distance between any two rows of both sets; the family gets no
    gradient. The V-statistic, which counts each row as its own neighbour: biased
    upwards by at most 1/N + 1/M, never negative, and 0 for equal sets. Computed in
    float32, under autocast too.

    Args:
        source: Shape (N, D).
        target: Shape (M, D).
        kernels: Their number U. Defaults to 5.
        factor: From one γ_u to the next. Defaults to 2.

    Returns:
        Scalar in [0, 2].

    Source: Gretton et al., *A Kernel Two-Sample Test*, JMLR 2012 (the biased
    statistic). A convex combination of a geometric family of kernels is Long et al.,
    *Learning Transferable Features with Deep Adaptation Networks* (DAN), ICML 2015.
    They learn its weights and start from the median distance; equal weights and the
    mean are those of their published code, which sums the kernels.
    """
    with torch.autocast(source.device.type, enabled=False):
        feats = torch.cat([source.float(), target.float()])
        lengths = feats.square().sum(dim=1)
        distances = lengths[:, None] + lengths[None, :] - 2 * feats @ feats.t()
        distances = distances.clamp_min(0)
        pairs = len(feats) * (len(feats) - 1)
        centre = (distances.detach().sum() / pairs).clamp_min(_SMALLEST_BANDWIDTH)
        kernel = torch.zeros_like(distances)
        for position in range(kernels):
            bandwidth = centre * factor ** (position - (kernels - 1) / 2)
            kernel = kernel + torch.exp(-distances / bandwidth) / kernels
        sides = torch.cat(
            [
                feats.new_full((len(source),), 1 / len(source)),
                feats.new_full((len(target),), -1 / len(target)),
            ]
        )
        return sides @ kernel @ sides


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Squared Frobenius distance of two covariance matrices, over 4 D².

    The means do not count. Computed in float32, under autocast too.

    Args:
        source: Shape (N, D).
        target: Shape (M, D). A set of a single row has a covariance of 0.

    Returns:
        Scalar, not negative. It grows with the fourth power of the embeddings' length.

    Source: Sun and Saenko, *Deep CORAL: Correlation Alignment for Deep Domain
    Adaptation*, ECCV Workshops 2016, eq. 1 to 3.
    """
    with torch.autocast(source.device.type, enabled=False):
        difference = _covariance(source.float()) - _covariance(target.float())
        return difference.square().sum() / (4 * source.shape[1] ** 2)


def reverse_gradient(feats: Tensor, coefficient: float) -> Tensor:
    """Return the embeddings as they are; in backward, turn their gradient around.

    Args:
        feats: Any shape.
        coefficient: The gradient g comes back as −``coefficient`` · g.

    Source: Ganin et al., *Domain-Adversarial Training of Neural Networks* (DANN), JMLR
    2016, §4.2 (the gradient reversal layer).
    """
    return _ReversedGradient.apply(feats, coefficient)


def _covariance(feats: Tensor) -> Tensor:
    centred = feats - feats.mean(dim=0)
    return centred.t() @ centred / max(1, len(feats) - 1)


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feats: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return feats.view_as(feats)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * gradient, None
