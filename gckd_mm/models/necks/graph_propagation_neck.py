"""Message passing between embeddings over a graph of their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from gckd_mm.errors import InputError
from gckd_mm.models.functional.propagation import (
    has_neighbours,
    neighbour_average,
    neighbour_weights,
)
from gckd_mm.models.gckd.neighbours import Neighbours, nearest_neighbours
from gckd_mm.models.necks.features import last_of, with_last
from gckd_mm.registry import MODELS

LAYERS = ('SAGEConv', 'GCNConv', 'GATv2Conv', 'parameter_free')

#: (type of the senders, relation, type of the receivers), as in torch-geometric
EdgeType: TypeAlias = tuple[str, str, str]


@MODELS.register_module()
class GraphPropagationNeck(BaseModule):
    """Let embeddings hear their neighbours in a graph, of one kind or of many.

    In each layer a row x becomes

    - with learned layers, x + the mean over the edge types that reach it of gate ·
      conv(neighbours, x). The gate, one number a layer and relation, starts at 0, so
      that an untrained neck changes nothing;
    - with ``'parameter_free'``, x + share · (average of its neighbours − x), weighted
      by one softmax of the similarities over all of them, whatever their relation.

    A row that no edge reaches is left alone, whatever the biases. All rows of a layer
    are updated at once. Computed in float32, under autocast too; what comes out has the
    dtype of what went in. The graph is given: no gradient flows through the choice of
    neighbours and their similarities.

    Weights belong to the layer number and the relation, and not to the types of nodes:
    what the labelled source domain trains is what the target domain uses. A relation
    that a step's graph leaves out gets no gradient in this step; to please
    ``DistributedDataParallel``, give it with no neighbours (-1) instead.

    Args:
        in_channels: Size D of the embeddings, in and out.
        layer: ``'SAGEConv'`` (mean of the neighbours), ``'GCNConv'`` (sum weighted by
            similarity, see below), ``'GATv2Conv'`` (one head of attention) or
            ``'parameter_free'``. The first three need torch-geometric. Defaults to
            ``'SAGEConv'``.
        num_layers: Number of layers. Defaults to 2.
        k: Neighbours of a row in the graph that :meth:`forward` builds. Defaults to 6.
        relations: Names of the relations that have weights; :meth:`forward` uses
            ``'near'``. Defaults to ``('near',)``.
        temperature: Divides the similarities before their softmax, in
            ``'parameter_free'`` and ``'GCNConv'``. Defaults to 0.1.
        share: Share of the neighbours, from 0 to 1, in ``'parameter_free'``. Defaults
            to 0.5.
        normalize: Whether to L2-normalise all rows at the end of each layer. Defaults
            to True.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        InputError: If an argument is out of its range.

    Source: two message-passing layers over a heterogeneous graph of neighbours are of
    Luo et al., *Graph-Based Cross-Domain Knowledge Distillation for Cross-Dataset
    Text-to-Image Person Retrieval*, AAAI 2025; their form is ours. The layers are of
    Hamilton et al., NeurIPS 2017 (SAGE), Kipf and Welling, ICLR 2017 (GCN) and Brody
    et al., ICLR 2022 (GATv2); the gate is of Bachlechner et al., *ReZero*, UAI 2021.
    GCN's symmetric normalisation D_r^-1/2 A D_s^-1/2 takes its degrees from the
    bipartite graph of receivers and senders, A being the softmax of the similarities:
    a receiver's degree is 1, a sender's is all that it says, so that hubs speak softly.
    """

    def __init__(
        self,
        in_channels: int,
        layer: str = 'SAGEConv',
        num_layers: int = 2,
        k: int = 6,
        relations: Sequence[str] = ('near',),
        temperature: float = 0.1,
        share: float = 0.5,
        normalize: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if layer not in LAYERS:
            raise InputError(f'layer must be one of {LAYERS}, got {layer!r}')
        if min(in_channels, num_layers, k) < 1:
            raise InputError(
                f'in_channels, num_layers and k must be at least 1, got {in_channels}, '
                f'{num_layers} and {k}'
            )
        if temperature <= 0:
            raise InputError(f'temperature must be positive, got {temperature}')
        if not 0 <= share <= 1:
            raise InputError(f'share must be from 0 to 1, got {share}')
        _check_names(relations)
        self.in_channels = in_channels
        self.layer = layer
        self.num_layers = num_layers
        self.k = k
        self.relations = tuple(relations)
        self.temperature = temperature
        self.share = share
        self.normalize = normalize
        self.layers = nn.ModuleList()
        if layer != 'parameter_free':
            self.layers.extend(
                nn.ModuleDict(
                    {
                        relation: _GatedConv(layer, in_channels, temperature)
                        for relation in self.relations
                    }
                )
                for _ in range(num_layers)
            )

    def forward(self, x: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        """Propagate over the nearest neighbours, by cosine, within the batch.

        A row is not its own neighbour: a batch of one is left alone.

        Args:
            x: Shape (N, D), or a tuple of which the last is meant, as mmpretrain's
                necks give it.

        Returns:
            Likewise, with the embeddings propagated.

        Raises:
            InputError: If the embeddings are not of shape (N, D), or no relation is
                called ``'near'``.
        """
        return with_last(x, self._propagate_batch(last_of(x)))

    def propagate(
        self, nodes: dict[str, Tensor], edges: dict[EdgeType, Neighbours]
    ) -> dict[str, Tensor]:
        """Propagate over a heterogeneous graph.

        Args:
            nodes: Type of nodes -> embeddings, shape (N, D); N may be 0.
            edges: (type of the senders, relation, type of the receivers) -> the rows of
                the senders that each row of the receivers hears. What a row hears is
                the mean over these edge types; without parameters, it is one average
                of all its neighbours, the more similar the louder.

        Returns:
            Type of nodes -> embeddings, of the same shapes and dtypes.

        Raises:
            InputError: If a relation or a type of nodes is unknown, or a size does not
                fit.
        """
        self._check_graph(nodes, edges)
        feats = {
            name: node.to(torch.promote_types(node.dtype, torch.float32))
            for name, node in nodes.items()
        }
        for number in range(self.num_layers):
            feats = {name: self._updated(number, name, feats, edges) for name in feats}
        return {name: feats[name].to(node.dtype) for name, node in nodes.items()}

    def _propagate_batch(self, x: Tensor) -> Tensor:
        self._check_nodes('x', x)
        unit = F.normalize(x.detach().float(), dim=1)
        itself = torch.arange(len(x), device=x.device)
        neighbours = nearest_neighbours(unit, unit, self.k, exclude=itself)
        return self.propagate({'x': x}, {('x', 'near', 'x'): neighbours})['x']

    def _updated(
        self,
        number: int,
        name: str,
        feats: dict[str, Tensor],
        edges: dict[EdgeType, Neighbours],
    ) -> Tensor:
        """Return the nodes of one type after layer ``number``."""
        own = feats[name]
        heard = {edge: n for edge, n in edges.items() if edge[2] == name}
        with torch.autocast(own.device.type, enabled=False):
            result = own
            if heard:
                loudness = torch.stack([self._loudness(n) for n in heard.values()])
                shares = loudness.softmax(dim=0).nan_to_num(0.0).to(own.dtype)
                for share, (edge, neighbours) in zip(
                    shares, heard.items(), strict=True
                ):
                    sender, relation, _ = edge
                    message = self._message(
                        number, relation, feats[sender], own, neighbours
                    )
                    silent = (share == 0)[:, None]
                    result = result + share[:, None] * message.masked_fill(silent, 0)
            return F.normalize(result, dim=1) if self.normalize else result

    def _loudness(self, neighbours: Neighbours) -> Tensor:
        """Return the logits, shape (N,), by which a row weighs what it is told.

        -inf where there is no neighbour. Learned relations count alike: their gates
        weigh them. Without parameters all neighbours of a row share one softmax,
        whatever their relation.
        """
        if self.layer == 'parameter_free':
            similarity = neighbours.similarity.masked_fill(neighbours.index < 0, -inf)
            return (similarity / self.temperature).logsumexp(dim=1)
        heard = has_neighbours(neighbours)
        return torch.zeros_like(heard, dtype=torch.float32).masked_fill(~heard, -inf)

    def _message(
        self,
        number: int,
        relation: str,
        senders: Tensor,
        receivers: Tensor,
        neighbours: Neighbours,
    ) -> Tensor:
        if self.layer == 'parameter_free':
            average = neighbour_average(senders, neighbours, self.temperature)
            return self.share * (average - receivers)
        convs = cast(nn.ModuleDict, self.layers[number])
        return convs[relation](senders, receivers, neighbours)

    def _check_graph(
        self, nodes: dict[str, Tensor], edges: dict[EdgeType, Neighbours]
    ) -> None:
        unknown = sorted({edge[1] for edge in edges} - set(self.relations))
        if unknown:
            raise InputError(
                f'unknown relations {unknown}: this neck has {list(self.relations)}; '
                f'name them in its `relations`'
            )
        for name, node in nodes.items():
            self._check_nodes(name, node)
        for (sender, relation, receiver), neighbours in edges.items():
            edge = f'edges {(sender, relation, receiver)}'
            missing = sorted({sender, receiver} - set(nodes))
            if missing:
                raise InputError(
                    f'{edge}: there are no nodes of type {missing}, only {list(nodes)}'
                )
            if len(neighbours.index) != len(nodes[receiver]):
                raise InputError(
                    f'{edge}: neighbours of {len(neighbours.index)} rows were given '
                    f'for {len(nodes[receiver])} receivers'
                )

    def _check_nodes(self, name: str, node: Tensor) -> None:
        if node.ndim != 2 or node.shape[1] != self.in_channels:
            raise InputError(
                f'{name}: expected embeddings of shape (N, {self.in_channels}), from '
                f'in_channels={self.in_channels}, got {tuple(node.shape)}: mend '
                f'in_channels, or pool feature maps before this neck'
            )


class _GatedConv(nn.Module):
    """A convolution of torch-geometric behind a gate that starts closed."""

    def __init__(self, layer: str, channels: int, temperature: float) -> None:
        super().__init__()
        from torch_geometric import nn as geometric  # takes seconds: only if used

        # A node is in the residual already, and has no edge to itself.
        options = {
            'SAGEConv': {},
            'GCNConv': {'normalize': False, 'add_self_loops': False},
            'GATv2Conv': {'add_self_loops': False},
        }
        self.layer = layer
        self.temperature = temperature
        self.conv = getattr(geometric, layer)(channels, channels, **options[layer])
        # No linear layer: an init_cfg that names these would open it.
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, senders: Tensor, receivers: Tensor, neighbours: Neighbours
    ) -> Tensor:
        """Return the messages to N receivers from M senders, shape (N, D)."""
        rows, slots = (neighbours.index >= 0).nonzero(as_tuple=True)
        columns = neighbours.index[rows, slots]
        if self.layer != 'GCNConv':
            return self.gate * self.conv(
                (senders, receivers), torch.stack((columns, rows))
            )
        weights = neighbour_weights(neighbours, self.temperature)[rows, slots]
        weights = weights.to(senders.dtype)
        said = weights.new_zeros(len(senders)).index_add(0, columns, weights)
        # A weight may underflow to 0, and so may all that a sender says.
        said = said.clamp(min=torch.finfo(said.dtype).tiny)
        # GCNConv knows one set of nodes only: the senders, then the receivers.
        messages = self.conv(
            torch.cat((senders, receivers)),
            torch.stack((columns, rows + len(senders))),
            weights * said[columns].rsqrt(),
        )
        return self.gate * messages[len(senders) :]


def _check_names(relations: Sequence[str]) -> None:
    if (
        isinstance(relations, str)
        or not relations
        or len(set(relations)) < len(relations)
        or any('.' in name for name in relations)
    ):
        raise InputError(
            f'relations must be a list of distinct names without dots, got '
            f'{relations!r}'
        )
