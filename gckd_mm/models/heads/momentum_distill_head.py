"""Distil soft labels over a memory into the student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import Neighbours, at_least_float32
from gckd_mm.registry import MODELS

_MASKED = -1e4


def soft_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over N queries of −Σ_j q_j log p_j, in nats.

    In float32, or float64 if the logits are. Gradients reach the logits alone.

    Args:
        logits: The student's similarities over its temperature, shape (N, M), finite.
        labels: The teacher's distributions q, shape (N, M).
        weights: Of the queries, shape (N,), not negative; if all are 0, so are the loss
            and its gradients.

    Source: Li et al., *Align before Fuse* (ALBEF), NeurIPS 2021, section 3.3; the
    weights are ours.
    """
    log_p = F.log_softmax(at_least_float32(logits), dim=1)
    losses = -(labels.detach() * log_p).sum(dim=1)
    weights = weights.detach().to(losses.dtype)
    total = weights.sum()
    # Not a tiny number instead of 0: the gradient divides by it, too, and overflows.
    return (weights * losses).sum() / total.where(total > 0, 1)


@MODELS.register_module()
class MomentumDistillHead(BaseModule):
    """Cross-entropy from soft labels to the student's similarities; without state.

    Args:
        temperature: Divides the student's similarities; positive. Defaults to 0.06.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: see :func:`soft_cross_entropy`; it is the loss of the paper's CMKD, too.
    """

    def __init__(self, temperature: float = 0.06, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if not temperature > 0:
            raise InputError(
                f'{type(self).__name__}: temperature must be positive, got '
                f'{temperature}'
            )
        self.temperature = temperature

    def forward(self, feats: Tensor, memory: Tensor) -> Tensor:
        """Return the student's logits, shape (N, M), in float32 under autocast too."""
        with torch.autocast(feats.device.type, enabled=False):
            return feats.float() @ memory.t() / self.temperature

    def loss(
        self,
        feats: Tensor,
        memory: Tensor,
        labels: Tensor,
        weights: Tensor,
        exclude: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of N queries, a scalar: see :func:`soft_cross_entropy`.

        Args:
            feats: The student's, L2-normalised, shape (N, D).
            memory: The teacher's, L2-normalised, shape (M, D).
            labels: Distributions over the memory, shape (N, M).
            weights: Of the queries, not negative, shape (N,).
            exclude: The memory's row that a query is not compared with, shape (N,).
        """
        logits = self(feats, memory)
        if exclude is not None:
            logits = logits.scatter(1, exclude[:, None], _MASKED)
        return soft_cross_entropy(logits, labels, weights)

    @torch.no_grad()
    def describe(
        self, feats: Tensor, memory: Tensor, labels: Tensor, weights: Tensor
    ) -> dict[str, Tensor]:
        """Describe the labels, in scalars; arguments as of :meth:`loss`.

        ``gate_rate`` is the mean weight, ``label_entropy`` in nats, ``agreement`` the
        fraction of queries for which student and teacher have the same best match.
        """
        best = self(feats, memory).argmax(dim=1)
        return {
            'gate_rate': weights.mean(),
            'label_entropy': torch.special.entr(labels).sum(dim=1).mean(),
            'agreement': (best == labels.argmax(dim=1)).float().mean(),
        }


@MODELS.register_module()
class NeighbourConsistencyHead(MomentumDistillHead):
    """The same loss, with the neighbours of the same modality as labels.

    The neighbours of a sample in the teacher's memory, weighted by similarity, are what
    the student should find there: no pairing of images with captions is assumed.

    Args:
        k: Neighbours that count, at least 1. Defaults to 6.
        neighbour_temperature: Divides their similarities in the labels' softmax;
            positive. Defaults to 0.1.
        temperature: Divides the student's similarities; positive. Defaults to 0.06.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Source: ours; related to Yang et al., *Exploiting the Intrinsic Neighborhood
    Structure for Source-free Domain Adaptation*, NeurIPS 2021.
    """

    def __init__(
        self,
        k: int = 6,
        neighbour_temperature: float = 0.1,
        temperature: float = 0.06,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(temperature, init_cfg)
        if k < 1 or not neighbour_temperature > 0:
            raise InputError(
                f'NeighbourConsistencyHead: k must be at least 1 and '
                f'neighbour_temperature positive, got {k} and {neighbour_temperature}'
            )
        self.k = k
        self.neighbour_temperature = neighbour_temperature

    @torch.no_grad()
    def labels(self, neighbours: Neighbours, num_columns: int) -> tuple[Tensor, Tensor]:
        """Return labels, (N, M), and weights, (N,), of N queries for :meth:`loss`.

        Labels are the softmax of similarity / ``neighbour_temperature`` over the K
        neighbours among the M rows of a memory, 0 elsewhere; a query without any has
        labels and a weight of 0.
        """
        absent = neighbours.index < 0
        logits = at_least_float32(neighbours.similarity) / self.neighbour_temperature
        # a softmax over no neighbours at all is NaN, which the mask takes away
        probabilities = logits.softmax(dim=1).masked_fill(absent, 0)
        labels = probabilities.new_zeros(len(probabilities), num_columns)
        labels.scatter_add_(1, neighbours.index.masked_fill(absent, 0), probabilities)
        return labels, (~absent).any(dim=1).float()
