"""The base of the contrastive heads: gathers the batch, weights the loss."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather
from mmengine.model import BaseModule
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.models.functional import gather_with_gradient


class ContrastiveHead(BaseModule):
    """A contrastive loss over the pairs of all ranks.

    Args:
        temperature: Divides the cosine similarities. Defaults to 0.02.
        loss_weight: Factor of the loss. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If the temperature is not positive.
    """

    def __init__(
        self,
        temperature: float = 0.02,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if temperature <= 0:
            raise InputError(f'temperature must be positive, got {temperature}')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def objective(
        self, image_feats: Tensor, caption_feats: Tensor, pids: Tensor
    ) -> Tensor:
        """Return the unweighted loss of a whole batch; shapes as in :meth:`loss`."""
        raise NotImplementedError

    def loss(self, image_feats: Tensor, caption_feats: Tensor, pids: Tensor) -> Tensor:
        """Return the weighted loss of the batch of all ranks together.

        Args:
            image_feats: L2-normalised, shape (N, D).
            caption_feats: L2-normalised, shape (N, D); row i belongs to image i.
            pids: Person ids, shape (N,).

        Returns:
            Scalar, the same on all ranks.
        """
        return self.loss_weight * self.objective(
            gather_with_gradient(image_feats),
            gather_with_gradient(caption_feats),
            torch.cat(all_gather(pids)),
        )
