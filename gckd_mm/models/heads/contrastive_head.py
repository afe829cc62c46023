"""Contrastive losses of the pairs of a batch, gathered from all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import all_gather, get_dist_info, is_distributed
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor

from gckd_mm.errors import InputError
from gckd_mm.registry import MODELS

_EPSILON = 1e-8


def identity_targets(pids: Tensor) -> Tensor:
    """Return q_ij = 1[y_i = y_j] / |{j : y_j = y_i}|, shape (N, N), of ids (N,)."""
    same = pids[:, None] == pids[None, :]
    return same.float() / same.sum(dim=1, keepdim=True)


def sdm_loss(
    image_feats: Tensor, caption_feats: Tensor, pids: Tensor, temperature: float
) -> Tensor:
    """Similarity distribution matching: KL(p ‖ q), a mean, of both directions together.

    p is the softmax of the similarities over the batch, q the true matching
    distribution, :func:`identity_targets`. In float32, under autocast too.

    Args:
        image_feats: L2-normalised, shape (N, D).
        caption_feats: L2-normalised, shape (N, D); row i belongs to image i.
        pids: Person ids, shape (N,).
        temperature: Divides the cosine similarities.

    Source: Jiang and Ye, *Cross-Modal Implicit Relation Reasoning and Aligning for
    Text-to-Image Person Retrieval* (IRRA), CVPR 2023, eq. 5 and 6, ε = 1e-8.
    """
    with torch.autocast(image_feats.device.type, enabled=False):
        logits = image_feats.float() @ caption_feats.float().t() / temperature
        log_targets = torch.log(identity_targets(pids) + _EPSILON)
        return _kl_to(log_targets, logits) + _kl_to(log_targets, logits.t())


class ContrastiveHead(BaseModule):
    """A contrastive loss over the pairs of all ranks; a subclass says which.

    Args:
        temperature: Divides the cosine similarities; positive. Defaults to 0.02.
        loss_weight: Factor of the loss. Defaults to 1.
        init_cfg: See :class:`mmengine.model.BaseModule`.
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

    @staticmethod
    def objective(
        image_feats: Tensor, caption_feats: Tensor, pids: Tensor, temperature: float
    ) -> Tensor:
        """Return the unweighted loss of a whole batch."""
        raise NotImplementedError

    def loss(self, image_feats: Tensor, caption_feats: Tensor, pids: Tensor) -> Tensor:
        """Return the weighted loss of the batch of all ranks: see :func:`sdm_loss`.

        Raises:
            InputError: If the first batch of all ranks holds a single pair: there is
                nothing to contrast it with, and no gradient. A last batch may.
        """
        images = gather_with_gradient(image_feats)
        captions = gather_with_gradient(caption_feats)
        if len(images) > 1:
            self._has_contrasted = True
        elif not self._has_contrasted:
            raise InputError(
                f'{type(self).__name__}: a batch of {len(images)} pair has nothing to '
                f'contrast it with, and its loss is constant: set '
                f'train_dataloader.batch_size to 2 or more '
                f'(optim_wrapper.accumulative_counts makes no larger batch of it)'
            )
        pids = torch.cat(all_gather(pids))
        loss = self.objective(images, captions, pids, self.temperature)
        return self.loss_weight * loss


@MODELS.register_module()
class SDMHead(ContrastiveHead):
    """Similarity distribution matching, see :func:`sdm_loss`; IRRA divides by 0.02."""

    objective = staticmethod(sdm_loss)


def head_losses(
    heads: Mapping[str, ContrastiveHead],
    feats: Mapping[str, Tensor],
    pids: Tensor,
    prefix: str = 'loss',
) -> dict[str, Tensor]:
    """Return ``<prefix>_<name>`` -> loss of each head on N embedded pairs."""
    return {
        f'{prefix}_{name}': head.loss(feats['images'], feats['captions'], pids)
        for name, head in heads.items()
    }


def person_ids(data_samples: Sequence[BaseDataElement], feats: Tensor) -> Tensor:
    """Return the person ids of N samples on the device of their embeddings, (N,)."""
    return torch.tensor([sample.pid for sample in data_samples], device=feats.device)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Concatenate the tensors of all W ranks, (N, …) each; gradients flow back.

    With a loss that every rank computes on the gathered batch, shape (W·N, …) in rank
    order, DistributedDataParallel gives the gradients of one process with the whole
    batch: the backward pass sums the ranks' (equal) gradients, which it divides again.

    Source: ours; the arithmetic is that of open_clip's ``gather_with_grad``.
    """
    return _Gather.apply(tensor) if is_distributed() else tensor


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tensor: Tensor) -> Tensor:
        _, world_size = get_dist_info()
        gathered = [torch.empty_like(tensor) for _ in range(world_size)]
        dist.all_gather(gathered, tensor.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor]:
        rank, world_size = get_dist_info()
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return (total.chunk(world_size)[rank],)


def _kl_to(log_targets: Tensor, logits: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - log_targets)).sum(dim=1).mean()
