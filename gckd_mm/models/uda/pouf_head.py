"""Align the target's images with its captions by conditional transport."""

from __future__ import annotations

import torch
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.relations import DIRECTIONS, MODALITIES
from gckd_mm.models.heads.contrastive_head import gather_with_gradient
from gckd_mm.models.uda.adaptation_head import (
    CrossDomainFeats,
)
from gckd_mm.models.uda.target_memory_head import TargetMemoryHead
from gckd_mm.models.uda.transport import prediction_entropies, transport_cost
from gckd_mm.registry import MODELS


@MODELS.register_module()
class POUFHead(TargetMemoryHead):
    """Unsupervised fine-tuning in the style of POUF: captions are the prototypes.

    Two terms, each of them in both directions: the conditional transport cost, and the
    mutual information of query and prediction, which is to be large: each image is to
    have one caption, and different images different ones.

    POUF compares a batch with all classes of a task. The captions of a batch show other
    people than its images, so that the batch of one modality, with gradient, is
    compared with a memory of the other: the student's embeddings of the target, each
    sample's as it was last seen. With memories that hold the whole target this
    estimates the transport between all its images and all its captions.

    Args:
        embedding_size: D.
        memory_size: Rows of each of the two memories; best what the target's train
            set has of the larger modality.
        temperature: Divides the cosine similarities in plans and predictions; that of
            the contrastive loss of the encoders, as a rule. Defaults to 0.02.
        transport_weight: Of the two directions' transport costs, added. Defaults to 1.
        information_weight: Of the mutual information, the mean of both directions.
            Defaults to 0.3.
        loss_weight: Of both; a number or a schedule. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If the temperature is not positive, a weight is negative, or a size
            is less than 1.

    Source: Tanwisuth et al., *POUF: Prompt-Oriented Unsupervised Fine-Tuning for Large
    Pre-trained Models*, ICML 2023; both weights as in its authors' code, where the
    temperature is CLIP's, 0.01. Captions for class prompts, the memories, and the
    mutual information in the direction from captions to images are ours.
    """

    def __init__(
        self,
        embedding_size: int,
        memory_size: int,
        temperature: float = 0.02,
        transport_weight: float = 1.0,
        information_weight: float = 0.3,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embedding_size, memory_size, loss_weight, init_cfg)
        if temperature <= 0:
            raise InputError(
                f'POUFHead: the temperature must be positive, got {temperature}'
            )
        if transport_weight < 0 or information_weight < 0:
            raise InputError(
                f'POUFHead: transport_weight and information_weight must be at least '
                f'0, got {transport_weight}, {information_weight}'
            )
        self.temperature = temperature
        self.transport_weight = transport_weight
        self.information_weight = information_weight

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Remember the target's batch, and return the losses of both directions.

        Args:
            feats: See :class:`CrossDomainFeats`.
            step: Step of the adaptation; nothing depends on it.

        Returns:
            ``loss_transport_<direction>`` and ``loss_information_<direction>``, the
            latter negative as a rule; and, in nats, ``prediction_entropy_<direction>``,
            the mean over the batch, and ``marginal_entropy_<direction>``, that of the
            mean prediction. Of all ranks together.

        Raises:
            InputError: If the target has no captions.
        """
        self.need_captions(feats)
        for modality in MODALITIES:
            self.memory(modality).push(feats.target[modality], feats.keys[modality])
        terms = {}
        for direction, (query, key) in DIRECTIONS.items():
            queries = gather_with_gradient(feats.target[query])
            with torch.autocast(queries.device.type, enabled=False):
                similarity = queries.float() @ self.memory(key).feats.t()
            cost = transport_cost(similarity, self.temperature)
            each, marginal = prediction_entropies(similarity, self.temperature)
            information = (marginal - each) / len(DIRECTIONS)
            terms[f'loss_transport_{direction}'] = self.transport_weight * cost
            terms[f'loss_information_{direction}'] = (
                -self.information_weight * information
            )
            terms[f'prediction_entropy_{direction}'] = each.detach()
            terms[f'marginal_entropy_{direction}'] = marginal.detach()
        return terms
