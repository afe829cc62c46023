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
        if not isinstance(temperature, int | float) or not temperature > 0:
            raise InputError(f'temperature must be positive, got {temperature!r}')
        self.temperature = temperature
        self.loss_weight = loss_weight
        self._has_contrasted = False

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

        Raises:
            InputError: If the first batch of all ranks holds a single pair: there is
                nothing to contrast it with, and no gradient. A last batch may.
        """
        images = gather_with_gradient(image_feats)
        if len(images) > 1:
            self._has_contrasted = True
        elif not self._has_contrasted:
            raise InputError(
                f'{type(self).__name__}: a batch of {len(images)} pair has nothing to '
                f'contrast it with, and its loss is constant: set '
                f'train_dataloader.batch_size to 2 or more '
                f'(optim_wrapper.accumulative_counts makes no larger batch of it)'
            )
        return self.loss_weight * self.objective(
            images,
            gather_with_gradient(caption_feats),
            torch.cat(all_gather(pids)),
        )
