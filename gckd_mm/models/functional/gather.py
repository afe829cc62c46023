"""Gather a batch from all ranks, with gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist
from mmengine.dist import get_dist_info, is_distributed
from torch import Tensor


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """Concatenate the tensors of all ranks in rank order; gradients flow back.

    A loss that every rank computes on the gathered batch, followed by the gradient
    averaging of DistributedDataParallel, gives exactly the gradients of one process
    with the whole batch: the backward pass sums the ranks' (equal) gradients, which
    the averaging divides again.

    Args:
        tensor: Shape (N, …), the same on all ranks.

    Returns:
        Shape (W·N, …) for W ranks; the tensor itself if not distributed.

    Source: ours; the arithmetic is that of open_clip's ``gather_with_grad``.
    """
    if not is_distributed():
        return tensor
    return _Gather.apply(tensor)


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
