"""A convolution of torch-geometric behind a gate that starts closed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: layer -> its arguments: a node is in the residual already, and has no edge to itself
CONVS: dict[str, dict[str, Any]] = {
    'SAGEConv': {},
    'GCNConv': {'normalize': False, 'add_self_loops': False},
    'GATv2Conv': {'add_self_loops': False},
}


class GatedConv(nn.Module):
    """One learned layer of a :class:`GraphPropagationNeck`, for one relation.

    Args:
        layer: One of :data:`CONVS`.
        channels: Size D of the embeddings, in and out.

    Source: the layers are of Hamilton et al., NeurIPS 2017 (SAGE), Kipf and Welling,
    ICLR 2017 (GCN) and Brody et al., ICLR 2022 (GATv2). GCN's symmetric normalisation
    D_r^-1/2 A D_s^-1/2 takes its degrees from the bipartite graph of receivers and
    senders, A being the weights: a receiver's degree is 1, a sender's is the sum of its
    weights, so that hubs count less.
    """

    def __init__(self, layer: str, channels: int) -> None:
        super().__init__()
        from torch_geometric import nn as geometric  # takes seconds: only if used

        self.layer = layer
        self.conv = getattr(geometric, layer)(channels, channels, **CONVS[layer])
        # No linear layer: an init_cfg that names these would open it.
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, senders: Tensor, receivers: Tensor, index: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the messages to N receivers from M senders, shape (N, D).

        Args:
            senders: Shape (M, D).
            receivers: Shape (N, D).
            index: The senders that are neighbours of each receiver, shape (N, K); -1
                where there is none.
            weights: Of these neighbours, shape (N, K); GCNConv alone uses them.
        """
        rows, slots = (index >= 0).nonzero(as_tuple=True)
        columns = index[rows, slots]
        if self.layer != 'GCNConv':
            return self.gate * self.conv(
                (senders, receivers), torch.stack((columns, rows))
            )
        edge_weights = weights[rows, slots].to(senders.dtype)
        degree = edge_weights.new_zeros(len(senders))
        degree = degree.index_add(0, columns, edge_weights)
        # A weight may underflow to 0, and so may the degree of a sender.
        degree = degree.clamp(min=torch.finfo(degree.dtype).tiny)
        # GCNConv knows one set of nodes only: the senders, then the receivers.
        messages = self.conv(
            torch.cat((senders, receivers)),
            torch.stack((columns, rows + len(senders))),
            edge_weights * degree[columns].rsqrt(),
        )
        return self.gate * messages[len(senders) :]
