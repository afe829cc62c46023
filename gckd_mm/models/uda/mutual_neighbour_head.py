"""Learn from target captions and images that are each other's nearest neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.memory import nearest_neighbours
from gckd_mm.models.gckd.relations import DIRECTIONS, MODALITIES
from gckd_mm.models.heads.contrastive_head import gather_with_gradient
from gckd_mm.models.heads.momentum_distill_head import soft_cross_entropy
from gckd_mm.models.uda.adaptation_head import (
    CrossDomainFeats,
)
from gckd_mm.models.uda.target_memory_head import TargetMemoryHead
from gckd_mm.registry import MODELS


@MODELS.register_module()
class MutualNeighbourHead(TargetMemoryHead):
    """Self-training on target captions and images that choose each other.

    The memories hold the student's own embeddings, each sample's as it was last seen. A
    caption and an image are a pseudo pair if each is among the other's k nearest in
    them. Cross-entropy from the captions of the batch to all images of the memory, with
    a caption's pseudo pairs as its label, and the same from images to captions; what
    has no pseudo pair teaches nothing.

    A caption whose image was not seen yet can but be paired wrongly: for large enough
    memories a ``loss_weight`` that rises over the first epoch of the target, such as
    ``dict(start=0, end=1, length=…)``, leaves those pairs out.

    Args:
        embedding_size: D.
        memory_size: Rows of each of the two memories; best what the target's train
            set has of the larger modality.
        k: Neighbours that count. Defaults to 1.
        temperature: Divides the student's similarities. Defaults to 0.06.
        loss_weight: A number or a schedule. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``k`` or a size is less than 1, or if the temperature is not
            positive.

    Source: neighbours that are mutual as a sign of the same person: Zhong et al.,
    *Re-ranking Person Re-identification with k-reciprocal Encoding*, CVPR 2017; pairs
    across modalities, the memories and the loss are ours.
    """

    def __init__(
        self,
        embedding_size: int,
        memory_size: int,
        k: int = 1,
        temperature: float = 0.06,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embedding_size, memory_size, loss_weight, init_cfg)
        if k < 1 or temperature <= 0:
            raise InputError(
                f'MutualNeighbourHead: k must be at least 1 and the temperature '
                f'positive, got {k}, {temperature}'
            )
        self.k = k
        self.temperature = temperature

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Remember the target's batch, and return the losses of its pseudo pairs.

        Args:
            feats: See :class:`CrossDomainFeats`.
            step: Step of the adaptation; nothing depends on it.

        Returns:
            ``loss_mutual_<direction>``, unweighted: 0, with a gradient path, where
            nothing has a pair; and ``pair_rate_<modality>``, the share of the batch
            that has one. Of all ranks together.

        Raises:
            InputError: If the target has no captions.
        """
        self.need_captions(feats)
        slots = {
            modality: self.memory(modality).push(
                feats.target[modality], feats.keys[modality]
            )
            for modality in MODALITIES
        }
        terms = {}
        for direction, (query, key) in DIRECTIONS.items():
            keys = self.memory(key).feats
            labels = _mutual_labels(
                self.memory(query).feats, slots[query], keys, self.k
            )
            paired = labels.any(dim=1).float()
            queries = gather_with_gradient(feats.target[query])
            with torch.autocast(queries.device.type, enabled=False):
                logits = queries.float() @ keys.t() / self.temperature
            terms[f'loss_mutual_{direction}'] = soft_cross_entropy(
                logits, labels, paired
            )
            terms[f'pair_rate_{query}'] = paired.mean()
        return terms


@torch.no_grad()
def _mutual_labels(queries: Tensor, slots: Tensor, keys: Tensor, k: int) -> Tensor:
    """Return with which keys each query of a batch is paired.

    Only the queries' own candidates are asked back, which is exact: nothing else can be
    a pair.

    Args:
        queries: The memory of the batch's modality, L2-normalised, shape (L, D).
        slots: Its row of each sample of the batch, shape (B,); -1 if it has none.
        keys: The memory of the other modality, L2-normalised, shape (M, D).
        k: Neighbours that count.

    Returns:
        Shape (B, M): equal labels, of the sum 1, on a query's pairs; a row of zeros
        where it has none.
    """
    candidates = nearest_neighbours(queries[slots], keys, k).index
    chosen = nearest_neighbours(keys[candidates.flatten()], queries, k).index
    mutual = (chosen.view(len(slots), k, k) == slots[:, None, None]).any(dim=2)
    # -1 is both "not in the memory" and "no such neighbour": neither is a match
    mutual &= (candidates >= 0) & (slots >= 0)[:, None]
    labels = keys.new_zeros(len(slots), len(keys))
    labels.scatter_add_(1, candidates.clamp_min(0), mutual.to(labels.dtype))
    return F.normalize(labels, p=1, dim=1)
