"""Make the two domains look alike to a discriminator that tells them apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.gckd.relations import MODALITIES
from gckd_mm.models.retrievers.schedule_settings import read_schedule
from gckd_mm.models.uda.adaptation_head import (
    AdaptationHead,
    CrossDomainFeats,
)
from gckd_mm.models.uda.alignment import reverse_gradient
from gckd_mm.registry import MODELS


@MODELS.register_module()
class DomainAdversarialHead(AdaptationHead):
    """A discriminator for images and one for captions, behind reversed gradients.

    Each is a perceptron that learns to tell the target's embeddings from the source's;
    the encoders get its gradient times −``reversal``, and learn to confuse it. A
    modality that the target lacks is left out.

    Every rank averages over its own part of the batch: with parts of equal size,
    DistributedDataParallel's average of the gradients is that of the whole batch.

    Args:
        embedding_size: Size D of an embedding.
        hidden: Width of the hidden layers. Defaults to 256.
        layers: Number of hidden layers. Defaults to 2.
        dropout: After each hidden layer. Defaults to 0.
        reversal: Coefficient λ of the reversed gradient: a number or a schedule. The
            paper's 2 / (1 + exp(−10 p)) − 1, p from 0 to 1 over the training, is near
            to a linear ramp from 0 to 1 over the first quarter of the adaptation.
            Defaults to 1.
        loss_weight: A number or a schedule. The encoders' gradient is scaled by it and
            by ``reversal``; an optimiser of Adam's family makes the discriminators
            independent of it. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If ``embedding_size``, ``hidden`` or ``layers`` is below 1,
            ``dropout`` is not in [0, 1), or ``reversal`` is negative.

    Source: Ganin et al., *Domain-Adversarial Training of Neural Networks* (DANN), JMLR
    2016, §4.2. Ours: the mean of the two domains' terms where the paper has their sum,
    a discriminator for each modality, and inputs scaled to length √D, so that the first
    layer sees activations of unit size.
    """

    def __init__(
        self,
        embedding_size: int,
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.0,
        reversal: float | dict = 1.0,
        loss_weight: float | dict = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        if min(embedding_size, hidden, layers) < 1:
            raise InputError(
                f'DomainAdversarialHead: embedding_size, hidden and layers must be at '
                f'least 1, got {embedding_size}, {hidden} and {layers}'
            )
        if not 0 <= dropout < 1:
            raise InputError(
                f'DomainAdversarialHead: dropout must be at least 0 and below 1, got '
                f'{dropout}'
            )
        coefficient = read_schedule(reversal, 'reversal')
        if min(coefficient.start, coefficient.end) < 0:
            raise InputError(
                f'DomainAdversarialHead: reversal must not be negative, got {reversal}'
            )
        self.schedules['reversal'] = coefficient
        self.embedding_size = embedding_size
        self.discriminators = nn.ModuleDict(
            {
                modality: _discriminator(embedding_size, hidden, layers, dropout)
                for modality in MODALITIES
            }
        )

    def reset(self) -> None:
        """Give all ranks the same untrained discriminators."""
        for module in self.discriminators.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        for parameter in self.discriminators.parameters():
            broadcast(parameter.data)

    def terms(self, feats: CrossDomainFeats, step: int) -> dict[str, Tensor]:
        """Return the loss and the accuracy of each discriminator.

        Returns:
            ``loss_domain_<modality>``, binary cross-entropy (nats; log 2 where it only
            guesses), and ``domain_accuracy_<modality>``, the mean of both domains'; of
            this rank.

        Raises:
            InputError: If the embeddings have another size than ``embedding_size``.
        """
        coefficient = self.schedules['reversal'].at(step)
        terms = {}
        for modality in MODALITIES:
            if modality not in feats.target:
                continue
            source = self._logits(modality, feats.source[modality], coefficient)
            target = self._logits(modality, feats.target[modality], coefficient)
            losses = F.softplus(source).mean() + F.softplus(-target).mean()
            right = (source < 0).float().mean() + (target > 0).float().mean()
            terms[f'loss_domain_{modality}'] = losses / 2
            terms[f'domain_accuracy_{modality}'] = right / 2
        return terms

    def _logits(self, modality: str, feats: Tensor, coefficient: float) -> Tensor:
        """Return the log-odds that embeddings are of the target, shape (N,)."""
        if feats.shape[1] != self.embedding_size:
            raise InputError(
                f'DomainAdversarialHead: embedding_size={self.embedding_size}, but the '
                f'{modality} have embeddings of size {feats.shape[1]}'
            )
        with torch.autocast(feats.device.type, enabled=False):
            inputs = reverse_gradient(feats.float(), coefficient)
            inputs = inputs * math.sqrt(self.embedding_size)
            return self.discriminators[modality](inputs).squeeze(1)


def _discriminator(size: int, hidden: int, layers: int, dropout: float) -> nn.Module:
    modules: list[nn.Module] = []
    for width in [size] + [hidden] * (layers - 1):
        modules += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*modules, nn.Linear(hidden, 1))
